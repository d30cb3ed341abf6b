"""From intake to effect through a real queue, whatever is away meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from postroad.bounce.handler import AfterCommit, BounceHandler
from postroad.bounce.intake import LANE, Intake, ProcessBounce, encode_job
from postroad.bounce.process import BounceRules
from postroad.bounce.report import Envelope
from postroad.clock import SystemClock
from postroad.delivery.job import job_id, lane_of
from postroad.errors import UnavailableError
from postroad.gates.name import Receiver
from postroad.mail.token import TokenSigner
from postroad.operations.touches import sync_queue_to_ledger
from postroad.queue import Job, JobState, Queue, Uncertain, Worker, WorkerOptions
from postroad.settings import BounceSettings
from postroad.store.engine import open_engine, read
from postroad.store.ledger import TouchState
from tests.bounce import mails
from tests.bounce.house import House

SEND_LANE = lane_of(
    sender="a@example.com", receiver=Receiver("other"), campaign="spring", route="relay", job_class="bulk"
)


@pytest.fixture
def house(engine: sa.Engine, signer: TokenSigner) -> House:
    return House(engine, signer)


def handler(house: House, bounces: Queue, mail: Queue, engine: sa.Engine | None = None) -> BounceHandler:
    async def sync_queues(ended: Sequence[int], resolved: Sequence[int]) -> None:
        await sync_queue_to_ledger(mail, ended, resolved)

    return BounceHandler(
        engine=engine or house.engine,
        rules=BounceRules(signer=house.signer, settings=BounceSettings()),
        read=house.read,
        reports=house.reports,
        intake=intake(house, bounces),
        clock=SystemClock(),
        after_commit=AfterCommit(sync_queues),
    )


async def _over(bounces: Queue) -> int:
    counters = (await bounces.stats()).counters
    return sum(counters.get(name, 0) for name in ("done", "dead", "defer"))


def _worker(bounces: Queue, handle: BounceHandler, *, together: bool) -> Worker:
    prepare = handle.prepare if together else None
    return Worker(
        bounces, handle, concurrency=4, prepare=prepare, options=WorkerOptions(lease_ms=10_000, drain_ms=5_000)
    )


async def work_off(bounces: Queue, handle: BounceHandler, count: int, *, together: bool = True) -> None:
    """Run a worker until so many jobs are over."""
    stop = asyncio.Event()
    worker = asyncio.create_task(_worker(bounces, handle, together=together).run(stop))
    async with asyncio.timeout(20):
        while await _over(bounces) < count:
            await asyncio.sleep(0.01)
    stop.set()
    await worker


def intake(house: House, bounces: Queue) -> Intake:
    return Intake(engine=house.engine, queue=bounces, clock=SystemClock())


@pytest.mark.parametrize("together", [True, False])
async def test_a_bounce_is_taken_in_judged_and_stops_what_is_queued(
    house: House, bounces: Queue, mail: Queue, together: bool
) -> None:
    ada = house.recipient()
    touch, waits = house.touch(ada), house.touch(ada, TouchState.QUEUED)
    await mail.enqueue(SEND_LANE, [Job(id=job_id(waits), payload=b"")])
    raw = mails.dsn(recipient=house.address_of(touch))
    envelope = Envelope(recipient=house.return_path(touch), mail_from="", source="smtp")
    submitted = await intake(house, bounces).submit(raw, envelope)
    again = await intake(house, bounces).submit(raw, envelope)
    assert (submitted.new, again.new) == (True, False)
    await work_off(bounces, handler(house, bounces, mail), 1, together=together)
    assert (house.state(touch), house.state(waits)) == (TouchState.BOUNCED, TouchState.SUPPRESSED)
    assert await mail.states([job_id(waits)]) != [JobState.QUEUED]
    await intake(house, bounces).submit(raw, envelope)
    assert await intake(house, bounces).resume() == 0
    assert (await bounces.stats()).counters["done"] == 1


async def test_an_unknown_touch_that_the_queue_holds_is_done(house: House, bounces: Queue, mail: Queue) -> None:
    touch = house.touch(house.recipient(), TouchState.UNKNOWN)
    await mail.enqueue(SEND_LANE, [Job(id=job_id(touch), payload=b"")])
    [job] = (await mail.claim("w", want=1, lease_ms=10_000, nonce="1")).jobs
    await mail.settle("w", [(job, Uncertain(cause="connection lost"))])
    await intake(house, bounces).submit(house.dsn_of(touch), Envelope())
    await work_off(bounces, handler(house, bounces, mail), 1)
    assert house.state(touch) is TouchState.BOUNCED
    assert await mail.states([job_id(touch)]) != [JobState.UNCERTAIN]
    assert await mail.uncertain(10) == []


async def test_a_queue_that_lost_its_jobs_gets_them_from_the_store(house: House, bounces: Queue, mail: Queue) -> None:
    touch = house.touch(house.recipient())
    house.keep(house.dsn_of(touch))  # As if its queue had been emptied since.
    assert await intake(house, bounces).resume() == 1
    await work_off(bounces, handler(house, bounces, mail), 1)
    assert house.state(touch) is TouchState.BOUNCED


async def test_what_is_behind_the_commit_is_done_by_the_next_try(house: House, bounces: Queue, mail: Queue) -> None:
    ada = house.recipient()
    touch, waits = house.touch(ada), house.touch(ada, TouchState.QUEUED)
    await mail.enqueue(SEND_LANE, [Job(id=job_id(waits), payload=b"")])
    raw = house.dsn_of(touch)
    house.process(raw)  # A worker that died before it told the queue.
    assert await mail.states([job_id(waits)]) == [JobState.QUEUED]
    await bounces.enqueue(LANE, [Job(id="again", payload=encode_job(ProcessBounce(digest=house.keep(raw))))])
    await work_off(bounces, handler(house, bounces, mail), 1)
    assert await mail.states([job_id(waits)]) != [JobState.QUEUED]


async def test_while_the_database_is_away_a_mail_waits_and_uses_no_attempt(
    house: House, bounces: Queue, mail: Queue
) -> None:
    touch = house.touch(house.recipient())
    submitted = await intake(house, bounces).submit(house.dsn_of(touch), Envelope())
    away = open_engine("postgresql://nobody@127.0.0.1:1/nothing")
    await work_off(bounces, handler(house, bounces, mail, away), 1)
    away.dispose()
    assert (await bounces.stats()).counters.get("dead", 0) == 0
    assert await bounces.states([submitted.digest]) == [JobState.SCHEDULED]
    assert house.state(touch) is TouchState.ACCEPTED


async def test_many_mails_are_judged_together_and_one_that_is_lost_keeps_none(
    house: House, bounces: Queue, mail: Queue
) -> None:
    touches = [house.touch(house.recipient()) for _ in range(9)]
    for touch in touches:
        await intake(house, bounces).submit(house.dsn_of(touch), Envelope())
    await bounces.enqueue(LANE, [Job(id="lost", payload=encode_job(ProcessBounce(digest="0" * 64)))])
    await work_off(bounces, handler(house, bounces, mail), 10)
    assert {house.state(touch) for touch in touches} == {TouchState.BOUNCED}
    assert len(house.suppressed()) == 9


async def test_a_job_of_no_mail_is_a_dead_letter(house: House, bounces: Queue, mail: Queue) -> None:
    await bounces.enqueue(LANE, [Job(id="lost", payload=encode_job(ProcessBounce(digest="0" * 64)))])
    await work_off(bounces, handler(house, bounces, mail), 1)
    [letter] = (await bounces.dead_letters(count=10))[0]
    assert (letter.id, letter.cause) == ("lost", "no such mail")


async def test_nothing_is_taken_in_that_could_not_be_kept(bounces: Queue) -> None:
    away = open_engine("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(UnavailableError):
        await Intake(engine=away, queue=bounces, clock=SystemClock()).submit(mails.UNKNOWN, Envelope())
    away.dispose()
    assert (await bounces.stats()).counters.get("enqueued", 0) == 0


async def test_an_envelope_that_no_column_takes_is_cut(house: House, bounces: Queue) -> None:
    envelope = Envelope(recipient="\0\udcff" + "a" * 400, mail_from="b" * 400, source="s" * 100)
    submitted = await intake(house, bounces).submit(b"\0", envelope)
    with read(house.engine) as connection:
        row = connection.execute(sa.text("SELECT recipient, mail_from, source FROM bounce_mail")).one()
    assert submitted.new
    assert [len(value) for value in row] == [320, 320, 24]

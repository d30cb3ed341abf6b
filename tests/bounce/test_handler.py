"""Inbound mail is processed through a real queue, even if the database or a queue is unavailable for a time."""

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
from postroad.operations.touches import sync_queue_to_ledger
from postroad.queue import Job, JobState, Queue, Uncertain, Worker, WorkerOptions
from postroad.settings import BounceSettings
from postroad.store.engine import open_engine, read
from postroad.store.ledger import TouchState
from tests.bounce import mails
from tests.bounce.ledger import LedgerFixture

SEND_LANE = lane_of(
    sender="a@example.com", receiver=Receiver("other"), campaign="spring", route="relay", job_class="bulk"
)


def handler(ledger: LedgerFixture, bounces: Queue, mail: Queue, engine: sa.Engine | None = None) -> BounceHandler:
    async def sync_queues(ended: Sequence[int], resolved: Sequence[int]) -> None:
        await sync_queue_to_ledger(mail, ended, resolved)

    return BounceHandler(
        engine=engine or ledger.engine,
        rules=BounceRules(signer=ledger.signer, settings=BounceSettings()),
        read=ledger.read,
        reports=ledger.reports,
        intake=intake(ledger, bounces),
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


def intake(ledger: LedgerFixture, bounces: Queue) -> Intake:
    return Intake(engine=ledger.engine, queue=bounces, clock=SystemClock())


@pytest.mark.parametrize("together", [True, False])
async def test_a_bounce_is_taken_in_judged_and_stops_what_is_queued(
    ledger: LedgerFixture, bounces: Queue, mail: Queue, together: bool
) -> None:
    ada = ledger.recipient()
    touch, waits = ledger.touch(ada), ledger.touch(ada, TouchState.QUEUED)
    await mail.enqueue(SEND_LANE, [Job(id=job_id(waits), payload=b"")])
    raw = mails.dsn(recipient=ledger.address_of(touch))
    envelope = Envelope(recipient=ledger.return_path(touch), mail_from="", source="smtp")
    submitted = await intake(ledger, bounces).submit(raw, envelope)
    again = await intake(ledger, bounces).submit(raw, envelope)
    assert (submitted.new, again.new) == (True, False)
    await work_off(bounces, handler(ledger, bounces, mail), 1, together=together)
    assert (ledger.state(touch), ledger.state(waits)) == (TouchState.BOUNCED, TouchState.SUPPRESSED)
    assert await mail.states([job_id(waits)]) != [JobState.QUEUED]
    await intake(ledger, bounces).submit(raw, envelope)
    assert await intake(ledger, bounces).resume() == 0
    assert (await bounces.stats()).counters["done"] == 1


async def test_an_unknown_touch_that_the_queue_holds_is_done(
    ledger: LedgerFixture, bounces: Queue, mail: Queue
) -> None:
    touch = ledger.touch(ledger.recipient(), TouchState.UNKNOWN)
    await mail.enqueue(SEND_LANE, [Job(id=job_id(touch), payload=b"")])
    [job] = (await mail.claim("w", want=1, lease_ms=10_000, nonce="1")).jobs
    await mail.settle("w", [(job, Uncertain(cause="connection lost"))])
    await intake(ledger, bounces).submit(ledger.dsn_of(touch), Envelope())
    await work_off(bounces, handler(ledger, bounces, mail), 1)
    assert ledger.state(touch) is TouchState.BOUNCED
    assert await mail.states([job_id(touch)]) != [JobState.UNCERTAIN]
    assert await mail.uncertain(10) == []


async def test_a_queue_that_lost_its_jobs_gets_them_from_the_store(
    ledger: LedgerFixture, bounces: Queue, mail: Queue
) -> None:
    touch = ledger.touch(ledger.recipient())
    ledger.keep(ledger.dsn_of(touch))  # As if its queue had been emptied since.
    assert await intake(ledger, bounces).resume() == 1
    await work_off(bounces, handler(ledger, bounces, mail), 1)
    assert ledger.state(touch) is TouchState.BOUNCED


async def test_a_retry_repeats_the_calls_after_the_commit(ledger: LedgerFixture, bounces: Queue, mail: Queue) -> None:
    ada = ledger.recipient()
    touch, waits = ledger.touch(ada), ledger.touch(ada, TouchState.QUEUED)
    await mail.enqueue(SEND_LANE, [Job(id=job_id(waits), payload=b"")])
    raw = ledger.dsn_of(touch)
    ledger.process(raw)  # As by a worker that died before it updated the queue.
    assert await mail.states([job_id(waits)]) == [JobState.QUEUED]
    await bounces.enqueue(LANE, [Job(id="again", payload=encode_job(ProcessBounce(digest=ledger.keep(raw))))])
    await work_off(bounces, handler(ledger, bounces, mail), 1)
    assert await mail.states([job_id(waits)]) != [JobState.QUEUED]


async def test_while_the_database_is_away_a_mail_waits_and_uses_no_attempt(
    ledger: LedgerFixture, bounces: Queue, mail: Queue
) -> None:
    touch = ledger.touch(ledger.recipient())
    submitted = await intake(ledger, bounces).submit(ledger.dsn_of(touch), Envelope())
    away = open_engine("postgresql://nobody@127.0.0.1:1/nothing")
    await work_off(bounces, handler(ledger, bounces, mail, away), 1)
    away.dispose()
    assert (await bounces.stats()).counters.get("dead", 0) == 0
    assert await bounces.states([submitted.digest]) == [JobState.SCHEDULED]
    assert ledger.state(touch) is TouchState.ACCEPTED


async def test_many_mails_are_judged_together_and_one_that_is_lost_keeps_none(
    ledger: LedgerFixture, bounces: Queue, mail: Queue
) -> None:
    touches = [ledger.touch(ledger.recipient()) for _ in range(9)]
    for touch in touches:
        await intake(ledger, bounces).submit(ledger.dsn_of(touch), Envelope())
    await bounces.enqueue(LANE, [Job(id="lost", payload=encode_job(ProcessBounce(digest="0" * 64)))])
    await work_off(bounces, handler(ledger, bounces, mail), 10)
    assert {ledger.state(touch) for touch in touches} == {TouchState.BOUNCED}
    assert len(ledger.suppressed()) == 9


async def test_a_job_of_no_mail_is_a_dead_letter(ledger: LedgerFixture, bounces: Queue, mail: Queue) -> None:
    await bounces.enqueue(LANE, [Job(id="lost", payload=encode_job(ProcessBounce(digest="0" * 64)))])
    await work_off(bounces, handler(ledger, bounces, mail), 1)
    [letter] = (await bounces.dead_letters(count=10))[0]
    assert (letter.id, letter.cause) == ("lost", "no such mail")


async def test_nothing_is_taken_in_that_could_not_be_kept(bounces: Queue) -> None:
    away = open_engine("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(UnavailableError):
        await Intake(engine=away, queue=bounces, clock=SystemClock()).submit(mails.UNKNOWN, Envelope())
    away.dispose()
    assert (await bounces.stats()).counters.get("enqueued", 0) == 0


async def test_an_envelope_that_no_column_takes_is_cut(ledger: LedgerFixture, bounces: Queue) -> None:
    envelope = Envelope(recipient="\0\udcff" + "a" * 400, mail_from="b" * 400, source="s" * 100)
    submitted = await intake(ledger, bounces).submit(b"\0", envelope)
    with read(ledger.engine) as connection:
        row = connection.execute(sa.text("SELECT recipient, mail_from, source FROM bounce_mail")).one()
    assert submitted.new
    assert [len(value) for value in row] == [320, 320, 24]

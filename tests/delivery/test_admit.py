"""The last look before the wire: who may go, and what becomes of those who may not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.delivery.admit import Admission
from postroad.delivery.job import SendJob, decode_job, encode_job, job_id
from postroad.delivery.recorder import Recorder
from postroad.field_types import FieldType
from postroad.mail.address_hash import AddressHashes
from postroad.queue import Gate, Job, Queue, Rate
from postroad.queue.redis.client import connect
from postroad.segment.parse import parse
from postroad.segment.tree import to_json
from postroad.settings import BounceSettings
from postroad.store.campaign import Campaign, CampaignState
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason, suppress
from postroad.store.types import JSON_OBJECT
from tests.delivery.queue_of_touches import lane, noted, state_of
from tests.kit.clock import FakeClock
from tests.store.rows import add_campaign, add_recipient, add_touch, suppress_recipient

MONDAY = datetime(2026, 5, 4, 7, 30, tzinfo=UTC)
ANY_TIME = {"from": "00:00", "to": "00:00", "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}
OFFICE = {"from": "09:00", "to": "17:00", "days": ["mon", "tue", "wed", "thu", "fri"]}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(int(MONDAY.timestamp() * 1000))


@pytest.fixture
async def queue(redis_url: str, clock: FakeClock) -> AsyncIterator[Queue]:
    async with Queue.open(redis_url, "admit", clock=clock) as queue:
        yield queue
        assert await queue.audit() == []
    client = connect(redis_url)
    for key in await client.keys("pr:{admit}:*"):
        await client.delete(key)
    await client.aclose()


def add(engine: sa.Engine, *zones: str, window: dict[str, Any] | None = None, suppressed: bool = False) -> list[Job]:
    """One touch for each zone, of a campaign in Berlin."""
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring", time_zone="Europe/Berlin")
        connection.execute(sa.update(Campaign).values(sending_window=window))
        jobs = []
        for zone in zones:
            recipient = add_recipient(connection, time_zone=zone or None)
            if suppressed:
                suppress_recipient(connection, recipient)
            touch = add_touch(connection, campaign, step, TouchState.QUEUED, recipient_id=recipient)
            message = SendJob(touch_id=touch, step_id=step, address="a@example.com", fields={}, zone=zone)
            jobs.append(Job(id=job_id(touch), payload=encode_job(message)))
    return jobs


async def rate_room(queue: Queue) -> int:
    room = next(state.capacity for state in await queue.gates() if state.gate.name == "queue")
    assert room is not None
    return room


async def admit(
    engine: sa.Engine, queue: Queue, clock: FakeClock, jobs: list[Job], hash_of: AddressHashes | None = None
) -> dict[str, str]:
    """Claim, look, and settle what may not go. Returns the cause of each refusal."""
    await queue.set_gate(Gate(name="queue", rate=Rate(count=1, per_ms=3_600_000, burst=10)))
    await queue.enqueue(lane(), jobs)
    before = await rate_room(queue)
    batch = (await queue.claim("w", want=100, lease_ms=10**9, nonce="n")).jobs
    verdicts = await Admission(engine, clock, hash_of)(batch)
    by_id = {job.id: job for job in batch}
    await queue.settle("w", [(by_id[id_], verdict) for id_, verdict in verdicts.items()])
    assert await rate_room(queue) == before - (len(batch) - len(verdicts))
    return {id_: getattr(verdict, "cause", "") for id_, verdict in verdicts.items()}


async def test_who_is_outside_the_hours_waits_until_they_begin_and_used_nothing(
    engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    # 07:30 UTC on a Monday: 09:30 in Berlin, 08:30 in London, 03:30 in New York, 16:30 in Tokyo, 19:30 in Auckland.
    jobs = add(engine, "", "Europe/London", "America/New_York", "Asia/Tokyo", "Pacific/Auckland", window=OFFICE)
    refused = await admit(engine, queue, clock, jobs)
    assert set(refused) == {jobs[1].id, jobs[2].id, jobs[4].id}
    assert set(refused.values()) == {"outside the campaign's hours"}
    opens = [datetime.fromtimestamp(((await queue.find(jobs[n].id)).at_ms or 0) / 1000, UTC) for n in (1, 2, 4)]
    assert opens == [
        datetime(2026, 5, 4, 8, 0, tzinfo=UTC),
        datetime(2026, 5, 4, 13, 0, tzinfo=UTC),
        datetime(2026, 5, 4, 21, 0, tzinfo=UTC),
    ]
    assert [state_of(engine, int(job.id)).value for job in jobs] == ["sending", "queued", "queued", "sending", "queued"]
    await Recorder(engine=engine, queue=queue, clock=clock, name="r", bounce=BounceSettings()).drain()
    assert noted(engine, int(jobs[1].id)) == []  # It was no attempt.
    # London's turn: it is a first attempt.
    clock.advance(30 * 60_000)
    [job] = (await queue.claim("v", want=100, lease_ms=10**9, nonce="later")).jobs
    assert (job.id, job.attempt) == (jobs[1].id, 1)
    assert await Admission(engine, clock)([job]) == {}


async def test_a_holiday_of_the_recipients_country_holds_until_the_next_day(
    engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    """07:30 UTC on Easter Monday 2027: a holiday in Germany and France, but not in the USA."""
    clock.advance(int((datetime(2027, 3, 29, 7, 30, tzinfo=UTC) - MONDAY).total_seconds() * 1000))
    jobs = add(engine, "", "Europe/Paris", "America/New_York", "", window={**ANY_TIME, "holidays": True})
    message = decode_job(jobs[3].payload)
    jobs[3] = Job(id=jobs[3].id, payload=encode_job(msgspec.structs.replace(message, place="US")))
    refused = await admit(engine, queue, clock, jobs)
    assert refused == {jobs[0].id: "a holiday or a day off", jobs[1].id: "a holiday or a day off"}
    opens = [datetime.fromtimestamp(((await queue.find(jobs[n].id)).at_ms or 0) / 1000, UTC) for n in (0, 1)]
    assert opens == [datetime(2027, 3, 29, 22, 0, tzinfo=UTC)] * 2


async def test_without_hours_everybody_goes(engine: sa.Engine, queue: Queue, clock: FakeClock) -> None:
    assert await admit(engine, queue, clock, add(engine, "", "America/New_York")) == {}


async def test_who_is_suppressed_gives_back_what_the_claim_took(
    engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    jobs = add(engine, "", "", suppressed=True)
    assert set((await admit(engine, queue, clock, jobs)).values()) == {"suppressed"}


async def test_a_paused_campaign_is_looked_at_again_and_used_nothing(
    engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    jobs = add(engine, "", "")
    with write(engine) as connection:
        connection.execute(sa.update(Campaign).values(state=CampaignState.PAUSED))
    assert set((await admit(engine, queue, clock, jobs)).values()) == {"campaign paused"}


async def test_a_job_that_cannot_be_read_is_left_to_its_handler(
    engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    [job] = add(engine, "", window=OFFICE)
    assert await admit(engine, queue, clock, [Job(id=job.id, payload=b"?")]) == {}


async def test_a_hash_of_an_older_key_suppresses_and_becomes_one_of_the_first(
    engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    old, new = SecretStr("old"), SecretStr("new")
    with write(engine) as connection:
        suppress(connection, [AddressHashes(old)("a@example.com")], SuppressionReason.COMPLAINT, "a list", MONDAY)
    [job] = add(engine, "")
    refused = await admit(engine, queue, clock, [job], AddressHashes(new, old))
    assert refused == {job.id: "suppressed"}
    with write(engine) as connection:
        kept = connection.execute(sa.text("SELECT address FROM suppression")).scalars().all()
    assert kept == [AddressHashes(new)("a@example.com")]


async def test_who_matches_the_exit_of_the_campaign_gets_no_mail(
    engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    jobs = add(engine, "", "", "", "")
    stays, leaves, doubtful, without = (int(job.id) for job in jobs)
    journey = {"exit": to_json(parse("plan = 'paid'", {"plan": FieldType.TEXT})), "goal": None}
    with write(engine) as connection:
        connection.execute(sa.update(Campaign).values(journey=journey))
        for touch, plan in ((stays, "trial"), (leaves, "paid"), (doubtful, "paid")):
            fields = sa.text(
                "UPDATE recipient SET attributes = :fields WHERE id = (SELECT recipient_id FROM touch WHERE id = :id)"
            ).bindparams(sa.bindparam("fields", type_=JSON_OBJECT))
            connection.execute(fields, {"fields": {"plan": plan}, "id": touch})
        connection.execute(sa.text("UPDATE touch SET state = 'sending', claim = 7 WHERE id = :id"), {"id": doubtful})
    await queue.enqueue(lane(), jobs)
    batch = {job.id: job for job in (await queue.claim("w", want=100, lease_ms=10**9, nonce="n")).jobs}
    verdicts = await Admission(engine, clock)(list(batch.values()))
    # What an earlier claim may have sent is not known: its state must not become `cancelled`.
    assert {id_: getattr(verdict, "cause", "") for id_, verdict in verdicts.items()} == {
        str(leaves): "exit: plan = 'paid'",
        str(doubtful): "claimed before, and the result of that claim is not known",
    }
    await queue.settle("w", [(batch[id_], verdict) for id_, verdict in verdicts.items()])
    await Recorder(engine=engine, queue=queue, clock=clock, name="r", bounce=BounceSettings()).drain()
    states = [state_of(engine, touch).value for touch in (stays, leaves, doubtful, without)]
    assert states == ["sending", "cancelled", "unknown", "sending"]

"""What a person does to a campaign on its way holds in the queue at once, and in the ledger for good."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from postroad.clock import SystemClock
from postroad.delivery import control
from postroad.delivery.job import job_id, lane_of
from postroad.delivery.record import Recorder
from postroad.queue import Claimed, Done, Job, Lane, Queue, Release
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from tests.store.rows import NOW, add_campaign, add_touch, touch_row


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue.open(redis_url, "control") as queue:
        yield queue
        assert await queue.audit() == []
        await queue._scripts._client.flushall()


def lane(campaign: str = "spring") -> Lane:
    return lane_of(sender="a@example.com", provider="other", campaign=campaign, route="relay", job_class="bulk")


async def claimed(queue: Queue) -> dict[str, Claimed]:
    batch = await queue.claim("w", want=100, lease_ms=60_000, nonce=f"{await queue.stats()}")
    return {job.id: job for job in batch.jobs}


async def test_a_paused_campaign_is_not_claimed_and_others_are(engine: sa.Engine, queue: Queue) -> None:
    with write(engine) as connection:
        add_campaign(connection, name="spring")
    await queue.enqueue(lane(), [Job(id="1", payload=b"")])
    await queue.enqueue(lane("autumn"), [Job(id="2", payload=b"")])
    await control.pause(engine, queue, "spring")
    assert list(await claimed(queue)) == ["2"]
    await control.resume(engine, queue, "spring")
    assert list(await claimed(queue)) == ["1"]


async def test_a_cancelled_campaign_ends_also_what_comes_back_from_the_wire(engine: sa.Engine, queue: Queue) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring", state=CampaignState.RUNNING)
        waits, back, taken = (add_touch(connection, campaign, step, TouchState.QUEUED) for _ in range(3))
    await queue.enqueue(lane(), [Job(id=job_id(touch), payload=b"") for touch in (back, taken, waits)])
    batch = (await queue.claim("w", want=2, lease_ms=60_000, nonce="n")).jobs
    with write(engine) as connection:
        connection.execute(sa.text(f"UPDATE touch SET state = 'sending', claim = 1 WHERE id IN ({back}, {taken})"))
    assert await control.cancel(engine, queue, "spring", NOW) == 1
    await queue.settle("w", [(batch[0], Release()), (batch[1], Done())])
    recorder = Recorder(engine=engine, queue=queue, clock=SystemClock(), name="r")
    await recorder.drain()
    with read(engine) as connection:
        states = [touch_row(connection, touch).state for touch in (waits, back, taken)]
        rows = connection.execute(sa.text("SELECT count(*) FROM delivery_event")).scalar_one()
    assert states == [TouchState.CANCELLED, TouchState.CANCELLED, TouchState.SENDING]
    assert rows == 0
    assert (await queue.stats()).remembered == 0

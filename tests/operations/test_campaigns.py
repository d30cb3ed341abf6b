"""What an operator does to mail takes effect in the queue at once, and stays in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from postroad.delivery.job import job_id
from postroad.delivery.submit import SubmitOptions
from postroad.errors import StateError, UsageError
from postroad.operations import campaigns, rebuild, touches
from postroad.queue import Done, Job, JobState, Queue, Release
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from tests.delivery.queue_of_touches import claim, lane, noted, queued_touches, recorder, set_state, state_of
from tests.store.rows import NOW, add_campaign, touch_row

FAR_MS = 4_000_000_000_000


async def test_a_paused_campaign_is_not_claimed_and_others_are(engine: sa.Engine, queue: Queue) -> None:
    with write(engine) as connection:
        add_campaign(connection, name="spring")
    await queue.enqueue(lane(), [Job(id="1", payload=b"")])
    await queue.enqueue(lane("autumn"), [Job(id="2", payload=b"")])
    await campaigns.pause(engine, queue, "spring", by="a test", now=NOW)
    assert [job.id for job in await claim(queue)] == ["2"]
    await campaigns.resume(engine, queue, "spring", by="test", now=NOW)
    assert [job.id for job in await claim(queue)] == ["1"]


async def test_a_cancelled_campaign_ends_jobs_released_from_the_wire(engine: sa.Engine, queue: Queue) -> None:
    back, taken, waits = await queued_touches(engine, queue, 3)
    batch = await claim(queue, 2)
    for touch in (back, taken):
        set_state(engine, touch, TouchState.SENDING)
    assert await campaigns.cancel(engine, queue, "spring", NOW) == 1
    await queue.settle("w", [(batch[0], Release()), (batch[1], Done())])
    await recorder(engine, queue).drain()
    states = [state_of(engine, touch) for touch in (waits, back, taken)]
    assert states == [TouchState.CANCELLED, TouchState.CANCELLED, TouchState.SENDING]
    assert noted(engine, back) == []
    assert (await queue.stats()).remembered == 0


async def test_single_touches_are_cancelled_unless_on_the_wire(engine: sa.Engine, queue: Queue) -> None:
    flying, first, second = await queued_touches(engine, queue, 3)
    await claim(queue, 1)
    set_state(engine, flying, TouchState.SENDING)
    assert await touches.cancel_touches(engine, queue, [job_id(flying), job_id(first)], NOW) == 1
    assert [state_of(engine, touch) for touch in (flying, first, second)] == ["sending", "cancelled", "queued"]
    assert [job.id for job in await claim(queue)] == [job_id(second)]


async def test_rescheduling_updates_queue_and_ledger(engine: sa.Engine, queue: Queue) -> None:
    [touch] = await queued_touches(engine, queue, 1, due_ms=FAR_MS)
    assert await touches.reschedule_touches(engine, queue, [job_id(touch)], FAR_MS + 60_000) == 1
    with read(engine) as connection:
        assert touch_row(connection, touch).next_at == datetime.fromtimestamp(FAR_MS / 1000 + 60, UTC)
    assert (await queue.find(job_id(touch))).at_ms == FAR_MS + 60_000
    assert await touches.reschedule_touches(engine, queue, [job_id(touch)], 1) == 1
    assert await queue.states([job_id(touch)]) == [JobState.QUEUED]
    assert await touches.reschedule_touches(engine, queue, [job_id(touch)], FAR_MS) == 0


async def test_an_invalid_touch_id_is_rejected(engine: sa.Engine, queue: Queue) -> None:
    with pytest.raises(UsageError):
        await touches.cancel_touches(engine, queue, ["one"], NOW)


async def test_a_rebuild_pauses_paused_campaigns_again(engine: sa.Engine, queue: Queue) -> None:
    with write(engine) as connection:
        add_campaign(connection, name="spring", state=CampaignState.PAUSED)
        add_campaign(connection, name="autumn")
    await rebuild.rebuild(engine, queue, recorder(engine, queue), SubmitOptions(expire_ms=1), now=NOW)
    assert (await queue.stats()).paused_groups == ["spring"]


async def test_a_resume_that_ended_between_ledger_and_queue_is_completed_by_the_next(
    engine: sa.Engine, queue: Queue
) -> None:
    with write(engine) as connection:
        add_campaign(connection, name="spring")
    await queue.enqueue(lane(), [Job(id="1", payload=b"")])
    await queue.pause_group("spring")
    await campaigns.resume(engine, queue, "spring", by="test", now=NOW)
    assert [job.id for job in await claim(queue)] == ["1"]
    with pytest.raises(StateError, match="spring is running"):
        await campaigns.resume(engine, queue, "spring", by="test", now=NOW)


async def test_the_queue_is_brought_to_the_pauses_of_the_ledger(engine: sa.Engine, queue: Queue) -> None:
    with write(engine) as connection:
        for name, state in (("spring", CampaignState.PAUSED), ("autumn", CampaignState.RUNNING)):
            add_campaign(connection, name=name, state=state)
    await queue.pause_group("autumn")
    await rebuild.sync_pauses(engine, queue)
    assert (await queue.stats()).paused_groups == ["spring"]

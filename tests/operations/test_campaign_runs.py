"""A Prefect run that is stopped pauses its campaign, once, and only if it had begun."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import launch
from postroad.errors import StateError
from postroad.operations import campaigns
from postroad.operations.campaign_runs import begin_run, end_runs, stop_run
from postroad.queue import Job, Queue
from postroad.store.campaign import Campaign, CampaignState, find_campaign
from postroad.store.campaign_run import ActiveRun, active_runs
from postroad.store.engine import read, write
from tests.delivery.queue_of_touches import claim, lane
from tests.store.rows import NOW, add_campaign

FIRST, SECOND = (ActiveRun(f"{n}1111111-1111-1111-1111-111111111111", "spring") for n in (1, 2))


@pytest.fixture(autouse=True)
async def spring(engine: sa.Engine, queue: Queue) -> None:
    with write(engine) as connection:
        add_campaign(connection, name="spring")
    await queue.enqueue(lane(), [Job(id="1", payload=b"")])


async def begin(engine: sa.Engine, queue: Queue, run: ActiveRun, *, scheduled: bool = False) -> None:
    await begin_run(engine, queue, run.campaign, run.run_id, scheduled=scheduled, now=NOW)


async def stop(engine: sa.Engine, queue: Queue, run: ActiveRun) -> bool:
    return await stop_run(engine, queue, run, "was cancelled", NOW)


def campaign(engine: sa.Engine) -> Campaign:
    with read(engine) as connection:
        return find_campaign(connection, "spring")


async def test_a_stopped_run_pauses_its_campaign_in_ledger_and_queue(engine: sa.Engine, queue: Queue) -> None:
    await begin(engine, queue, FIRST)
    assert await stop(engine, queue, FIRST)
    assert campaign(engine).state is CampaignState.PAUSED
    assert campaign(engine).paused_by == f"its Prefect run {FIRST.run_id}, which was cancelled"
    assert campaign(engine).paused_at == NOW
    assert await claim(queue) == []


async def test_one_stop_has_one_effect(engine: sa.Engine, queue: Queue) -> None:
    await begin(engine, queue, FIRST)
    assert await stop(engine, queue, FIRST)
    await campaigns.resume(engine, queue, "spring", by="test", now=NOW)
    assert not await stop(engine, queue, FIRST)
    assert campaign(engine).state is CampaignState.RUNNING
    assert campaign(engine).paused_by is None
    assert [job.id for job in await claim(queue)] == ["1"]


async def test_a_run_that_never_began_pauses_nothing(engine: sa.Engine, queue: Queue) -> None:
    await begin(engine, queue, FIRST)
    assert not await stop(engine, queue, SECOND)
    assert campaign(engine).state is CampaignState.RUNNING


async def test_each_of_two_runs_of_a_campaign_pauses_it(engine: sa.Engine, queue: Queue) -> None:
    for stopped in (FIRST, SECOND):
        for run in (FIRST, SECOND):
            await begin(engine, queue, run)
        assert await stop(engine, queue, stopped)
        assert await claim(queue) == []


async def test_a_run_that_ended_pauses_nothing_and_is_forgotten(engine: sa.Engine, queue: Queue) -> None:
    await begin(engine, queue, FIRST)
    end_runs(engine, [FIRST.run_id])
    with read(engine) as connection:
        assert active_runs(connection) == []
    assert not await stop(engine, queue, FIRST)


async def test_a_new_run_resumes_what_a_stopped_run_paused(engine: sa.Engine, queue: Queue) -> None:
    await begin(engine, queue, FIRST)
    await stop(engine, queue, FIRST)
    await begin(engine, queue, SECOND)
    assert campaign(engine).state is CampaignState.RUNNING
    assert [job.id for job in await claim(queue)] == ["1"]


async def test_a_run_of_a_schedule_resumes_only_its_own_pause(engine: sa.Engine, queue: Queue) -> None:
    await begin(engine, queue, FIRST, scheduled=True)
    await stop(engine, queue, FIRST)
    with pytest.raises(StateError, match=f"paused by its Prefect run {FIRST.run_id}, which was cancelled"):
        await begin(engine, queue, SECOND, scheduled=True)
    await begin(engine, queue, FIRST, scheduled=True)  # A suspended run that was resumed.
    assert campaign(engine).state is CampaignState.RUNNING


async def test_a_run_does_not_resume_a_campaign_paused_by_a_person(engine: sa.Engine, queue: Queue) -> None:
    await campaigns.pause(engine, queue, "spring", by="`postroad campaign pause`", now=NOW)
    with pytest.raises(StateError, match="paused by `postroad campaign pause`") as caught:
        await begin(engine, queue, FIRST)
    assert "postroad campaign resume spring" in str(caught.value)
    assert await claim(queue) == []


async def test_a_run_stopped_before_launch_launches_nothing(engine: sa.Engine, queue: Queue) -> None:
    with write(engine) as connection:
        connection.execute(sa.update(Campaign).values(state=CampaignState.DRAFT))
    await begin(engine, queue, FIRST)
    assert not await stop(engine, queue, FIRST)  # There is no mail to stop.
    with pytest.raises(StateError, match="was stopped before campaign spring was launched"):
        launch(engine, "spring", NOW, run_id=FIRST.run_id)
    assert campaign(engine).state is CampaignState.DRAFT

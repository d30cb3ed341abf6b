"""Batches that are admitted together: each gets its own answer, and the ledger sees one claim of a job at a time."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from postroad.clock import SystemClock
from postroad.delivery.admit import Admission
from postroad.delivery.job import job_id
from postroad.errors import UnavailableError
from postroad.queue import Cancel, ClaimedJob, Queue, Uncertain
from postroad.store.engine import open_engine
from postroad.store.ledger import TouchState
from tests.delivery.queue_of_touches import queued_touches, set_state, state_of


def claimed(touch: int, token: int) -> ClaimedJob:
    return ClaimedJob(job_id(touch), token, 1, 1, b"", 0, "lane")


def commits_of(engine: sa.Engine) -> list[None]:
    """Grows with every commit of this engine."""
    commits: list[None] = []
    sa.event.listen(engine, "commit", lambda _: commits.append(None))
    return commits


async def test_batches_that_wait_for_an_earlier_one_are_admitted_by_one_transaction(
    engine: sa.Engine, queue: Queue
) -> None:
    touches = await queued_touches(engine, queue, 6)
    admission, commits = Admission(engine, SystemClock()), commits_of(engine)
    batches = [[claimed(touch, n)] for n, touch in enumerate(touches, start=1)]
    answers = await asyncio.gather(*(admission(batch) for batch in batches))
    assert len(commits) == 1  # all had asked before the first was at the database
    assert answers == [{}] * 6
    assert [state_of(engine, touch) for touch in touches] == [TouchState.SENDING] * 6


async def test_each_batch_hears_of_its_own_jobs_only(engine: sa.Engine, queue: Queue) -> None:
    good, ended, other = await queued_touches(engine, queue, 3)
    set_state(engine, ended, TouchState.ACCEPTED)
    admission = Admission(engine, SystemClock())
    batches = ([claimed(good, 1)], [claimed(ended, 2), claimed(other, 3)])
    first, second = await asyncio.gather(*map(admission, batches))
    assert first == {}
    assert second == {job_id(ended): Cancel(cause="already accepted")}


async def test_two_claims_of_one_job_meet_the_ledger_one_after_the_other(engine: sa.Engine, queue: Queue) -> None:
    # As when the queue's server lost its memory, and gives this worker the same job again.
    (touch,) = await queued_touches(engine, queue, 1)
    admission = Admission(engine, SystemClock())
    first, second = await asyncio.gather(admission([claimed(touch, 1)]), admission([claimed(touch, 2)]))
    assert first == {}
    assert isinstance(second[job_id(touch)], Uncertain)


async def test_a_batch_that_is_given_up_takes_no_other_with_it(engine: sa.Engine, queue: Queue) -> None:
    touches = await queued_touches(engine, queue, 2)
    admission = Admission(engine, SystemClock())
    given_up, waits = (asyncio.create_task(admission([claimed(touch, 1)])) for touch in touches)
    await asyncio.sleep(0)  # both have asked
    given_up.cancel()
    assert await waits == {}
    assert given_up.cancelled()
    assert await admission([]) == {}


async def test_no_batch_is_admitted_while_the_database_is_away() -> None:
    away = open_engine("postgresql://nobody@127.0.0.1:1/nothing")
    admission = Admission(away, SystemClock())
    answers = await asyncio.gather(admission([claimed(1, 1)]), admission([claimed(2, 1)]), return_exceptions=True)
    assert [type(answer) for answer in answers] == [UnavailableError] * 2
    with pytest.raises(UnavailableError):  # The next batch tries again.
        await admission([claimed(3, 1)])

"""A submission reads, enqueues and marks in three steps. It may die between any two: no touch is lost or sent twice."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence

import pytest
import sqlalchemy as sa

from postroad.delivery import submit as submitting
from postroad.delivery.job import job_id, touch_of
from postroad.queue import ClaimedJob, Done, Enqueued, Job, Lane, Queue
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.touches.sending import Claim, admit
from tests.delivery.queue_of_touches import claim, recorder, state_of
from tests.delivery.test_submit import campaign_of, counts, ids, submit


class DeathError(Exception):
    """Stands for a process that is killed."""


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue.open(redis_url, f"test-{uuid.uuid4().hex}") as opened:
        yield opened


class Witness:
    """A queue that does something before it enqueues."""

    def __init__(self, queue: Queue, engine: sa.Engine) -> None:
        self._queue = queue
        self._engine = engine

    async def enqueue(self, lane: Lane, jobs: Sequence[Job]) -> Enqueued:
        with write(
            self._engine
        ) as connection:  # On SQLite it would wait for another transaction that writes, and fail.
            connection.execute(sa.text("UPDATE touch SET reply = 'seen' WHERE state = 'planned'"))
        return await self._queue.enqueue(lane, jobs)


async def die_before_marking(engine: sa.Engine, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise DeathError

    with monkeypatch.context() as patch:
        patch.setattr(submitting, "mark_queued", die)
        with pytest.raises(DeathError):
            await submit(engine, queue)


def admit_all(engine: sa.Engine, jobs: Sequence[ClaimedJob]) -> set[int]:
    with write(engine) as connection:
        return admit(connection, [Claim(touch_of(job.id), job.token) for job in jobs])


async def test_no_transaction_writes_while_the_queue_is_asked(engine: sa.Engine, queue: Queue) -> None:
    campaign_id = campaign_of(engine, 5)
    await submit(engine, Witness(queue, engine))  # type: ignore[arg-type]
    assert counts(engine, campaign_id) == {TouchState.QUEUED: 5}


async def test_jobs_that_were_not_marked_are_not_enqueued_twice(
    engine: sa.Engine, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign_id = campaign_of(engine, 5)
    await die_before_marking(engine, queue, monkeypatch)
    assert counts(engine, campaign_id) == {TouchState.PLANNED: 5}
    await submit(engine, queue)
    assert counts(engine, campaign_id) == {TouchState.QUEUED: 5}
    assert (await queue.stats()).counters["enqueued"] == 5


async def test_jobs_that_were_not_marked_may_be_delivered(
    engine: sa.Engine, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign_id = campaign_of(engine, 5)
    await die_before_marking(engine, queue, monkeypatch)
    jobs = await claim(queue, 2)
    assert admit_all(engine, jobs) == {touch_of(job.id) for job in jobs}
    await submit(engine, queue)
    assert counts(engine, campaign_id) == {TouchState.QUEUED: 3, TouchState.SENDING: 2}
    assert (await queue.stats()).counters["enqueued"] == 5


async def test_a_touch_that_was_delivered_before_a_late_enqueue_is_not_sent_again(
    engine: sa.Engine, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One submission reads its slice and stalls. Another enqueues it, it is delivered, and the queue forgets it."""
    [touch] = ids(engine) if campaign_of(engine, 1) else []
    enqueue = submitting.enqueue_touches

    async def stall(queue: Queue, *args: object) -> None:
        monkeypatch.setattr(submitting, "enqueue_touches", enqueue)
        await submit(engine, queue)
        jobs = await claim(queue)
        assert admit_all(engine, jobs) == {touch}
        await queue.settle("w", [(job, Done()) for job in jobs])
        with write(engine) as connection:
            connection.execute(sa.text("UPDATE touch SET state = 'accepted'"))
        await recorder(engine, queue).drain()
        await enqueue(queue, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(submitting, "enqueue_touches", stall)
    await submit(engine, queue)
    jobs = await claim(queue)
    assert [job.id for job in jobs] == [job_id(touch)]  # The queue no longer knew it.
    assert admit_all(engine, jobs) == set()
    assert state_of(engine, touch) is TouchState.ACCEPTED


async def test_a_touch_that_ended_after_it_was_read_stays_ended(
    engine: sa.Engine, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    [touch] = ids(engine) if campaign_of(engine, 1) else []
    enqueue = submitting.enqueue_touches

    async def cancelled_meanwhile(*args: object) -> None:
        with write(engine) as connection:
            connection.execute(sa.text("UPDATE touch SET state = 'cancelled'"))
        await enqueue(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(submitting, "enqueue_touches", cancelled_meanwhile)
    await submit(engine, queue)
    assert state_of(engine, touch) is TouchState.CANCELLED
    assert admit_all(engine, await claim(queue)) == set()

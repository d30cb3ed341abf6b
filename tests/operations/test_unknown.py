"""An unknown touch is resolved by an operator, once, in the ledger and in the queue."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.delivery.job import job_id
from postroad.delivery.submit import SubmitOptions
from postroad.errors import StateError, UsageError
from postroad.operations.unknown import Resolution, list_unknown, resolve_touch
from postroad.queue import Done, JobState, Queue, Uncertain
from postroad.store.ledger import TouchState
from tests.delivery.queue_of_touches import claim, noted, queued_touches, recorder, set_state, state_of
from tests.store.rows import NOW

OPTIONS = SubmitOptions(expire_ms=10**12)


async def unknown_touch(engine: sa.Engine, queue: Queue) -> int:
    """Make a touch whose connection died after its final dot."""
    [touch] = await queued_touches(engine, queue, 1)
    [job] = await claim(queue)
    set_state(engine, touch, TouchState.SENDING)
    await queue.settle("w", [(job, Uncertain(cause="connection lost"))])
    await recorder(engine, queue).drain()
    assert state_of(engine, touch) is TouchState.UNKNOWN
    return touch


async def resolve(engine: sa.Engine, queue: Queue, touch: int, how: Resolution) -> None:
    await recorder(engine, queue).drain()
    await resolve_touch(engine, queue, job_id(touch), how, OPTIONS, by="ada@host", now=NOW + timedelta(hours=1))
    await recorder(engine, queue).drain()


@pytest.mark.parametrize(
    ("how", "state", "job_state"),
    [
        (Resolution.ACCEPTED, TouchState.ACCEPTED, None),
        (Resolution.NOT_SENT, TouchState.QUEUED, JobState.QUEUED),
        (Resolution.DEAD, TouchState.DEAD, JobState.DEAD),
    ],
)
async def test_resolving_updates_ledger_and_queue(
    engine: sa.Engine, queue: Queue, how: Resolution, state: TouchState, job_state: JobState | None
) -> None:
    touch = await unknown_touch(engine, queue)
    [unknown] = await list_unknown(engine, queue, 10)
    assert (unknown.id, unknown.campaign, unknown.queued) == (job_id(touch), "spring", True)
    await resolve(engine, queue, touch, how)
    assert state_of(engine, touch) is state
    assert await queue.states([job_id(touch)]) == [job_state]
    assert (state.value, "resolved", f"resolved as {state} by ada@host") in noted(engine, touch)
    assert await list_unknown(engine, queue, 10) == []


@pytest.mark.parametrize(
    ("how", "job_state"),
    [(Resolution.ACCEPTED, None), (Resolution.NOT_SENT, JobState.QUEUED), (Resolution.DEAD, None)],
)
async def test_a_touch_that_the_queue_lost_is_resolved(
    engine: sa.Engine, queue: Queue, how: Resolution, job_state: JobState | None
) -> None:
    touch = await unknown_touch(engine, queue)
    await queue.resolve(job_id(touch), Done())  # As if its server had lost it: the queue no longer holds it.
    await recorder(engine, queue).drain()
    [unknown] = await list_unknown(engine, queue, 10)
    assert (unknown.id, unknown.queued) == (job_id(touch), False)
    await resolve(engine, queue, touch, how)
    assert state_of(engine, touch).value == {"accepted": "accepted", "not-sent": "queued", "dead": "dead"}[how]
    assert await queue.states([job_id(touch)]) == [job_state]


async def test_a_touch_is_resolved_once(engine: sa.Engine, queue: Queue) -> None:
    touch = await unknown_touch(engine, queue)
    await resolve(engine, queue, touch, Resolution.ACCEPTED)
    with pytest.raises(StateError):
        await resolve(engine, queue, touch, Resolution.NOT_SENT)
    assert state_of(engine, touch) is TouchState.ACCEPTED


async def test_an_invalid_touch_id_is_rejected(engine: sa.Engine, queue: Queue) -> None:
    with pytest.raises(UsageError):
        await resolve_touch(engine, queue, "x", Resolution.DEAD, OPTIONS, by="a", now=NOW)

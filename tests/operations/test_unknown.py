"""An uncertain delivery is settled by somebody, once, in the ledger and in the queue."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.delivery.job import job_id
from postroad.errors import StateError, UsageError
from postroad.operations.unknown import Resolution, list_unknown, resolve_touch, settle_unknown
from postroad.queue import Done, JobState, Queue, Uncertain
from postroad.store.ledger import TouchState
from tests.delivery.queue_of_touches import claim, noted, queued_touches, recorder, set_state, state_of
from tests.store.rows import NOW

EXPIRE_MS = 10**12


async def unknown_touch(engine: sa.Engine, queue: Queue) -> int:
    """A touch whose connection died behind its final dot."""
    [touch] = await queued_touches(engine, queue, 1)
    [job] = await claim(queue)
    set_state(engine, touch, TouchState.SENDING)
    await queue.settle("w", [(job, Uncertain(cause="connection lost"))])
    await recorder(engine, queue).drain()
    assert state_of(engine, touch) is TouchState.UNKNOWN
    return touch


async def resolve(engine: sa.Engine, queue: Queue, touch: int, how: Resolution) -> None:
    await resolve_touch(
        engine,
        queue,
        recorder(engine, queue),
        job_id(touch),
        how,
        by="ada@house",
        now=NOW + timedelta(hours=1),
        expire_ms=EXPIRE_MS,
    )
    await recorder(engine, queue).drain()


@pytest.mark.parametrize(
    ("how", "state", "job_state"),
    [
        (Resolution.ACCEPTED, TouchState.ACCEPTED, None),
        (Resolution.NOT_SENT, TouchState.QUEUED, JobState.QUEUED),
        (Resolution.DEAD, TouchState.DEAD, JobState.DEAD),
    ],
)
async def test_the_ledger_says_who_settled_it_and_the_queue_follows(
    engine: sa.Engine, queue: Queue, how: Resolution, state: TouchState, job_state: JobState | None
) -> None:
    touch = await unknown_touch(engine, queue)
    [doubt] = await list_unknown(engine, queue, 10)
    assert (doubt.id, doubt.campaign, doubt.queued) == (job_id(touch), "spring", True)
    await resolve(engine, queue, touch, how)
    assert state_of(engine, touch) is state
    assert await queue.states([job_id(touch)]) == [job_state]
    assert (state.value, "resolved", f"resolved as {state} by ada@house") in noted(engine, touch)
    assert await list_unknown(engine, queue, 10) == []


@pytest.mark.parametrize(
    ("how", "job_state"),
    [(Resolution.ACCEPTED, None), (Resolution.NOT_SENT, JobState.QUEUED), (Resolution.DEAD, None)],
)
async def test_what_only_the_ledger_knows_of_is_settled_as_well(
    engine: sa.Engine, queue: Queue, how: Resolution, job_state: JobState | None
) -> None:
    touch = await unknown_touch(engine, queue)
    await queue.resolve(job_id(touch), Done())  # As if its server had lost it: the queue no longer holds it.
    await recorder(engine, queue).drain()
    [doubt] = await list_unknown(engine, queue, 10)
    assert (doubt.id, doubt.queued) == (job_id(touch), False)
    await resolve(engine, queue, touch, how)
    assert state_of(engine, touch).value == {"accepted": "accepted", "not-sent": "queued", "dead": "dead"}[how]
    assert await queue.states([job_id(touch)]) == [job_state]


async def test_nothing_is_settled_twice(engine: sa.Engine, queue: Queue) -> None:
    touch = await unknown_touch(engine, queue)
    await resolve(engine, queue, touch, Resolution.ACCEPTED)
    with pytest.raises(StateError):
        await resolve(engine, queue, touch, Resolution.NOT_SENT)
    assert state_of(engine, touch) is TouchState.ACCEPTED


async def come_back(engine: sa.Engine, queue: Queue, touch: int, state: TouchState) -> bool:
    return await settle_unknown(
        engine, queue, recorder(engine, queue), touch, state, said="550 5.1.1 nobody", by="dsn", now=NOW
    )


@pytest.mark.parametrize(
    ("state", "job_state"),
    [(TouchState.BOUNCED, JobState.DEAD), (TouchState.DEAD, JobState.DEAD), (TouchState.ACCEPTED, None)],
)
async def test_what_comes_back_later_settles_it_by_itself_and_once(
    engine: sa.Engine, queue: Queue, state: TouchState, job_state: JobState | None
) -> None:
    touch = await unknown_touch(engine, queue)
    assert await come_back(engine, queue, touch, state)
    assert not await come_back(engine, queue, touch, state)
    await recorder(engine, queue).drain()
    assert state_of(engine, touch) is state
    assert await queue.states([job_id(touch)]) == [job_state]
    assert [row for row in noted(engine, touch) if row[1] == "resolved"] == [
        (state.value, "resolved", f"resolved as {state} by dsn: 550 5.1.1 nobody")
    ]
    assert await list_unknown(engine, queue, 10) == []


async def test_what_comes_back_before_the_ledger_knows_of_the_doubt_settles_it(engine: sa.Engine, queue: Queue) -> None:
    [touch] = await queued_touches(engine, queue, 1)
    [job] = await claim(queue)
    set_state(engine, touch, TouchState.SENDING)
    assert not await come_back(engine, queue, touch, TouchState.BOUNCED)  # A worker has it in hand.
    await queue.settle("w", [(job, Uncertain(cause="connection lost"))])
    assert await come_back(engine, queue, touch, TouchState.BOUNCED)
    await recorder(engine, queue).drain()
    assert state_of(engine, touch) is TouchState.BOUNCED


async def test_what_comes_back_of_a_touch_that_only_the_ledger_knows_settles_it(
    engine: sa.Engine, queue: Queue
) -> None:
    touch = await unknown_touch(engine, queue)
    await queue.resolve(job_id(touch), Done())
    await recorder(engine, queue).drain()
    assert await come_back(engine, queue, touch, TouchState.BOUNCED)
    assert state_of(engine, touch) is TouchState.BOUNCED


async def test_what_comes_back_of_mail_that_was_accepted_changes_nothing(engine: sa.Engine, queue: Queue) -> None:
    [touch] = await queued_touches(engine, queue, 1)
    set_state(engine, touch, TouchState.ACCEPTED)
    assert not await come_back(engine, queue, touch, TouchState.BOUNCED)
    assert state_of(engine, touch) is TouchState.ACCEPTED


async def test_what_is_no_touch_is_refused(engine: sa.Engine, queue: Queue) -> None:
    with pytest.raises(UsageError):
        await resolve_touch(
            engine, queue, recorder(engine, queue), "x", Resolution.DEAD, by="a", now=NOW, expire_ms=EXPIRE_MS
        )

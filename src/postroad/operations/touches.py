"""Cancels and reschedules single touches, and applies to the queue what the ledger says of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa

from postroad.delivery.job import job_id, parse_touch_id
from postroad.errors import StateError
from postroad.queue import Done, JobState, Queue
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.touch_lookup import FoundTouch
from postroad.store.touches import ending, sending

MAX_DELAY: Final = timedelta(days=366)
"""A message may be rescheduled to a time so far from now."""


def require_waiting(touch: FoundTouch) -> None:
    """Check that a touch waits, so that it can be cancelled or rescheduled.

    Args:
        touch: The touch.

    Raises:
        StateError: It has ended, or is on the wire.
    """
    if touch.state.ended or touch.state is TouchState.SENDING:
        raise StateError(
            f"message {touch.id} is {touch.state}", remedy="Only a message that waits can be cancelled or rescheduled."
        )


async def cancel_touches(engine: sa.Engine, queue: Queue, ids: Sequence[str], now: datetime) -> int:
    """Cancel single touches that are not on the wire.

    Args:
        engine: The ledger's database.
        queue: A queue of mail.
        ids: Ids of the touches.
        now: The time.

    Returns:
        How many were cancelled.

    Raises:
        UsageError: An id is not that of a touch.
    """
    touch_ids = [parse_touch_id(id_) for id_ in ids]
    cancelled = await asyncio.to_thread(_write, engine, ending.cancel_touches, touch_ids, now)
    await queue.cancel([job_id(touch_id) for touch_id in sorted(cancelled)], "cancelled by an operator")
    return len(cancelled)


async def reschedule_touches(engine: sa.Engine, queue: Queue, ids: Sequence[str], due_ms: int) -> int:
    """Change the time of single touches that are scheduled.

    Args:
        engine: The ledger's database.
        queue: A queue of mail.
        ids: Ids of the touches.
        due_ms: The new time, Unix time in ms.

    Returns:
        How many were changed.

    Raises:
        UsageError: An id is not that of a touch.
    """
    by_id = {job_id(parse_touch_id(id_)): parse_touch_id(id_) for id_ in ids}
    states = await queue.states(list(by_id))
    scheduled = [id_ for id_, state in zip(by_id, states, strict=True) if state is JobState.SCHEDULED]
    due = datetime.fromtimestamp(due_ms / 1000, UTC)
    await asyncio.to_thread(_write, engine, sending.set_not_before, [by_id[id_] for id_ in scheduled], due)
    return sum(await queue.reschedule(scheduled, due_ms))


def _write(
    engine: sa.Engine,
    change: Callable[[sa.Connection, Sequence[int], datetime], set[int]],
    touch_ids: Sequence[int],
    at: datetime,
) -> set[int]:
    with write(engine) as connection:
        return change(connection, touch_ids, at)


async def sync_queue_to_ledger(queue: Queue, ended: Sequence[int], known: Sequence[int]) -> None:
    """Apply to the queue what bounces, complaints and replies changed in the ledger. Idempotent.

    Args:
        queue: A queue of mail.
        ended: Touches that ended while they waited. Their jobs are cancelled.
        known: Touches whose outcome is now known. Jobs of them that the queue holds as uncertain are done.
    """
    await queue.cancel([job_id(touch_id) for touch_id in ended], "ended by a bounce, complaint or reply")
    ids = [job_id(touch_id) for touch_id in known]
    for id_, state in zip(ids, await queue.states(ids) if ids else [], strict=True):
        if state is JobState.UNCERTAIN:
            with suppress(StateError):  # Another process may have resolved it meanwhile.
                await queue.resolve(id_, Done())

"""Cancels and reschedules single touches, and syncs the queue to what the ledger says of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import sqlalchemy as sa

from postroad.delivery.job import job_id, read_touch
from postroad.errors import StateError
from postroad.queue import Done, JobState, Queue
from postroad.store import ledger
from postroad.store.engine import write


async def cancel_touches(engine: sa.Engine, queue: Queue, ids: Sequence[str], now: datetime) -> int:
    """End single touches that are not on the wire. Returns how many. Raises UsageError."""
    touch_ids = [read_touch(id_) for id_ in ids]
    cancelled = await asyncio.to_thread(_write, engine, ledger.cancel_touches, touch_ids, now)
    await queue.cancel([job_id(touch_id) for touch_id in sorted(cancelled)], "cancelled by hand")
    return len(cancelled)


async def reschedule_touches(engine: sa.Engine, queue: Queue, ids: Sequence[str], due_ms: int) -> int:
    """Let single touches that are scheduled go at another time. Returns how many. Raises UsageError."""
    by_id = {job_id(read_touch(id_)): read_touch(id_) for id_ in ids}
    states = await queue.states(list(by_id))
    scheduled = [id_ for id_, state in zip(by_id, states, strict=True) if state is JobState.SCHEDULED]
    until = datetime.fromtimestamp(due_ms / 1000, UTC)
    await asyncio.to_thread(_write, engine, ledger.put_off, [by_id[id_] for id_ in scheduled], until)
    return sum(await queue.reschedule(scheduled, due_ms))


def _write(
    engine: sa.Engine,
    change: Callable[[sa.Connection, Sequence[int], datetime], set[int]],
    touch_ids: Sequence[int],
    when: datetime,
) -> set[int]:
    with write(engine) as connection:
        return change(connection, touch_ids, when)


async def sync_queue_to_ledger(queue: Queue, ended: Sequence[int], known: Sequence[int]) -> None:
    """Let the queue follow what the ledger says already. Doing so again is harmless.

    Jobs of touches that ended while they waited are cancelled. One that the queue holds as uncertain, although its
    outcome came back by another way, is done.
    """
    await queue.cancel([job_id(touch_id) for touch_id in ended], "ended by what came back")
    ids = [job_id(touch_id) for touch_id in known]
    for id_, state in zip(ids, await queue.states(ids) if ids else [], strict=True):
        if state is JobState.UNCERTAIN:
            with suppress(StateError):  # Somebody else may have resolved it meanwhile.
                await queue.resolve(id_, Done())

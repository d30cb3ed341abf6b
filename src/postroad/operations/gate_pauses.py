"""Pauses and resumes gates for an operator, and records who did it, so that delays can be charged to it later.

The queue comes first: what is recorded has happened. After an interruption between the two, the command is run again.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import sqlalchemy as sa

from postroad.queue import Queue
from postroad.store.engine import write
from postroad.store.operator_pause import record_operator_pause, record_operator_resume


async def pause_gate(
    engine: sa.Engine, queue: Queue, gate: str, for_ms: int | None, *, by: str, now: datetime
) -> int | None:
    """Let nothing through a gate. What is in flight finishes.

    Args:
        engine: The ledger's database.
        queue: The queue of the gate.
        gate: Name of the gate.
        for_ms: How long, in ms; None: until it is resumed.
        by: Who pauses it.
        now: The time.

    Returns:
        When the pause ends, in ms since the epoch; None: when it is resumed.

    Raises:
        UnavailableError: The queue or the database is unavailable. The gate may be paused without a record.
    """
    until_ms: int | None = None
    if for_ms is None:
        await queue.pause_gate(gate, None)
    else:
        await queue.pause_gate_for(gate, for_ms)
        until_ms = next((state.gate.paused_until_ms for state in await queue.gates() if state.gate.name == gate), None)
    until = now + timedelta(milliseconds=for_ms) if for_ms is not None else None

    def record() -> None:
        with write(engine) as connection:
            record_operator_pause(connection, queue.name, gate, by=by, now=now, until=until)

    await asyncio.to_thread(record)
    return until_ms


def record_resume(engine: sa.Engine, queue: str, gate: str, *, by: str, now: datetime) -> None:
    """Record that an operator resumed a gate of a queue. Raise UnavailableError without the database."""
    with write(engine) as connection:
        record_operator_resume(connection, queue, gate, by=by, now=now)

"""Acts of an operator on a gate, for commands, the API and the console."""

from __future__ import annotations

import asyncio

from postroad.app.context import AppContext
from postroad.delivery.job import SEND_QUEUE
from postroad.operations.gate_pauses import record_resume
from postroad.queue import Queue
from postroad.shaping import shaper


async def resume_gate(context: AppContext, queue: Queue, gate: str, *, by: str) -> int:
    """Lift the pause of a gate, undo what replies of a receiver had set, and record who did it.

    Args:
        context: Settings and open parts.
        queue: The queue of the gate.
        gate: Name of the gate.
        by: Who resumes it.

    Returns:
        Number of changes of the shaping that are undone.

    Raises:
        UnavailableError: The queue or the database is unavailable.
    """
    undone, now = 0, context.clock.now()
    if queue.name == SEND_QUEUE:
        gates = context.gates(queue)
        undone = await shaper.resume(context.engine, queue, gate, gates=gates, by=by, now=now)
    else:
        await queue.resume_gate(gate)
    await asyncio.to_thread(record_resume, context.engine, queue.name, gate, by=by, now=now)
    return undone

"""A queue whose server lost it, or a part of it: its gates are set again, and its jobs made again from the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from postroad.delivery import dead_letters
from postroad.delivery.control import RebuildResult, rebuild
from postroad.delivery.record import Recorder
from postroad.parts import Parts
from postroad.queue import Queue
from postroad.warmup.identity import warming


async def rebuild_queue(parts: Parts, queue: Queue, *, by: str) -> RebuildResult:
    """Set the gates of a queue, and make jobs again that the ledger has and the queue has not.

    ``by``: recorder's name. Raises UnavailableError.
    """
    await parts.gates(queue).apply()
    return await rebuild(
        parts.engine,
        queue,
        Recorder(engine=parts.engine, queue=queue, clock=parts.clock, name=by, bounce=parts.settings.bounce),
        expire_ms=parts.settings.delivery.expire_ms,
        now=parts.clock.now(),
        warming=warming(parts.settings),
        shaping=parts.shaping,
    )


async def replay_dead(parts: Parts, queue: Queue, ids: Sequence[str]) -> int:
    """Send dead letters again, as `dead_letters.replay` does. Returns how many. Raises UsageError, UnavailableError."""
    return await dead_letters.replay(
        parts.engine,
        queue,
        ids,
        now=parts.clock.now(),
        expire_ms=parts.settings.delivery.expire_ms,
        warming=warming(parts.settings),
        shaping=parts.shaping,
    )

"""Sends dead letters again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from postroad.app.context import AppContext
from postroad.operations import dead_letters
from postroad.queue import Queue


async def replay(context: AppContext, queue: Queue, ids: Sequence[str]) -> int:
    """Send dead letters again. Hard bounces and mail of cancelled campaigns are skipped.

    Args:
        context: The open parts.
        queue: The queue that they died in.
        ids: Ids of their jobs. Those of mail may be in the ledger alone.

    Returns:
        How many are sent again.

    Raises:
        UsageError: An id is not that of a touch.
        UnavailableError: The database or the queue is unavailable.
    """
    options = replace(context.submit_options, gates=context.gates(queue))
    return await dead_letters.replay(context.engine, queue, ids, options, now=context.clock.now())

"""Sends dead letters again, or drops them."""

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


async def drop(context: AppContext, queue: Queue, ids: Sequence[str], *, by: str) -> int:
    """Decide that dead letters are not sent again. Those of mail end as cancelled in the ledger.

    Args:
        context: The open parts.
        queue: The queue that they died in.
        ids: Ids of their jobs. Those of mail may be in the ledger alone.
        by: Who decides; kept in the ledger.

    Returns:
        How many were dropped.

    Raises:
        UsageError: An id is not that of a touch.
        UnavailableError: The database or the queue is unavailable.
    """
    return await dead_letters.drop(context.engine, queue, ids, by=by, now=context.clock.now())

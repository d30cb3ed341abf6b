"""Rebuilds a queue whose server lost it, or a part of it: sets its gates, and makes its jobs again from the ledger."""

from __future__ import annotations

from dataclasses import replace

from postroad.app.context import AppContext
from postroad.delivery.job import MAIL_QUEUES
from postroad.operations import rebuild
from postroad.operations.rebuild import RebuildResult, missing_jobs, sync_pauses
from postroad.queue import Queue


async def rebuild_queues(context: AppContext, *, by: str) -> RebuildResult:
    """Rebuild every queue of mail, whether jobs seem to be missing or not. See `rebuild_queue`."""
    return rebuild.combine([await rebuild_queue(context, await context.queue(name), by=by) for name in MAIL_QUEUES])


async def rebuild_missing(context: AppContext, *, by: str) -> RebuildResult | None:
    """Set the gates of every queue of mail and the pauses of its campaigns, and rebuild those that lack jobs.

    Args:
        context: The open parts.
        by: Name of the recorder that drains the queue first.

    Returns:
        What was rebuilt. None: no queue had to be.

    Raises:
        UnavailableError: The database or the queue is unavailable.
    """
    rebuilt = []
    for name in MAIL_QUEUES:
        queue = await context.queue(name)
        await context.gates(queue).apply()
        await sync_pauses(context.engine, queue)
        if await missing_jobs(context.engine, queue):
            rebuilt.append(await rebuild_queue(context, queue, by=by))
    return rebuild.combine(rebuilt) if rebuilt else None


async def rebuild_queue(context: AppContext, queue: Queue, *, by: str) -> RebuildResult:
    """Set the gates of a queue, and make the jobs that the ledger has in progress and the queue does not have.

    Args:
        context: The open parts.
        queue: A queue of mail.
        by: Name of the recorder that drains the queue first.

    Returns:
        What was rebuilt. Jobs that were on the wire become unknown: they may have been sent.

    Raises:
        UnavailableError: The database or the queue is unavailable.
    """
    gates = context.gates(queue)
    await gates.apply()
    return await rebuild.rebuild(
        context.engine,
        queue,
        context.recorder(queue, by),
        replace(context.submit_options, gates=gates),
        now=context.clock.now(),
    )

"""Resolves jobs of which it is unknown whether they were done."""

from __future__ import annotations

from dataclasses import replace

from postroad.app.context import AppContext
from postroad.delivery.job import MAIL_QUEUES, parse_touch_id
from postroad.operations.unknown import Resolution, resolve_job, resolve_touch
from postroad.queue import Queue


async def resolve(context: AppContext, queue: Queue, id_: str, resolution: Resolution, *, by: str) -> None:
    """Resolve an uncertain job of a queue and, where the queue sends mail, its unknown touch.

    Args:
        context: The open parts.
        queue: The queue.
        id_: Id of the job.
        resolution: What became of it.
        by: Who found out; kept in the ledger.

    Raises:
        StateError: It is not uncertain.
        UsageError: The id is not that of a touch.
        UnavailableError: The database or the queue is unavailable.
    """
    if queue.name not in MAIL_QUEUES:
        await resolve_job(queue, id_, resolution, by=by)
        return
    parse_touch_id(id_)  # Nothing is written for an id that cannot be one.
    await context.recorder(queue, "resolve").drain()
    options = replace(context.submit_options, gates=context.gates(queue))
    await resolve_touch(context.engine, queue, id_, resolution, options, by=by, now=context.clock.now())

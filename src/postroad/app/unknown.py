"""Resolves jobs of which it is unknown whether they were done."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from postroad.app.context import AppContext
from postroad.delivery.job import MAIL_QUEUES, parse_touch_id
from postroad.operations.unknown import NotUnknownError, Resolution, resolve_job, resolve_touch
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
    await _resolve_touches(context, queue, [id_], resolution, by=by)


async def resolve_each(
    context: AppContext, queue: Queue, ids: Sequence[str], resolution: Resolution, *, by: str
) -> list[str]:
    """Resolve unknown touches of a queue of mail. Those that are not unknown are skipped.

    Args:
        context: The open parts.
        queue: The queue.
        ids: Ids of the touches.
        resolution: What became of them.
        by: Who found out; kept in the ledger.

    Returns:
        The ids of those that were resolved.

    Raises:
        UsageError: An id is not that of a touch.
        UnavailableError: The database or the queue is unavailable.
    """
    return await _resolve_touches(context, queue, ids, resolution, by=by, skip=[NotUnknownError])


async def _resolve_touches(
    context: AppContext,
    queue: Queue,
    ids: Sequence[str],
    resolution: Resolution,
    *,
    by: str,
    skip: Sequence[type[Exception]] = (),
) -> list[str]:
    for id_ in ids:
        parse_touch_id(id_)  # Nothing is written if one cannot be an id.
    await context.recorder(queue, "resolve").drain()
    options = replace(context.submit_options, gates=context.gates(queue))
    resolved = []
    for id_ in ids:
        with suppress(*skip):
            await resolve_touch(context.engine, queue, id_, resolution, options, by=by, now=context.clock.now())
            resolved.append(id_)
    return resolved

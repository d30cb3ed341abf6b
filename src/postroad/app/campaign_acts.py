"""Pauses, resumes, closes, cancels and recalls a campaign, with its queue."""

from __future__ import annotations

import asyncio

from postroad.app.context import AppContext
from postroad.delivery.submit import queue_name
from postroad.operations import campaigns, recall
from postroad.operations.recall import RecallResult
from postroad.queue import Queue


async def pause(context: AppContext, name: str, *, by: str) -> None:
    """Pause a campaign. Mail on the wire is finished.

    Raises:
        StateError: There is no such campaign, or it does not run.
        UnavailableError: The database or the queue is unavailable.
    """
    await campaigns.pause(context.engine, await _queue(context, name), name, by=by, now=context.clock.now())


async def resume(context: AppContext, name: str, *, by: str = "an operator") -> None:
    """Resume a paused campaign. ``by``: who does, for the record of the pause.

    Raises:
        StateError: There is no such campaign, or it is not paused.
        UnavailableError: The database or the queue is unavailable.
    """
    queue = await _queue(context, name)
    await campaigns.resume(context.engine, queue, name, by=by, now=context.clock.now())


async def close(context: AppContext, name: str) -> None:
    """Close the entry of a campaign.

    Raises:
        StateError: There is no such campaign, or its entry is not open.
        UnavailableError: The database is unavailable.
    """
    await asyncio.to_thread(campaigns.close, context.engine, name, context.clock.now())


async def cancel(context: AppContext, name: str) -> int:
    """End a campaign for good.

    Returns:
        The number of cancelled touches for which the queue may have jobs.

    Raises:
        StateError: There is no such campaign, or it is finished.
        UnavailableError: The database or the queue is unavailable.
    """
    return await campaigns.cancel(context.engine, await _queue(context, name), name, context.clock.now())


async def recall_campaign(context: AppContext, name: str, step: str | None) -> RecallResult:
    """Stop what has not left of a campaign, or of one of its steps.

    Returns:
        The touches of what was recalled, by state.

    Raises:
        StateError: There is no such campaign or step, or the campaign was never launched.
        UnavailableError: The database or the queue is unavailable.
    """
    return await recall.recall(context.engine, await _queue(context, name), name, step, context.clock.now())


async def _queue(context: AppContext, name: str) -> Queue:
    return await context.queue(await asyncio.to_thread(queue_name, context.engine, name))

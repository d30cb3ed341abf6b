"""Submits due touches of a campaign to its queue. Flows, `postroad advance` and rehearsals all call this."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from postroad.app.context import AppContext
from postroad.delivery.submit import SubmitResult, queue_name, submit_due
from postroad.warmup.overflow import overflow


async def submit(context: AppContext, campaign: str, *, cursor: int, rows: int) -> SubmitResult:
    """Submit what is due within the settings' horizon.

    First the gates are set: a queue that lost them would admit every job. Then touches that the caps of a warming
    sender cannot carry in time move to the senders that the campaign names for them.

    Args:
        context: The open parts.
        campaign: Name of the campaign.
        cursor: Id of the last touch that was submitted; 0 begins.
        rows: Touches to submit, at most.

    Returns:
        How far it came.

    Raises:
        StateError: There is no such campaign.
        UnavailableError: The database or the queue is unavailable. What was not submitted is still planned.
    """
    queue = await context.queue(await asyncio.to_thread(queue_name, context.engine, campaign))
    gates = context.gates(queue)
    await gates.apply()
    now, horizon_ms = context.clock.now(), context.settings.delivery.horizon_ms
    if cursor == 0:
        await asyncio.to_thread(overflow, context.engine, context.settings, campaign, now=now, horizon_ms=horizon_ms)
    options = replace(context.submit_options, providers=await context.providers(), gates=gates)
    return await submit_due(context.engine, queue, campaign, options, now=now, cursor=cursor, limit=rows)

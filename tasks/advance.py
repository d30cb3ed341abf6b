"""Steps that advance running campaigns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Final

from postroad.app import advance
from postroad.app.advance import Advance
from postroad.app.context import open_context
from postroad.campaign.status import campaigns_stopped_since, running_campaigns, summary
from tasks.policy import campaign_slot, retried
from tasks.report import publish_table
from tasks.result import renew_result

SETTLE_WINDOW: Final = timedelta(hours=1)
"""For so long after a campaign stopped its result is updated, while messages on the wire get their outcome."""


@retried("list running campaigns")
async def list_running() -> list[str]:
    async with open_context() as context:
        return await asyncio.to_thread(running_campaigns, context.engine)


@retried("advance", run_name="advance {campaign}")
async def advance_campaign(campaign: str) -> Advance:
    """Plan, submit and close one campaign.

    One task run makes the three calls: with a task run each, sixteen campaigns would be a burst of fifty. Each call is
    idempotent, so a retry begins at the first. Then the artifacts of the campaign's run are updated.

    Returns:
        What was done.
    """
    async with campaign_slot(), open_context() as context:
        done = await advance.advance_campaign(context, campaign)
        state = await asyncio.to_thread(summary, context.engine, campaign)
    await renew_result(state)
    return done


@retried("renew results")
async def renew_stopped() -> None:
    """Update the results of campaigns that stopped: once each, and again while their last mail gets its outcome."""
    async with open_context() as context:
        now = context.clock.now()
        last = await asyncio.to_thread(advance.last_pass, context)
        since = min(last or now, now - SETTLE_WINDOW)
        names = await asyncio.to_thread(campaigns_stopped_since, context.engine, since)
        states = [await asyncio.to_thread(summary, context.engine, name) for name in names]
    for state in states:
        await renew_result(state)


@retried("record the pass")
async def record_advance() -> None:
    """Record that a pass was made, for `postroad_last_advance_age_seconds`."""
    async with open_context() as context:
        await asyncio.to_thread(advance.record_pass, context)


async def publish_advances(advances: Sequence[Advance]) -> None:
    """Show what the pass did, busy campaigns first. A pass without work publishes no table."""
    if not any(a.planned or a.submitted or a.finished for a in advances):
        return
    busiest_first = sorted(advances, key=lambda a: (-a.submitted, a.campaign))
    await publish_table("advances", [asdict(a) for a in busiest_first], "What this pass did for each campaign.")

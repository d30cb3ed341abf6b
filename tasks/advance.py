"""Steps that carry running campaigns on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from postroad.campaign.plan import advance
from postroad.campaign.status import finish_if_done, running_campaigns, summary
from postroad.parts import open_parts
from tasks.policy import campaign_slot, retried
from tasks.report import publish_table
from tasks.result import renew_result
from tasks.slices import MIN_ROWS
from tasks.submit import hand_over


@dataclass(frozen=True)
class Advance:
    """What one pass did for one campaign, in touches."""

    campaign: str
    planned: int
    submitted: int
    finished: bool


@retried("list running campaigns")
async def list_running() -> list[str]:
    async with open_parts() as parts:
        return await asyncio.to_thread(running_campaigns, parts.engine)


@retried("advance", run_name="advance {campaign}")
async def advance_campaign(campaign: str) -> Advance:
    """Plan, submit and close one campaign.

    One task run for the three calls: with a task run each, sixteen campaigns would be a burst of fifty.
    Each call is safe to repeat, so a retry begins at the first. Then what the campaign's run shows is renewed.
    """
    async with campaign_slot(), open_parts() as parts:
        planned = await asyncio.to_thread(advance, parts.engine, campaign, parts.clock.now(), parts.hash_of)
        submitted, cursor, done = 0, 0, False
        while not done:
            step = await hand_over(parts, campaign, cursor=cursor, rows=MIN_ROWS)
            submitted, cursor, done = submitted + step.submitted, step.cursor, step.done
        finished = await asyncio.to_thread(finish_if_done, parts.engine, campaign, parts.clock.now())
        state = await asyncio.to_thread(summary, parts.engine, campaign)
    await renew_result(state)
    return Advance(campaign, planned, submitted, finished)


async def publish_advances(advances: Sequence[Advance]) -> None:
    """Show what the pass did, busy campaigns first. A pass that found nothing to do leaves no table."""
    if not any(a.planned or a.submitted or a.finished for a in advances):
        return
    busiest_first = sorted(advances, key=lambda a: (-a.submitted, a.campaign))
    await publish_table("advances", [asdict(a) for a in busiest_first], "What this pass did for each campaign.")

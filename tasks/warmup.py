"""Steps of a sender's warmup."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from postroad.app import warmup
from postroad.app.context import open_context
from postroad.warmup.decide import Move
from postroad.warmup.identity import of_sender
from postroad.warmup.seeds import SeedPlan
from postroad.warmup.status import markdown, planned_caps, warmup_statuses
from tasks.policy import retried
from tasks.report import publish_markdown


@dataclass(frozen=True)
class Decided:
    """Today's cap of one identity at one provider. ``new``: this run decided it."""

    identity: str
    provider: str
    cap: int
    move: str
    reason: str
    new: bool

    @property
    def paused(self) -> bool:
        return self.new and self.move == Move.PAUSE


@retried("close the day", run_name="close the day of {sender}")
async def close_day(sender: str) -> list[Decided]:
    """Count the outcomes of the last days' mail and decide today's caps. Earlier decisions are kept."""
    async with open_context() as context:
        now = context.clock.now()
        rows = await warmup.close_day(context, of_sender(context.settings, sender), now)
    return [Decided(row.identity, row.provider, row.cap, row.move, row.reason, row.decided_at == now) for row in rows]


@retried("set the caps")
async def set_caps() -> int:
    """Set the gates of both queues to the decided caps, for all workers.

    Returns:
        How many gates were changed.
    """
    async with open_context() as context:
        return await warmup.set_caps(context)


@retried("make the day's campaign")
async def make_seed_campaign(sender: str) -> str | None:
    """Make the day's campaign to the sender's seed list, and cancel those of earlier days.

    Returns:
        Name of the campaign. None: the sender has no seed list.
    """
    async with open_context() as context:
        return await warmup.make_seed_campaign(context, sender)


@retried("plan mail to the seed list")
async def plan_seed_mail(sender: str, campaign: str) -> SeedPlan:
    """Choose recipients and times of the day's mail, and reserve its part of the caps. It is planned once a day."""
    async with open_context() as context:
        return await warmup.plan_seed_mail(context, sender, campaign)


@retried("explain")
async def explain(sender: str) -> None:
    """Show today's caps with their reasons, and the curve next to the plan."""
    async with open_context() as context:
        identities = of_sender(context.settings, sender)
        found = await asyncio.to_thread(warmup_statuses, context.engine, identities, context.clock.now())
    text = markdown(sender, found, planned_caps(identities))
    await publish_markdown(f"warmup-{_key(sender)}", text, f"State of the warmup of {sender}.")


def _key(sender: str) -> str:
    """Return a sender's name as an artifact key."""
    return re.sub(r"[^a-z0-9]+", "-", sender.lower()).strip("-")

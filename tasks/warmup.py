"""Steps of a sender's warmup."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from postroad.delivery import control
from postroad.delivery.gate_controller import count_corrected
from postroad.delivery.job import MAIL_QUEUES
from postroad.delivery.submit import queue_name
from postroad.parts import Parts, open_parts
from postroad.warmup.day import pass_day
from postroad.warmup.decide import Move
from postroad.warmup.identity import of_sender
from postroad.warmup.seeds import SeedPlan, left_over, make_campaign, plan_seeds
from postroad.warmup.status import curve_ahead, markdown, standings
from tasks.policy import retried
from tasks.report import publish_markdown


@dataclass(frozen=True)
class Decided:
    """What holds today for one identity at one provider. ``new``: it was decided by this run."""

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
    """Count what became of the last days' mail and decide today's caps. What was decided before stands."""
    async with open_parts() as parts:
        now = parts.clock.now()
        rows = [
            row
            for identity in of_sender(parts.settings, sender)
            for row in await asyncio.to_thread(pass_day, parts.engine, identity, now)
        ]
    return [Decided(row.identity, row.provider, row.cap, row.move, row.reason, row.decided_at == now) for row in rows]


@retried("set the caps")
async def set_caps() -> int:
    """Bring the gates of both queues to what was decided, for all workers at once. Returns how many were changed."""
    async with open_parts() as parts:
        return await _set_caps(parts)


async def _set_caps(parts: Parts) -> int:
    # That of all other mail first: what the seed lists get must be taken from it before.
    queues = [await parts.queue(name) for name in MAIL_QUEUES]
    return sum([count_corrected(await parts.gates(queue).apply()) for queue in queues])


@retried("make the day's campaign")
async def make_seed_campaign(sender: str) -> str | None:
    """Put the day's mail to the sender's seed list into the store, and end what is left of earlier days'.

    Returns the campaign's name; None: the sender has no seed list.
    """
    async with open_parts() as parts:
        now = parts.clock.now()
        name = await asyncio.to_thread(make_campaign, parts.engine, parts.settings, sender, now)
        for old in await asyncio.to_thread(left_over, parts.engine, parts.settings, sender, name or ""):
            queue = await parts.queue(await asyncio.to_thread(queue_name, parts.engine, old))
            await control.cancel(parts.engine, queue, old, now)
        return name


@retried("plan mail to the seed list")
async def plan_seed_mail(sender: str, campaign: str) -> SeedPlan:
    """Choose whom the day's mail goes to and when, and set its part of the caps apart. It is planned once a day."""
    async with open_parts() as parts:
        now = parts.clock.now()
        plan = await asyncio.to_thread(plan_seeds, parts.engine, parts.settings, sender, campaign, now)
        await _set_caps(parts)
        return plan


@retried("explain")
async def explain(sender: str) -> None:
    """Show today's caps with their reasons, and the curve beside the plan."""
    async with open_parts() as parts:
        identities = of_sender(parts.settings, sender)
        found = await asyncio.to_thread(standings, parts.engine, identities, parts.clock.now())
    text = markdown(sender, found, curve_ahead(identities))
    await publish_markdown(f"warmup-{_key(sender)}", text, f"How the warmup of {sender} stands.")


def _key(sender: str) -> str:
    """A sender's name as an artifact's key may hold it."""
    return re.sub(r"[^a-z0-9]+", "-", sender.lower()).strip("-")

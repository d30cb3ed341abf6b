"""Steps of a sender's warmup."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from postroad.delivery.job import SEND_QUEUE
from postroad.parts import open_parts
from postroad.warmup.caps import CapKeeper
from postroad.warmup.day import pass_day
from postroad.warmup.decide import Move
from postroad.warmup.identity import of_sender
from postroad.warmup.status import markdown, standings
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
    """Bring the gates of the queue to what was decided, for all workers at once. Returns how many were changed."""
    async with open_parts() as parts:
        queue = await parts.queue(SEND_QUEUE)
        return await CapKeeper(parts.settings, engine=parts.engine, queue=queue, clock=parts.clock).turn()


@retried("explain")
async def explain(sender: str) -> None:
    """Show today's caps with their reasons, and the curve beside the plan."""
    async with open_parts() as parts:
        identities = of_sender(parts.settings, sender)
        found = await asyncio.to_thread(standings, parts.engine, identities, parts.clock.now())
    await publish_markdown(f"warmup-{_key(sender)}", markdown(sender, found), f"How the warmup of {sender} stands.")


def _key(sender: str) -> str:
    """A sender's name as an artifact's key may hold it."""
    return re.sub(r"[^a-z0-9]+", "-", sender.lower()).strip("-")

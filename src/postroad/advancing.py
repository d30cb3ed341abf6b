"""One pass over the running campaigns: plan what comes next, hand over what is due, finish what is done.

The flow `advance-campaigns` and `postroad advance` both call this. Every step is safe to repeat, also by two at once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from postroad.campaign.plan import advance
from postroad.campaign.status import finish_if_done
from postroad.delivery.submit import SubmitResult, queue_name, submit_due
from postroad.errors import UnavailableError
from postroad.parts import Parts
from postroad.store.engine import read, write
from postroad.store.heartbeat import ADVANCE, last_heartbeat, record_heartbeat
from postroad.warmup.identity import warming
from postroad.warmup.overflow import overflow

SLICE_ROWS = 5_000
"""Touches that one call of `hand_over` takes in a pass."""
READ_AGE_EVERY_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Advance:
    """What one pass did for one campaign, in touches."""

    campaign: str
    planned: int
    submitted: int
    finished: bool


async def advance_campaign(parts: Parts, campaign: str) -> Advance:
    """Plan, submit and close one campaign.

    Returns:
        What was done. A campaign that does not run is left alone.

    Raises:
        StateError: There is no such campaign.
        UnavailableError: The database or the queue does not answer.
    """
    planned = await asyncio.to_thread(advance, parts.engine, campaign, parts.clock.now(), parts.hash_of)
    submitted, cursor, done = 0, 0, False
    while not done:
        step = await hand_over(parts, campaign, cursor=cursor, rows=SLICE_ROWS)
        submitted, cursor, done = submitted + step.submitted, step.cursor, step.done
    finished = await asyncio.to_thread(finish_if_done, parts.engine, campaign, parts.clock.now())
    return Advance(campaign=campaign, planned=planned, submitted=submitted, finished=finished)


async def hand_over(parts: Parts, campaign: str, *, cursor: int, rows: int) -> SubmitResult:
    """Hand over what is due within the settings' horizon, up to so many rows, after the cursor."""
    delivery = parts.settings.delivery
    queue = await parts.queue(await asyncio.to_thread(queue_name, parts.engine, campaign))
    # Before there are jobs: a queue that was lost would let them all through.
    await parts.gates(queue).apply()
    now, horizon_ms = parts.clock.now(), delivery.horizon_ms
    if cursor == 0:
        await asyncio.to_thread(overflow, parts.engine, parts.settings, campaign, now=now, horizon_ms=horizon_ms)
    return await submit_due(
        parts.engine,
        queue,
        campaign,
        now=now,
        horizon_ms=horizon_ms,
        expire_ms=delivery.expire_ms,
        cursor=cursor,
        limit=rows,
        providers=await parts.providers(),
        warming=warming(parts.settings),
        shaping=parts.shaping,
    )


def record_pass(parts: Parts) -> None:
    """Record that a pass over all running campaigns was made now, so that its age can be watched."""
    with write(parts.engine) as connection:
        record_heartbeat(connection, ADVANCE, parts.clock.now())


def last_pass(parts: Parts) -> datetime | None:
    """Return when the last pass was made. None: none was made on this database."""
    with read(parts.engine) as connection:
        return last_heartbeat(connection, ADVANCE)


class PassAge:
    """The age of the last pass, for a metric. `keep` reads the time of the pass again and again."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # Where no pass was ever made, its age grows from here.
        self._last = parts.clock.now()

    @property
    def seconds(self) -> float:
        """The age in seconds. It also grows while the database does not answer."""
        return max((self._parts.clock.now() - self._last).total_seconds(), 0.0)

    async def keep(self) -> None:
        """Read the time of the last pass every few seconds, until cancelled."""
        while True:
            with suppress(UnavailableError):
                found = await asyncio.to_thread(last_pass, self._parts)
                if found is not None:
                    self._last = found
            await self._parts.clock.sleep(READ_AGE_EVERY_S)

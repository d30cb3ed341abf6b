"""One pass over the running campaigns: plan the next steps, submit what is due, finish what is done.

The flow `advance-campaigns`, `postroad advance` and rehearsals call this. Every step is idempotent, also when two
processes run it at once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from postroad.app.context import AppContext
from postroad.app.submit import submit
from postroad.campaign.plan import advance
from postroad.campaign.status import finish_if_done
from postroad.errors import UnavailableError
from postroad.senders.rollout import widen_if_good
from postroad.store.engine import read, write
from postroad.store.heartbeat import ADVANCE, last_heartbeat, record_heartbeat

SLICE_ROWS = 5_000
"""Touches that one call of `submit` takes in a pass."""
READ_AGE_EVERY_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Advance:
    """What one pass did for one campaign, in touches."""

    campaign: str
    planned: int
    submitted: int
    finished: bool


async def advance_campaign(context: AppContext, campaign: str) -> Advance:
    """Widen its rollout, plan, submit and close one campaign.

    Returns:
        What was done. A campaign that does not run is not changed.

    Raises:
        StateError: There is no such campaign.
        UnavailableError: The database or the queue is unavailable.
    """
    now = context.clock.now()
    await asyncio.to_thread(widen_if_good, context.engine, context.settings, campaign, now)
    planned = await asyncio.to_thread(advance, context.engine, campaign, now, context.hash_of, context.calendar)
    submitted, cursor, done = 0, 0, False
    while not done:
        step = await submit(context, campaign, cursor=cursor, rows=SLICE_ROWS)
        submitted, cursor, done = submitted + step.submitted, step.cursor, step.done
    finished = await asyncio.to_thread(finish_if_done, context.engine, campaign, context.clock.now())
    return Advance(campaign=campaign, planned=planned, submitted=submitted, finished=finished)


def record_pass(context: AppContext) -> None:
    """Record that a pass over all running campaigns was made now, so that its age can be watched."""
    with write(context.engine) as connection:
        record_heartbeat(connection, ADVANCE, context.clock.now())


def last_pass(context: AppContext) -> datetime | None:
    """Return when the last pass was made. None: none was made on this database."""
    with read(context.engine) as connection:
        return last_heartbeat(connection, ADVANCE)


class PassAge:
    """The age of the last pass, for a metric. `poll` reads the time of the pass every few seconds."""

    def __init__(self, context: AppContext) -> None:
        self._context = context
        # Where no pass was ever made, its age grows from here.
        self._last = context.clock.now()

    @property
    def seconds(self) -> float:
        """The age in seconds. It also grows while the database does not answer."""
        return max((self._context.clock.now() - self._last).total_seconds(), 0.0)

    async def poll(self) -> None:
        """Read the time of the last pass every few seconds, until cancelled."""
        while True:
            with suppress(UnavailableError):
                found = await asyncio.to_thread(last_pass, self._context)
                if found is not None:
                    self._last = found
            await self._context.clock.sleep(READ_AGE_EVERY_S)

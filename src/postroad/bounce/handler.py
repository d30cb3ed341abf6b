"""The worker of ``bounce:process``: judge, carry out, and let the queue of mail follow the ledger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from postroad.bounce.effects import process
from postroad.bounce.intake import Intake, decode_job
from postroad.clock import Clock
from postroad.errors import UnavailableError
from postroad.mail.token import TokenSigner
from postroad.queue import Dead, Defer, Done, Lease, Verdict
from postroad.settings import BounceSettings
from postroad.store.bounce import forget_raw
from postroad.store.engine import write

log = logging.getLogger(__name__)

AWAY_MS = 5_000
LOOK_SECONDS = 60.0

Follow = Callable[[Sequence[int], Sequence[int]], Awaitable[None]]
"""Lets the queue of mail follow the ledger: touches that ended while they waited, and touches that are known now."""


class BounceHandler:
    """Handles jobs of ``bounce:process``. Each may be handled again at any time: nothing happens twice."""

    def __init__(
        self, *, engine: sa.Engine, signer: TokenSigner, settings: BounceSettings, clock: Clock, follow: Follow
    ) -> None:
        self._engine = engine
        self._signer = signer
        self._settings = settings
        self._clock = clock
        self._follow = follow

    async def __call__(self, lease: Lease) -> Verdict:
        """Judge one mail. It marks nothing: its effects are one transaction, which repeats without harm."""
        digest = decode_job(lease.job.payload).digest
        try:
            # Only what is the database's or the queue's own trouble waits; an attempt is used by what is ours.
            processed = await asyncio.to_thread(
                process,
                self._engine,
                digest,
                signer=self._signer,
                settings=self._settings,
                now=self._clock.now(),
            )
            if processed is None:
                return Dead(cause="no such mail", error=f"the store has no mail {digest}")
            # Behind the commit: should this fail, the job comes again, and finds what it had to do.
            if processed.ended or processed.known:
                await self._follow(processed.ended, processed.known)
        except UnavailableError as error:
            return Defer(at_ms=self._clock.now_ms() + AWAY_MS, cause="a server is away", error=error.message)
        touch = processed.touch_id or "unknown"
        log.info("mail %s: %s (%s), touch %s", digest[:16], processed.verdict, processed.rule, touch)
        return Done()


async def keep_house(engine: sa.Engine, intake: Intake, settings: BounceSettings, clock: Clock) -> None:
    """Put forgotten mails on the queue and drop the octets of old ones, for as long as this runs."""
    while True:
        try:
            await intake.resume()
            before = clock.now() - timedelta(milliseconds=settings.keep_ms)
            await asyncio.to_thread(_forget, engine, before)
        except UnavailableError as error:
            log.warning("looking for mails that wait: %s", error.message)
        await clock.sleep(LOOK_SECONDS)


def _forget(engine: sa.Engine, before: datetime) -> int:
    with write(engine) as connection:
        return forget_raw(connection, before)

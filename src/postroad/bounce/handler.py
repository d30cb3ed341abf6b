"""The worker of ``bounce:process``: judge, carry out, and let the queue of mail follow the ledger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from postroad.bounce.effects import Processed, Rules, process
from postroad.bounce.intake import Intake, decode_job
from postroad.bounce.judge import BounceClass as MailVerdict
from postroad.bounce.reading import Read
from postroad.bounce.receivers import ReportRules, forget_reports, keep_reports
from postroad.clock import Clock
from postroad.errors import UnavailableError
from postroad.queue import ClaimedJob, Dead, Defer, Done, Lease, Verdict
from postroad.settings import BounceSettings
from postroad.store.bounce import forget_raw, mails_to_empty
from postroad.store.engine import read, write
from postroad.store.outcome import TouchOutcome
from postroad.store.webhook import any_token_before, forget_tokens

log = logging.getLogger(__name__)

AWAY_MS = 5_000
LOOK_SECONDS = 60.0
FORGET_STEP = 200
"""Mails that one transaction empties: each may have a megabyte."""
SKEW_MS = 600_000
"""Clocks differ. A token is remembered for so long after its signature is too old by ours."""

Follow = Callable[[Sequence[int], Sequence[int]], Awaitable[None]]
"""Lets the queue of mail follow the ledger: touches that ended while they waited, and touches that are known now."""


Count = Callable[[Sequence[TouchOutcome]], None]


class BounceHandler:
    """Handles jobs of ``bounce:process``. Each may be handled again at any time: nothing happens twice."""

    def __init__(
        self,
        *,
        engine: sa.Engine,
        rules: Rules,
        read: Read,
        reports: ReportRules,
        intake: Intake,
        clock: Clock,
        follow: Follow,
        count: Count | None = None,
    ) -> None:
        """``read``: reads a mail, and always returns: see `reading.MailReader`.

        ``count``: counts outcomes for metrics; None: they are not counted.
        """
        self._engine = engine
        self._reports = reports
        self._intake = intake
        self._count = count
        self._rules = rules
        self._read = read
        self._clock = clock
        self._follow = follow

    async def prepare(self, jobs: Sequence[ClaimedJob]) -> Mapping[str, Verdict]:
        """Judge what was claimed together in one transaction. What that cannot do is left to `__call__`, one by one."""
        asked = {job.id: decode_job(job.payload) for job in jobs}
        # Reports are read later, each mail by itself.
        digests = {id_: one.digest for id_, one in asked.items() if not one.reports}
        if not digests:
            return {}
        try:
            processed = await self._process(list(digests.values()))
        except Exception as error:
            # One that cannot be judged, or a lock that somebody else holds, must not keep the others.
            log.warning("%d mails are judged one by one: %s", len(jobs), error)
            return {}
        return {
            id_: _settled(digest, one) for (id_, digest), one in zip(digests.items(), processed, strict=True) if one
        }

    async def __call__(self, lease: Lease) -> Verdict:
        """Judge one mail. It marks nothing: its effects are one transaction, which repeats without harm."""
        job = decode_job(lease.job.payload)
        digest = job.digest
        try:
            if job.reports:
                await asyncio.to_thread(keep_reports, self._engine, digest, self._reports, self._clock.now())
                return Done()
            [processed] = await self._process([digest])
        except UnavailableError as error:
            # Only what is the database's or the queue's own trouble waits; an attempt is used by what is ours.
            return Defer(delay_ms=AWAY_MS, cause="a server is away", error=error.message)
        if processed is None:
            return Dead(cause="no such mail", error=f"the store has no mail {digest}")
        return _settled(digest, processed)

    async def _process(self, digests: Sequence[str]) -> Sequence[Processed | None]:
        processed = await asyncio.to_thread(
            process, self._engine, digests, rules=self._rules, read=self._read, now=self._clock.now()
        )
        if self._count is not None:
            outcomes = [outcome for one in processed if one is not None for outcome in one.outcomes]
            await asyncio.to_thread(self._count, outcomes)
        ended = [touch_id for one in processed if one is not None for touch_id in one.ended]
        known = [touch_id for one in processed if one is not None for touch_id in one.known]
        if ended or known:
            # Behind the commit: should this fail, the jobs come again, and find what they had to do.
            await self._follow(ended, known)
        await self._intake.enqueue_reports(
            [digest for digest, one in zip(digests, processed, strict=True) if one is not None and one.reports]
        )
        for digest, one in zip(digests, processed, strict=True):
            if one is not None:
                log.info("mail %s: %s (%s), touch %s", digest[:16], one.verdict, one.rule, one.touch_id or "unknown")
        return processed


def _settled(digest: str, processed: Processed) -> Verdict:
    """A mail that cannot be read is a dead letter: it is not tried again by itself, and holds up no other."""
    if processed.verdict is MailVerdict.UNREADABLE:
        return Dead(cause="unreadable mail", error=f"mail {digest}: {processed.rule}")
    return Done()


async def keep_house(
    engine: sa.Engine, intake: Intake, settings: BounceSettings, clock: Clock, *, window_ms: int
) -> None:
    """Put forgotten mails on the queue and drop the octets of old ones, for as long as this runs.

    ``window_ms``: how long tokens of webhooks are remembered.
    """
    while True:
        try:
            await intake.resume()
            now = clock.now()
            tokens_before = now - timedelta(milliseconds=window_ms + SKEW_MS)
            await asyncio.to_thread(_forget, engine, now - timedelta(milliseconds=settings.keep_ms), tokens_before)
            await asyncio.to_thread(forget_reports, engine, now - timedelta(milliseconds=settings.reports_keep_ms))
        except UnavailableError as error:
            log.warning("looking for mails that wait: %s", error.message)
        await clock.sleep(LOOK_SECONDS)


def _forget(engine: sa.Engine, raw_before: datetime, tokens_before: datetime) -> None:
    while True:
        with read(engine) as connection:
            digests = mails_to_empty(connection, raw_before, FORGET_STEP)
        if not digests:
            break
        with write(engine) as connection:
            forget_raw(connection, digests)
    with read(engine) as connection:
        any_token = any_token_before(connection, tokens_before)
    if any_token:
        with write(engine) as connection:
            forget_tokens(connection, tokens_before)

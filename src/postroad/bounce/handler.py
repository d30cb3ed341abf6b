"""Handles jobs of ``bounce:process``: processes stored mails and reports, and synchronises the mail queues."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from postroad.bounce.classify import BounceClass
from postroad.bounce.intake import Intake, decode_job
from postroad.bounce.process import BounceRules, ProcessedMail, process
from postroad.bounce.readers import ReadMail
from postroad.bounce.report_mail import ReportRules, forget_reports, keep_reports
from postroad.clock import Clock
from postroad.errors import UnavailableError
from postroad.queue import ClaimedJob, Dead, Defer, Done, Lease, Verdict
from postroad.settings import BounceSettings
from postroad.store.bounce import forget_raw, mails_to_empty
from postroad.store.engine import read as open_read
from postroad.store.engine import write
from postroad.store.outcome import TouchOutcome
from postroad.store.webhook import any_token_before, forget_tokens

log = logging.getLogger(__name__)

UNAVAILABLE_DELAY_MS = 5_000
"""Delay of a job while the database or the queue is unavailable."""
MAINTENANCE_INTERVAL_S = 60.0
FORGET_BATCH = 200
"""Mails whose octets one transaction deletes. Each may have a megabyte."""
MAX_CLOCK_SKEW_MS = 600_000
"""Additional time that the tokens of webhooks are stored after their signature has expired."""

SyncQueues = Callable[[Sequence[int], Sequence[int]], Awaitable[None]]
"""Updates the mail queues: cancels the jobs of ended touches, and resolves uncertain jobs of resolved touches."""

CountOutcomes = Callable[[Sequence[TouchOutcome]], None]


@dataclass(frozen=True)
class AfterCommit:
    """Calls after the transaction that processed mails. ``count``: counts outcomes for metrics."""

    sync_queues: SyncQueues
    count: CountOutcomes | None = None


class BounceHandler:
    """Handles jobs of ``bounce:process``. Idempotent."""

    def __init__(
        self,
        *,
        engine: sa.Engine,
        rules: BounceRules,
        read: ReadMail,
        reports: ReportRules,
        intake: Intake,
        clock: Clock,
        after_commit: AfterCommit,
    ) -> None:
        """Store the dependencies.

        Args:
            engine: The ledger's database.
            rules: Key and settings that decide on the effects of a mail.
            read: Parses a mail within limits: see `readers.MailReader`.
            reports: Selects the attached reports to store.
            intake: Enqueues mails whose reports are to be read.
            clock: Time of the effects.
            after_commit: Calls after each transaction.
        """
        self._engine = engine
        self._reports = reports
        self._intake = intake
        self._rules = rules
        self._read = read
        self._clock = clock
        self._after_commit = after_commit

    async def prepare(self, jobs: Sequence[ClaimedJob]) -> Mapping[str, Verdict]:
        """Process the mails of one claim in one transaction. If it fails, `__call__` processes each mail alone."""
        decoded = {job.id: decode_job(job.payload) for job in jobs}
        # Reports are read later, one mail at a time.
        digests = {id_: job.digest for id_, job in decoded.items() if not job.reports}
        if not digests:
            return {}
        try:
            results = await self._process(list(digests.values()))
        except Exception as error:
            # One mail that fails, or a lock of another transaction, must not block the other mails.
            log.warning("%d mails are processed one by one: %s", len(jobs), error)
            return {}
        return {
            id_: _verdict_of(digest, result)
            for (id_, digest), result in zip(digests.items(), results, strict=True)
            if result
        }

    async def __call__(self, lease: Lease) -> Verdict:
        """Process one mail. It needs no mark, because its effects are one idempotent transaction."""
        job = decode_job(lease.job.payload)
        digest = job.digest
        try:
            if job.reports:
                await asyncio.to_thread(keep_reports, self._engine, digest, self._reports, self._clock.now())
                return Done()
            [result] = await self._process([digest])
        except UnavailableError as error:
            # An unavailable database or queue delays the job without using an attempt. Other errors use one.
            return Defer(delay_ms=UNAVAILABLE_DELAY_MS, cause="a server is unavailable", error=error.message)
        if result is None:
            return Dead(cause="no such mail", error=f"the store has no mail {digest}")
        return _verdict_of(digest, result)

    async def _process(self, digests: Sequence[str]) -> Sequence[ProcessedMail | None]:
        results = await asyncio.to_thread(
            process, self._engine, digests, rules=self._rules, read=self._read, now=self._clock.now()
        )
        by_digest = [(digest, result) for digest, result in zip(digests, results, strict=True) if result is not None]
        if self._after_commit.count is not None:
            outcomes = [outcome for _, result in by_digest for outcome in result.outcomes]
            await asyncio.to_thread(self._after_commit.count, outcomes)
        ended = [touch_id for _, result in by_digest for touch_id in result.ended]
        resolved = [touch_id for _, result in by_digest for touch_id in result.resolved]
        if ended or resolved:
            # This is after the commit. If it fails, the jobs are repeated and find the same results.
            await self._after_commit.sync_queues(ended, resolved)
        await self._intake.enqueue_reports([digest for digest, result in by_digest if result.reports])
        for digest, result in by_digest:
            touch = result.touch_id or "unknown"
            log.info("mail %s: %s (%s), touch %s", digest[:16], result.verdict, result.rule, touch)
        return results


def _verdict_of(digest: str, result: ProcessedMail) -> Verdict:
    """Return the job's verdict. A mail that cannot be parsed becomes a dead letter, so it is not retried."""
    if result.verdict is BounceClass.UNREADABLE:
        return Dead(cause="unreadable mail", error=f"mail {digest}: {result.rule}")
    return Done()


async def run_maintenance(
    engine: sa.Engine, intake: Intake, settings: BounceSettings, clock: Clock, *, window_ms: int
) -> None:
    """Enqueue unprocessed mails that have no job, and delete old octets, tokens and reports, until cancelled.

    Args:
        engine: The ledger's database.
        intake: Enqueues mails.
        settings: How long mails and reports are stored.
        clock: Time source.
        window_ms: How long a token of a webhook is valid, in milliseconds.
    """
    while True:
        try:
            await intake.resume()
            now = clock.now()
            tokens_before = now - timedelta(milliseconds=window_ms + MAX_CLOCK_SKEW_MS)
            await asyncio.to_thread(_forget, engine, now - timedelta(milliseconds=settings.keep_ms), tokens_before)
            await asyncio.to_thread(forget_reports, engine, now - timedelta(milliseconds=settings.reports_keep_ms))
        except UnavailableError as error:
            log.warning("maintenance of inbound mail failed: %s", error.message)
        await clock.sleep(MAINTENANCE_INTERVAL_S)


def _forget(engine: sa.Engine, raw_before: datetime, tokens_before: datetime) -> None:
    while True:
        with open_read(engine) as connection:
            digests = mails_to_empty(connection, raw_before, FORGET_BATCH)
        if not digests:
            break
        with write(engine) as connection:
            forget_raw(connection, digests)
    with open_read(engine) as connection:
        any_token = any_token_before(connection, tokens_before)
    if any_token:
        with write(engine) as connection:
            forget_tokens(connection, tokens_before)

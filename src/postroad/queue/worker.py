"""A worker: claims jobs for its free slots, runs their handler, and settles their outcomes."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from contextlib import suppress
from random import Random
from typing import NamedTuple, Unpack
from uuid import uuid4

from msgspec import Struct

from postroad.clock import Clock, SystemClock
from postroad.errors import UnavailableError
from postroad.queue.job_runner import Backoff, Handle, JobOutcome, JobRunner, Prepare
from postroad.queue.queue import Queue
from postroad.queue.types import Batch, Done, OldWorkerKeywords, Release, SettleResult, Uncertain, with_old_keywords
from postroad.queue.watchdog import Watchdog

logger = logging.getLogger(__name__)

IDLE_MS = 100
"""Poll interval of an idle worker."""

SETTLE_DELAY_S = 0.02
"""Maximum delay before settling, so that several outcomes share one call."""

CLAIM_DELAY_S = 0.02
"""Maximum delay before claiming for few free slots, so that several jobs share one claim and one preparation."""

BATCH_SHARE = 4
"""A call is worth its cost when it is for one slot in this many."""

MAX_CONCURRENT_CALLS = 2
"""While the server executes one call, the worker handles the jobs of the other."""

MIN_BATCH = 50
"""Jobs of one claim, before the slots are divided between concurrent calls."""

FINAL_SETTLE_S = 2.0
"""Time to settle when the handlers used up the whole drain."""


class WorkerOptions(Struct, frozen=True, kw_only=True):
    """Name and times of a worker. All times but ``lease_ms`` are real time, also with a clock of the caller.

    ``name``: unique name of the worker; None: made from host and process id. ``lease_ms``: duration of a lease, which
    is renewed. ``drain_ms``: time that marked jobs have to end after the stop. ``watchdog_ms``: the worker reconnects
    if jobs are ready and it has claimed none for this long. ``idle_ms``: poll interval when no job is ready.
    """

    name: str | None = None
    lease_ms: int = 60_000
    drain_ms: int = 20_000
    watchdog_ms: int = 30_000
    idle_ms: int = IDLE_MS


DEFAULT_OPTIONS = WorkerOptions()


class WorkerReport(Struct, frozen=True, kw_only=True):
    """Counts of one run. ``settled``: by verdict. ``stale``: verdicts that changed nothing, because the lease was lost.

    ``unsettled``: outcomes that the server did not get in time.
    """

    claimed: int
    settled: dict[str, int]
    stale: int
    unsettled: int


class _Call(NamedTuple):
    """One settle-and-claim call. It is repeated unchanged until the server replies."""

    nonce: str
    outcomes: list[JobOutcome]
    want: int


class Worker:
    """Runs a handler for up to ``concurrency`` jobs at once. For one call of `run`."""

    def __init__(
        self,
        queue: Queue,
        handle: Handle,
        *,
        concurrency: int = 10,
        prepare: Prepare | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
        options: WorkerOptions = DEFAULT_OPTIONS,
        **old: Unpack[OldWorkerKeywords],
    ) -> None:
        """Make a worker.

        Args:
            queue: Queue to claim from.
            handle: Handler of one job.
            concurrency: Jobs that are handled at once.
            prepare: Gets every claimed batch before its jobs are handled. A job for which it returns a verdict is
                settled with it and not handled. If it raises, the batch is released and claims pause.
            clock: Clock of the queue. None: the system's.
            rng: Spreads delays.
            options: Name and times.
            old: Deprecated: options as keywords.
        """
        options = with_old_keywords(options, old)
        self.next_ms: int | None = None
        """Time of the queue's clock at which a job may be ready, from the last claim. None: no job waits."""
        self.name = options.name or f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._queue = queue
        self._concurrency = concurrency
        self._lease_ms = options.lease_ms
        self._drain_s = options.drain_ms / 1000
        self._idle_s = options.idle_ms / 1000
        self._clock = clock or SystemClock()
        rng = rng or Random()  # noqa: S311 - it spreads delays
        backoff = Backoff(rng, first_s=0.5, most_s=30.0)
        self._runner = JobRunner(
            queue, handle, prepare, options.lease_ms, backoff, flush_threshold=-(-concurrency // BATCH_SHARE)
        )
        self._reconnect_backoff = Backoff(rng, first_s=0.1, most_s=5.0)
        self._idle_backoff = Backoff(rng, first_s=0.001, most_s=self._idle_s)
        self._watchdog = Watchdog(queue, self.name, options.watchdog_ms)
        self._calls = 0  # calls in progress, and the jobs that they ask for
        self._wanted = 0
        self._more = False  # whether the last claim left jobs that are ready
        self._drained = asyncio.Event()
        self._claim_at_s = 0.0
        self._claimed_at_s = float("-inf")  # when jobs were last claimed
        self._deadline_s = float("inf")
        self._counts: Counter[str] = Counter()
        self._claimed = self._stale = 0
        self._events_full = False

    async def run(self, stop: asyncio.Event) -> WorkerReport:
        """Handle jobs until ``stop`` is set. Then claim no more, drain, and settle every outcome.

        Args:
            stop: Ends the run.

        Returns:
            Counts of this run. It raises nothing when the server is unavailable: it retries until the drain is over.
        """
        background = [
            asyncio.create_task(self._runner.renew()),
            asyncio.create_task(self._drain_on(stop)),
        ]
        try:
            async with self._watchdog.watching(lambda: self._keeps_claiming(stop)), asyncio.TaskGroup() as group:
                # The server stores the last call of each name.
                names = [f"{self.name}/{n}" for n in range(MAX_CONCURRENT_CALLS)]
                loops = [group.create_task(self._settle_and_claim_loop(name, stop)) for name in names]
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._runner.aclose()
        unsettled = sum(loop.result() for loop in loops) + len(self._runner.outbox)
        return WorkerReport(claimed=self._claimed, settled=dict(self._counts), stale=self._stale, unsettled=unsettled)

    async def _settle_and_claim_loop(self, name: str, stop: asyncio.Event) -> int:
        """Settle and claim until every job is drained. Returns the number of outcomes that were not settled."""
        while not (self._drained.is_set() and not self._runner.outbox):
            call = self._next_call(stopping=stop.is_set())
            if call is None:
                await self._wait_for_work(stopping=stop.is_set())
                continue
            settled = await self._send(name, call)
            if settled is None:
                return len(call.outcomes)
            late = self._receive(call, settled, stopping=stop.is_set())
            if not await self._report(late):
                return len(late)
        return 0

    def _keeps_claiming(self, stop: asyncio.Event) -> bool:
        """Return whether the worker would claim a job now."""
        return not stop.is_set() and len(self._runner) < self._concurrency and _now_s() >= self._runner.paused_until_s

    def _next_call(self, *, stopping: bool) -> _Call | None:
        now_s = _now_s()
        want = min(self._free, max(self._concurrency // MAX_CONCURRENT_CALLS, MIN_BATCH))
        if stopping or now_s < max(self._runner.paused_until_s, self._claim_delayed_until_s()):
            want = 0
        if not self._runner.outbox and (want == 0 or now_s < self._claim_at_s):
            return None
        # During another call, only a call that is worth its cost.
        if self._calls and not (self._is_batch(len(self._runner.outbox)) or (self._more and self._is_batch(want))):
            return None
        outcomes = self._runner.take_outcomes()
        return _Call(uuid4().hex, outcomes, want)

    @property
    def _free(self) -> int:
        """Slots without a job, and for which no call asks for one."""
        return max(self._concurrency - len(self._runner) - self._wanted, 0)

    def _is_batch(self, jobs: int) -> bool:
        return jobs * BATCH_SHARE >= self._concurrency

    def _claim_delayed_until_s(self) -> float:
        """Return the time until which a claim is delayed, because few slots are free."""
        return 0.0 if self._is_batch(self._free) else self._claimed_at_s + CLAIM_DELAY_S

    async def _wait_for_work(self, *, stopping: bool) -> None:
        """Wait for an outcome, or until a claim is worth its cost. At most the poll interval."""
        wait_s = max(self._claim_at_s, self._runner.paused_until_s, self._claim_delayed_until_s()) - _now_s()
        if stopping or not self._free or self._calls or wait_s > self._idle_s:
            wait_s = self._idle_s
        ready = self._runner.outcome_ready
        try:
            async with asyncio.timeout(max(wait_s, 0.001)):
                await ready.wait()
        except TimeoutError:
            pass
        else:
            if self._runner.outbox and len(self._runner) and not self._is_batch(len(self._runner.outbox)):
                with suppress(TimeoutError):
                    async with asyncio.timeout(SETTLE_DELAY_S):
                        await self._runner.flush_ready.wait()
        ready.clear()

    async def _send(self, name: str, call: _Call) -> SettleResult | None:
        """Send a call until the server replies. Returns None if the drain ended first."""
        self._calls += 1
        self._wanted += call.want
        try:
            return await self._send_until_reply(name, call)
        finally:
            self._calls -= 1
            self._wanted -= call.want

    async def _send_until_reply(self, name: str, call: _Call) -> SettleResult | None:
        verdicts = [(outcome.job, outcome.verdict) for outcome in call.outcomes]
        while True:
            try:
                settled = await self._queue.settle(
                    name, verdicts, want=call.want, lease_ms=self._lease_ms, nonce=call.nonce
                )
            except Exception as error:
                if not await self._wait_for_server(error):
                    return None
                # This call reaps leases that expired during the outage. Renew ours first.
                await self._runner.renew_now()
            else:
                if self._reconnect_backoff.reset():
                    logger.info("%s: the queue is available again", self.name)
                return settled

    def _receive(self, call: _Call, settled: SettleResult, *, stopping: bool) -> list[JobOutcome]:
        """Count the reply and accept its jobs. Returns stale outcomes that must be recorded nevertheless."""
        stale, verdicts, late = set(settled.stale), [], []
        for outcome in call.outcomes:
            if outcome.job.id not in stale:
                verdicts.append(type(outcome.verdict).__name__.lower())
            elif isinstance(outcome.verdict, Done) or (
                outcome.marked and not isinstance(outcome.verdict, Release | Uncertain)
            ):
                # Another worker may have the job, or the queue lost it, but the act happened.
                late.append(outcome)
        self._counts.update(verdicts)
        self._stale += len(stale)
        batch = settled.batch
        self._claimed += len(batch.jobs)
        if call.want:
            self.next_ms = batch.next_ms
        if batch.jobs:
            self._claimed_at_s = _now_s()
            self._watchdog.claimed()
        if self._queue.metrics:
            self._queue.metrics.worked(self._queue.name, claimed=len(batch.jobs), settled=verdicts, stale=len(stale))
        if batch.events_full != self._events_full:
            self._events_full = batch.events_full
            if batch.events_full:
                logger.error("%s: no job is claimed: too many events are not recorded", self.name)
            else:
                logger.info("%s: events are recorded again; jobs are claimed", self.name)
        if call.want:
            self._claim_at_s, self._more = _now_s() + self._pause_s(batch), batch.more
            self._runner.outcome_ready.set()  # The other loop may now have a reason to call.
        if batch.jobs and stopping:
            self._runner.release(batch.jobs)
        elif batch.jobs:
            self._runner.accept(batch.jobs)
        return late

    def _pause_s(self, batch: Batch) -> float:
        until_next_s = self._idle_s
        if batch.next_ms is not None:
            until_next_s = min((batch.next_ms - self._clock.now_ms()) / 1000, self._idle_s)
        if batch.jobs:
            self._idle_backoff.reset()
            return max(until_next_s, 0.0)
        if batch.more:
            return 0.0
        # An idle worker must not spin if its clock is ahead of the server's.
        return max(until_next_s, self._idle_backoff.next_s())

    async def _report(self, late: list[JobOutcome]) -> bool:
        """Record stale outcomes and remove them from the list. Returns False if the drain ended first."""
        while late:
            outcome = late[0]
            try:
                await self._queue.record_late_outcome(outcome.job.id, outcome.job.token, outcome.verdict.note)
            except Exception as error:
                if not await self._wait_for_server(error):
                    return False
            else:
                late.pop(0)
        return True

    async def _wait_for_server(self, error: Exception) -> bool:
        """Wait for the backoff. Returns False if the drain is over."""
        if not self._reconnect_backoff.failures:
            logger.warning("%s: the queue is unavailable; retrying until it replies: %s", self.name, error)
        if not isinstance(error, UnavailableError):
            logger.error("%s: the queue refused a call", self.name, exc_info=error)
        left_s = self._deadline_s - _now_s()
        if left_s <= 0:
            logger.error("%s: stopped with outcomes that are not settled", self.name)
            return False
        await asyncio.sleep(min(self._reconnect_backoff.next_s(), left_s))
        return True

    async def _drain_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._deadline_s = _now_s() + self._drain_s
        self._runner.outcome_ready.set()
        await self._runner.drain(self._drain_s)
        self._deadline_s = max(self._deadline_s, _now_s() + FINAL_SETTLE_S)
        self._drained.set()
        self._runner.outcome_ready.set()


def _now_s() -> float:
    return asyncio.get_running_loop().time()

"""Runs the jobs that a worker has claimed: prepares and handles them, renews leases, drains on shutdown."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import NamedTuple

from postroad.errors import UnavailableError
from postroad.queue.lease import Lease, LeaseLostError, MarkBatcher
from postroad.queue.queue import Queue
from postroad.queue.types import ClaimedJob, Release, Retry, Uncertain, Verdict

logger = logging.getLogger(__name__)

Handle = Callable[[Lease], Awaitable[Verdict]]
"""Handles one job, and returns its verdict. It calls `Lease.mark` just before an act that cannot be undone."""

Prepare = Callable[[Sequence[ClaimedJob]], Awaitable[Mapping[str, Verdict]]]
"""Prepares one claimed batch. Returns verdicts by id for the jobs that are not to be handled."""

CANCEL_GRACE_S = 1.0
"""Time that a cancelled handler has to end."""


class Backoff:
    """Delays that double from ``first_s`` to ``most_s``.

    Each delay is drawn from its upper half, so that many clients do not retry at the same time.
    """

    def __init__(self, rng: Random, *, first_s: float = 0.1, most_s: float = 5.0) -> None:
        self._rng = rng
        self._first_s = first_s
        self._most_s = most_s
        self.failures = 0

    def next_s(self) -> float:
        """Count a failure. Returns the delay before the next attempt, in seconds."""
        delay_s = min(self._first_s * 2.0**self.failures, self._most_s)
        # The exponent is bounded: the delay no longer grows.
        self.failures = min(self.failures + 1, 64)
        return delay_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> bool:
        """Forget all failures. Returns whether there were any."""
        failed, self.failures = self.failures > 0, 0
        return failed


class JobOutcome(NamedTuple):
    """A verdict to settle, and whether the job was marked."""

    job: ClaimedJob
    verdict: Verdict
    marked: bool


class JobRunner:
    """Runs handlers for claimed jobs and collects their outcomes in ``outbox``.

    A task handles one job after the other: for a short job, a task of its own would cost more than the job. A context
    variable that a handler sets is therefore visible to later jobs of the same task.
    """

    def __init__(
        self,
        queue: Queue,
        handle: Handle,
        prepare: Prepare | None,
        lease_ms: int,
        backoff: Backoff,
        flush_threshold: int = 1,
    ) -> None:
        """Make a runner without jobs.

        Args:
            queue: Queue that leases the jobs.
            handle: Handler of one job.
            prepare: Prepares each batch before its jobs are handled. None: no preparation.
            lease_ms: Duration of a lease, in ms. Leases are renewed after a third of it.
            backoff: Delays claims after a failed preparation.
            flush_threshold: Settle at once when this many outcomes are pending.
        """
        self.outbox: list[JobOutcome] = []
        self.outcome_ready = asyncio.Event()
        """Set when an outcome is added to ``outbox``."""
        self.flush_ready = asyncio.Event()
        """Set when waiting for more outcomes is pointless: enough are pending, or no job is running."""
        self.paused_until_s = 0.0
        """Time of the event loop before which no job is claimed, because preparation fails."""
        self._flush_threshold = flush_threshold
        self._queue = queue
        self._handle = handle
        self._prepare = prepare
        self._lease_ms = lease_ms
        self._backoff = backoff
        self._marker = MarkBatcher(queue)
        # Keyed by lease: a job may be claimed again while the handler of its old lease still ends.
        self._held: dict[Lease, asyncio.Task[None] | None] = {}
        self._empty = asyncio.Event()
        self._preparing: set[asyncio.Task[None]] = set()
        self._backlog: deque[Lease] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._spawn_planned = False
        self._closed = False

    def __len__(self) -> int:
        return len(self._held)

    def accept(self, jobs: Sequence[ClaimedJob]) -> None:
        """Prepare jobs as one batch, then handle each."""
        leases = [Lease(job, self._marker) for job in jobs]
        self._held.update(dict.fromkeys(leases))
        if self._prepare is None:
            self._start(leases)
            return
        task = asyncio.create_task(self._prepare_batch(self._prepare, leases))
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)

    def take_outcomes(self) -> list[JobOutcome]:
        """Remove all outcomes from ``outbox`` and return them."""
        outcomes, self.outbox = self.outbox, []
        self.flush_ready.clear()
        return outcomes

    def release(self, jobs: Iterable[ClaimedJob]) -> None:
        """Release jobs that were never accepted."""
        self.outbox += [JobOutcome(job, Release(), False) for job in jobs]
        self.outcome_ready.set()

    async def renew(self) -> None:
        """Renew every lease until this is cancelled."""
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            await self.renew_now()

    async def renew_now(self) -> None:
        """Renew every lease once. A job whose lease was lost before its mark is cancelled."""
        leases = list(self._held)
        if not leases:
            return
        try:
            ours = await self._queue.extend([lease.job for lease in leases], self._lease_ms)
        except Exception as error:
            # The worker's next call fails in the same way and logs it. An expired lease refuses its mark.
            logger.debug("leases could not be renewed: %s", error)
            return
        for lease, held in zip(leases, ours, strict=True):
            # A marked job whose lease expired is uncertain: its outcome is still needed.
            if not held and not lease.marked:
                self._cancel_lost(lease)

    async def drain(self, drain_s: float) -> None:
        """End every job: cancel and release those without a mark, wait for the others.

        Args:
            drain_s: Time that marked jobs have to end, in seconds. After it they are cancelled and become uncertain.
        """
        for task in self._preparing:
            task.cancel()
        for lease, running in self._held.items():
            if not lease.marked:
                lease.revoke()
                if running is not None:
                    running.cancel()
        while self._backlog:
            self._finish(self._backlog.popleft(), Release())
        await self._until_empty(drain_s)
        for running in self._held.values():
            if running is not None:
                running.cancel()
        await self._until_empty(CANCEL_GRACE_S)
        for lease in list(self._held):
            # It was cancelled before it began, or its handler does not end.
            self._finish(lease, self._stopped(lease))

    async def aclose(self) -> None:
        """Cancel every task. Jobs that still run have no outcome."""
        tasks = [*self._preparing, *self._tasks]
        for lease in self._held:
            lease.revoke()
        self._held.clear()
        self._backlog.clear()
        self._closed = True
        for task in tasks:
            task.cancel()
        await _wait(tasks, CANCEL_GRACE_S)
        await self._marker.aclose()

    async def _until_empty(self, at_most_s: float) -> None:
        self._empty.clear()
        if self._held:
            with suppress(TimeoutError):
                async with asyncio.timeout(at_most_s):
                    await self._empty.wait()

    async def _prepare_batch(self, prepare: Prepare, leases: Sequence[Lease]) -> None:
        jobs = [lease.job for lease in leases]
        verdicts: Mapping[str, Verdict] = {}
        try:
            verdicts = await prepare(jobs)
        except asyncio.CancelledError:
            verdicts = {job.id: Release() for job in jobs}
        except Exception as error:
            # An unreachable server is no fault of the code: no traceback.
            fault = None if isinstance(error, UnavailableError) else error
            logger.warning("preparing %d jobs failed; they are released: %s", len(jobs), error, exc_info=fault)
            self.paused_until_s = asyncio.get_running_loop().time() + self._backoff.next_s()
            verdicts = {job.id: Release() for job in jobs}
        else:
            self._backoff.reset()
        for lease in leases:
            if lease.job.id in verdicts:
                self._finish(lease, verdicts[lease.job.id])
        # A lease may have been lost during the preparation.
        self._start([lease for lease in leases if lease.job.id not in verdicts and lease in self._held])

    def _start(self, leases: Sequence[Lease]) -> None:
        self._backlog += leases
        self._wake_tasks(1)

    def _wake_tasks(self, count: int) -> None:
        """Wake idle tasks, and start new ones for the rest."""
        for _ in range(count):
            if self._idle:
                self._idle.pop().set_result(None)
            else:
                task = asyncio.create_task(self._run(), name="job")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _spawn_for_backlog(self) -> None:
        """Start one task for each job of the backlog: the current job suspended."""
        self._spawn_planned = False
        self._wake_tasks(len(self._backlog))

    async def _run(self) -> None:
        """Handle jobs of the backlog in sequence. Wait while it is empty."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (this is a coroutine)
        loop = asyncio.get_running_loop()
        while True:
            while self._backlog:
                lease = self._backlog.popleft()
                if lease not in self._held:
                    continue  # Its lease was lost in the backlog.
                self._held[lease] = task
                if self._backlog and not self._spawn_planned:
                    self._spawn_planned = True
                    loop.call_soon(self._spawn_for_backlog)
                self._finish(lease, await self._verdict_of(lease))
                while task.cancelling():
                    task.uncancel()  # The cancellation was of this job.
            if self._closed:
                return
            idle = loop.create_future()
            self._idle.append(idle)
            await idle

    async def _verdict_of(self, lease: Lease) -> Verdict:
        """Return the handler's verdict, or the verdict for its exception."""
        try:
            verdict: object = await self._handle(lease)
            if not isinstance(verdict, Verdict):
                raise TypeError(f"a handler returned {verdict!r}, which is no verdict")  # noqa: TRY301
            return verdict
        except asyncio.CancelledError:
            return self._stopped(lease)
        except LeaseLostError as error:
            logger.warning("%s", error)
            # If the queue holds the job as uncertain, this resolves it. Otherwise the verdict is stale.
            return Release()
        except Exception as error:
            if lease.marked:
                logger.exception("job %s failed after its mark: uncertain", lease.job.id)
                return Uncertain(cause="handler")
            if lease.unmarkable:
                return Release()
            logger.exception("job %s failed", lease.job.id)
            return Retry(cause="handler", error=repr(error))

    @staticmethod
    def _stopped(lease: Lease) -> Verdict:
        return Uncertain(cause="stopped") if lease.marked else Release()

    def _finish(self, lease: Lease, verdict: Verdict) -> None:
        """Free the job's slot and add its outcome to ``outbox``."""
        if lease in self._held:
            del self._held[lease]
            lease.revoke()
            self.outbox.append(JobOutcome(lease.job, verdict, lease.marked))
            if not self._held:
                self._empty.set()
            if not self._held or len(self.outbox) >= self._flush_threshold:
                self.flush_ready.set()
        self.outcome_ready.set()

    def _cancel_lost(self, lease: Lease) -> None:
        """Cancel a job before its act: another worker may have claimed it."""
        running = self._held.get(lease)
        self._finish(lease, Release())
        if running is not None:
            logger.warning("the lease of job %s was lost before its mark", lease.job.id)
            running.cancel()


async def _wait(tasks: Collection[asyncio.Task[None]], at_most_s: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=at_most_s)

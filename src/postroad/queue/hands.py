"""The jobs in a worker's hands: prepared, handled, renewed, drained. Their outcomes go to an outbox."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from postroad.errors import UnavailableError
from postroad.queue.backoff import Backoff
from postroad.queue.jobs import ClaimedJob
from postroad.queue.lease import Lease, LeaseLostError, MarkBatcher
from postroad.queue.queue import Queue
from postroad.queue.verdicts import Release, Retry, Uncertain, Verdict

logger = logging.getLogger(__name__)

Handle = Callable[[Lease], Awaitable[Verdict]]
Prepare = Callable[[Sequence[ClaimedJob]], Awaitable[Mapping[str, Verdict]]]

STUBBORN_S = 1.0
"""How long a handler that was cancelled may still take."""


class JobOutcome(NamedTuple):
    """A verdict to be settled, and whether the job had been marked."""

    job: ClaimedJob
    verdict: Verdict
    marked: bool


class Hands:
    """Everything a worker holds. ``outbox`` collects outcomes; ``news`` is set whenever there is one.

    A hand is a task that handles one job after the other: with a task for each job, a job that has little to do would
    cost more for its task than for itself. So what a handler leaves in a context variable, a later job may find.
    """

    def __init__(
        self, queue: Queue, handle: Handle, prepare: Prepare | None, lease_ms: int, backoff: Backoff, enough: int = 1
    ) -> None:
        """``enough``: outcomes that are plenty."""
        self.outbox: list[JobOutcome] = []
        self.news = asyncio.Event()
        self.plenty = asyncio.Event()
        """Nobody need wait for more outcomes: there are many, or none is to come."""
        self._enough = enough
        self.paused_until_s = 0.0
        """No new jobs before this instant of the loop's clock: preparing them fails."""
        self._queue = queue
        self._handle = handle
        self._prepare = prepare
        self._lease_ms = lease_ms
        self._backoff = backoff
        self._marker = MarkBatcher(queue)
        # By lease: a job may come back under a new one while an old handler is still on its way out. With the hand.
        self._held: dict[Lease, asyncio.Task[None] | None] = {}
        self._empty = asyncio.Event()
        self._preparing: set[asyncio.Task[None]] = set()
        self._todo: deque[Lease] = deque()
        self._hands: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._calling = False
        self._closed = False

    def __len__(self) -> int:
        return len(self._held)

    def accept(self, jobs: Sequence[ClaimedJob]) -> None:
        """Prepare these jobs together, then handle each."""
        leases = [Lease(job, self._marker) for job in jobs]
        self._held.update(dict.fromkeys(leases))
        if self._prepare is None:
            self._start(leases)
            return
        task = asyncio.create_task(self._prepare_batch(self._prepare, leases))
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)

    def take_outcomes(self) -> list[JobOutcome]:
        """Empty the outbox."""
        outcomes, self.outbox = self.outbox, []
        self.plenty.clear()
        return outcomes

    def give_back(self, jobs: Iterable[ClaimedJob]) -> None:
        """Release jobs that were never started."""
        self.outbox += [JobOutcome(job, Release(), False) for job in jobs]
        self.news.set()

    async def renew(self) -> None:
        """Keep every lease alive, for as long as this runs."""
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            await self.renew_now()

    async def renew_now(self) -> None:
        leases = list(self._held)
        if not leases:
            return
        try:
            ours = await self._queue.extend([lease.job for lease in leases], self._lease_ms)
        except Exception as error:
            # Whoever settles has the same trouble and says so; a lease that ran out refuses its mark.
            logger.debug("leases could not be renewed: %s", error)
            return
        for lease, held in zip(leases, ours, strict=True):
            # A marked job that ran out is held as uncertain: its outcome is still wanted.
            if not held and not lease.marked:
                self._abandon(lease)

    async def drain(self, drain_s: float) -> None:
        """Cancel and release what is not marked, wait for what is, and be empty in the end."""
        for task in self._preparing:
            task.cancel()
        for lease, running in self._held.items():
            if not lease.marked:
                lease.revoke()
                if running is not None:
                    running.cancel()
        while self._todo:
            self._conclude(self._todo.popleft(), Release())
        await self._until_empty(drain_s)
        for hand in self._held.values():
            if hand is not None:
                hand.cancel()
        await self._until_empty(STUBBORN_S)
        for lease in list(self._held):
            # It was cancelled before it began, or it will not end.
            self._conclude(lease, self._stopped(lease))

    async def aclose(self) -> None:
        """Cancel whatever still runs; nothing is concluded any more."""
        tasks = [*self._preparing, *self._hands]
        for lease in self._held:
            lease.revoke()
        self._held.clear()
        self._todo.clear()
        self._closed = True
        for task in tasks:
            task.cancel()
        await _wait(tasks, STUBBORN_S)
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
            # That a server is away is news, and no fault whose place in the code anybody wants to see.
            fault = None if isinstance(error, UnavailableError) else error
            logger.warning("preparing %d jobs failed; they are released: %s", len(jobs), error, exc_info=fault)
            self.paused_until_s = asyncio.get_running_loop().time() + self._backoff.next_s()
            verdicts = {job.id: Release() for job in jobs}
        else:
            self._backoff.reset()
        for lease in leases:
            if lease.job.id in verdicts:
                self._conclude(lease, verdicts[lease.job.id])
        # A lease may have been lost while its batch was being prepared.
        self._start([lease for lease in leases if lease.job.id not in verdicts and lease in self._held])

    def _start(self, leases: Sequence[Lease]) -> None:
        self._todo += leases
        self._call_hands(1)

    def _call_hands(self, hands: int) -> None:
        for _ in range(hands):
            if self._idle:
                self._idle.pop().set_result(None)
            else:
                hand = asyncio.create_task(self._work(), name="hand")
                self._hands.add(hand)
                hand.add_done_callback(self._hands.discard)

    def _call_for_the_rest(self) -> None:
        """A job takes its time: everything that was not begun meanwhile gets a hand of its own, at once."""
        self._calling = False
        self._call_hands(len(self._todo))

    async def _work(self) -> None:
        """What a hand does: take what is to be done, and wait when there is nothing."""
        hand = asyncio.current_task()
        assert hand is not None  # noqa: S101  (this is a coroutine)
        loop = asyncio.get_running_loop()
        while True:
            while self._todo:
                lease = self._todo.popleft()
                if lease not in self._held:
                    continue  # It was lost while it waited.
                self._held[lease] = hand
                if self._todo and not self._calling:
                    self._calling = True
                    loop.call_soon(self._call_for_the_rest)
                self._conclude(lease, await self._verdict_of(lease))
                while hand.cancelling():
                    hand.uncancel()  # That was meant for this job.
            if self._closed:
                return
            idle = loop.create_future()
            self._idle.append(idle)
            await idle

    async def _verdict_of(self, lease: Lease) -> Verdict:
        """The handler's verdict, or what its failure means."""
        try:
            verdict: object = await self._handle(lease)
            if not isinstance(verdict, Verdict):
                raise TypeError(f"a handler returned {verdict!r}, which is no verdict")  # noqa: TRY301
            return verdict
        except asyncio.CancelledError:
            return self._stopped(lease)
        except LeaseLostError as error:
            logger.warning("%s", error)
            # Should the queue hold it as uncertain, it now hears that nothing happened; else this is stale.
            return Release()
        except Exception as error:
            if lease.marked:
                logger.exception("job %s failed behind its mark: uncertain", lease.job.id)
                return Uncertain(cause="handler")
            if lease.unmarkable:
                return Release()
            logger.exception("job %s failed", lease.job.id)
            return Retry(cause="handler", error=repr(error))

    @staticmethod
    def _stopped(lease: Lease) -> Verdict:
        return Uncertain(cause="stopped") if lease.marked else Release()

    def _conclude(self, lease: Lease, verdict: Verdict) -> None:
        """Free the job's slot."""
        if lease in self._held:
            del self._held[lease]
            lease.revoke()
            self.outbox.append(JobOutcome(lease.job, verdict, lease.marked))
            if not self._held:
                self._empty.set()
            if not self._held or len(self.outbox) >= self._enough:
                self.plenty.set()
        self.news.set()

    def _abandon(self, lease: Lease) -> None:
        """Somebody else may have the job by now: stop before the act."""
        hand = self._held.get(lease)
        self._conclude(lease, Release())
        if hand is not None:
            logger.warning("the lease of job %s was lost before its mark", lease.job.id)
            hand.cancel()


async def _wait(tasks: Collection[asyncio.Task[None]], at_most_s: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=at_most_s)

"""A worker: claims into free slots, has each job handled, settles, and gives the rest back at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from contextlib import suppress
from random import Random
from typing import NamedTuple
from uuid import uuid4

from msgspec import Struct

from postroad.clock import Clock, SystemClock
from postroad.errors import UnavailableError
from postroad.queue.backoff import Backoff
from postroad.queue.hands import Handle, Hands, JobOutcome, Prepare
from postroad.queue.jobs import Batch, SettleResult
from postroad.queue.queue import Queue
from postroad.queue.verdicts import Done, Release, Uncertain
from postroad.queue.watchdog import Watchdog

logger = logging.getLogger(__name__)

IDLE_MS = 100
"""How often an idle worker asks."""

LINGER_S = 0.02
"""How long a verdict waits for company, for enough of them, while other handlers are running."""

GATHER_S = 0.02
"""How long a free slot waits for company while most are taken: what is claimed together is admitted together."""

GATHER_SHARE = 4
"""A busy worker asks when one in so many of its slots is free, or one has waited for that long."""

CONVERSATIONS = 2
"""Calls under way at once: while the server works on one, the jobs that came with the other are handled."""

FULL_CALL = 50
"""Jobs that are worth a call: with so many, the slots are shared between conversations."""

LAST_WORDS_S = 2.0
"""What is left for settling when the handlers used up the whole drain."""


class WorkerReport(Struct, frozen=True, kw_only=True):
    """What one run did. ``unsettled``: outcomes that the server could not be told in time."""

    claimed: int
    settled: dict[str, int]
    stale: int
    unsettled: int


class _Call(NamedTuple):
    """One settle-and-claim. It is repeated word for word until it is answered."""

    nonce: str
    outcomes: list[JobOutcome]
    want: int


class Worker:
    """Runs ``handle`` for up to ``concurrency`` jobs at once, until told to stop. Good for one `run`.

    ``prepare`` sees every claimed batch before any handler; the ids it returns a verdict for are settled
    with that and not handled. If it fails, its batch is released and no other is claimed for a while.
    ``watchdog_ms``: with jobs ready and no claim for so long, it connects anew.
    ``drain_ms``: how long marked jobs may go on after stop. ``idle_ms``: how often it asks when there is nothing.
    All three are real time, whatever ``clock``, the queue's, says. ``name`` must be this worker's alone.
    """

    def __init__(
        self,
        queue: Queue,
        handle: Handle,
        *,
        concurrency: int = 10,
        lease_ms: int = 60_000,
        prepare: Prepare | None = None,
        name: str | None = None,
        clock: Clock | None = None,
        drain_ms: int = 20_000,
        rng: Random | None = None,
        watchdog_ms: int = 30_000,
        idle_ms: int = IDLE_MS,
    ) -> None:
        self.next_ms: int | None = None
        """When, by the queue's clock, there may be something to claim, as the last claim that found nothing said."""
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._queue = queue
        self._concurrency = concurrency
        self._lease_ms = lease_ms
        self._drain_s = drain_ms / 1000
        self._idle_s = idle_ms / 1000
        self._clock = clock or SystemClock()
        rng = rng or Random()  # noqa: S311 - it spreads delays
        backoff = Backoff(rng, first_s=0.5, most_s=30.0)
        self._hands = Hands(queue, handle, prepare, lease_ms, backoff, enough=-(-concurrency // GATHER_SHARE))
        self._away = Backoff(rng, first_s=0.1, most_s=5.0)
        self._empty = Backoff(rng, first_s=0.001, most_s=self._idle_s)
        self._watchdog = Watchdog(queue, self.name, watchdog_ms)
        self._calling = 0  # calls under way, and the slots that they ask jobs for
        self._wanted = 0
        self._more = False  # whether the last claim left jobs that could be had
        self._drained = asyncio.Event()
        self._ask_at_s = 0.0
        self._asked_s = float("-inf")  # when jobs were last claimed
        self._give_up_at_s = float("inf")
        self._counts: Counter[str] = Counter()
        self._claimed = self._stale = 0
        self._events_full = False

    async def run(self, stop: asyncio.Event) -> WorkerReport:
        """Work until ``stop``; then take no more, drain, settle everything, and say what was done."""
        beside = [
            asyncio.create_task(self._hands.renew()),
            asyncio.create_task(self._drain_on(stop)),
        ]
        try:
            async with self._watchdog.watching(lambda: self._asks(stop)), asyncio.TaskGroup() as group:
                # What the server remembers of the last call, it remembers by this name.
                names = [f"{self.name}/{n}" for n in range(CONVERSATIONS)]
                conversations = [group.create_task(self._converse(name, stop)) for name in names]
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self._hands.aclose()
        unsettled = sum(conversation.result() for conversation in conversations) + len(self._hands.outbox)
        return WorkerReport(claimed=self._claimed, settled=dict(self._counts), stale=self._stale, unsettled=unsettled)

    async def _converse(self, name: str, stop: asyncio.Event) -> int:
        """Settle and claim until all is drained. Returns how many outcomes it could not tell."""
        while not (self._drained.is_set() and not self._hands.outbox):
            call = self._next_call(stopping=stop.is_set())
            if call is None:
                await self._wait_for_news(stopping=stop.is_set())
                continue
            settled = await self._send(name, call)
            if settled is None:
                return len(call.outcomes)
            late = self._receive(call, settled, stopping=stop.is_set())
            if not await self._report(late):
                return len(late)
        return 0

    def _asks(self, stop: asyncio.Event) -> bool:
        """Whether it would take jobs now."""
        return not stop.is_set() and len(self._hands) < self._concurrency and _now_s() >= self._hands.paused_until_s

    def _next_call(self, *, stopping: bool) -> _Call | None:
        now_s = _now_s()
        want = min(self._free, max(self._concurrency // CONVERSATIONS, FULL_CALL))
        if stopping or now_s < max(self._hands.paused_until_s, self._gather_until_s()):
            want = 0
        if not self._hands.outbox and (want == 0 or now_s < self._ask_at_s):
            return None
        # Beside another call, only what is worth one of its own.
        if self._calling and not (self._many(len(self._hands.outbox)) or (self._more and self._many(want))):
            return None
        outcomes = self._hands.take_outcomes()
        return _Call(uuid4().hex, outcomes, want)

    @property
    def _free(self) -> int:
        """Slots that neither hold a job nor are being asked one for."""
        return max(self._concurrency - len(self._hands) - self._wanted, 0)

    def _many(self, jobs: int) -> bool:
        return jobs * GATHER_SHARE >= self._concurrency

    def _gather_until_s(self) -> float:
        """Not before this instant does it ask for jobs: its hands are nearly full of the last ones."""
        return 0.0 if self._many(self._free) else self._asked_s + GATHER_S

    async def _wait_for_news(self, *, stopping: bool) -> None:
        """Until a verdict arrives, or until asking for jobs is worth it; in any case not long."""
        wait_s = max(self._ask_at_s, self._hands.paused_until_s, self._gather_until_s()) - _now_s()
        if stopping or not self._free or self._calling or wait_s > self._idle_s:
            wait_s = self._idle_s
        news = self._hands.news
        try:
            async with asyncio.timeout(max(wait_s, 0.001)):
                await news.wait()
        except TimeoutError:
            pass
        else:
            if self._hands.outbox and len(self._hands) and not self._many(len(self._hands.outbox)):
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        await self._hands.plenty.wait()
        news.clear()

    async def _send(self, name: str, call: _Call) -> SettleResult | None:
        """Send until there is an answer; None: not before the drain was over."""
        self._calling += 1
        self._wanted += call.want
        try:
            return await self._send_until_answered(name, call)
        finally:
            self._calling -= 1
            self._wanted -= call.want

    async def _send_until_answered(self, name: str, call: _Call) -> SettleResult | None:
        verdicts = [(outcome.job, outcome.verdict) for outcome in call.outcomes]
        while True:
            try:
                settled = await self._queue.settle(
                    name, verdicts, want=call.want, lease_ms=self._lease_ms, nonce=call.nonce
                )
            except Exception as error:
                if not await self._wait_for_server(error):
                    return None
                # The claim in this call reaps leases that ran out while the server was away: ours first.
                await self._hands.renew_now()
            else:
                if self._away.reset():
                    logger.info("%s: the queue is back", self.name)
                return settled

    def _receive(self, call: _Call, settled: SettleResult, *, stopping: bool) -> list[JobOutcome]:
        """Take the jobs in hand. Returns what settled stale and has to be told all the same."""
        stale, verdicts, late = set(settled.stale), [], []
        for outcome in call.outcomes:
            if outcome.job.id not in stale:
                verdicts.append(type(outcome.verdict).__name__.lower())
            elif isinstance(outcome.verdict, Done) or (
                outcome.marked and not isinstance(outcome.verdict, Release | Uncertain)
            ):
                # The queue has given the job away or lost it, and yet this is what happened.
                late.append(outcome)
        self._counts.update(verdicts)
        self._stale += len(stale)
        batch = settled.batch
        self._claimed += len(batch.jobs)
        if call.want:
            self.next_ms = batch.next_ms
        if batch.jobs:
            self._asked_s = _now_s()
            self._watchdog.fed()
        if self._queue.metrics:
            self._queue.metrics.worked(self._queue.name, claimed=len(batch.jobs), settled=verdicts, stale=len(stale))
        if batch.events_full != self._events_full:
            self._events_full = batch.events_full
            if batch.events_full:
                logger.error("%s: nothing is claimed, because too many events wait to be recorded", self.name)
            else:
                logger.info("%s: events are recorded again; claiming goes on", self.name)
        if call.want:
            self._ask_at_s, self._more = _now_s() + self._pause_s(batch), batch.more
            self._hands.news.set()  # The other conversation may now have something to ask.
        if batch.jobs and stopping:
            self._hands.give_back(batch.jobs)
        elif batch.jobs:
            self._hands.accept(batch.jobs)
        return late

    def _pause_s(self, batch: Batch) -> float:
        until_next_s = self._idle_s
        if batch.next_ms is not None:
            until_next_s = min((batch.next_ms - self._clock.now_ms()) / 1000, self._idle_s)
        if batch.jobs:
            self._empty.reset()
            return max(until_next_s, 0.0)
        if batch.more:
            return 0.0
        # A clock that runs ahead of the server's must not make an idle worker spin.
        return max(until_next_s, self._empty.next_s())

    async def _report(self, late: list[JobOutcome]) -> bool:
        """Tell what settled stale, and empty the list; False: not before the drain was over."""
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
        """Wait a while, longer each time; False when there is no time left to wait."""
        if not self._away.failures:
            logger.warning("%s: the queue is away; going on when it is back: %s", self.name, error)
        if not isinstance(error, UnavailableError):
            logger.error("%s: the queue refused a call", self.name, exc_info=error)
        left_s = self._give_up_at_s - _now_s()
        if left_s <= 0:
            logger.error("%s: stopped with outcomes that the queue could not be told", self.name)
            return False
        await asyncio.sleep(min(self._away.next_s(), left_s))
        return True

    async def _drain_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._give_up_at_s = _now_s() + self._drain_s
        self._hands.news.set()
        await self._hands.drain(self._drain_s)
        self._give_up_at_s = max(self._give_up_at_s, _now_s() + LAST_WORDS_S)
        self._drained.set()
        self._hands.news.set()


def _now_s() -> float:
    return asyncio.get_running_loop().time()

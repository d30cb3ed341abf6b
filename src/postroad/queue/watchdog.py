"""Detects a worker that is idle while jobs are ready, and reconnects it.

This happens if a connection survives a failover: the old server still replies, and has no jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from postroad.queue.queue import Queue
from postroad.queue.stats import STEPPED_BACK_MS, QueueStats

logger = logging.getLogger(__name__)

FINAL_CHECK_S = 1.0
"""Time that a check has to end when its worker ends."""


class Watchdog:
    """Watches one worker, which calls ``claimed`` after each claim that returned jobs."""

    def __init__(self, queue: Queue, name: str, after_ms: int) -> None:
        self.trips = 0
        self._queue = queue
        self._name = name
        self._after_s = after_ms / 1000
        self._claimed = False

    def claimed(self) -> None:
        """Note that the worker claimed jobs."""
        self._claimed = True

    @asynccontextmanager
    async def watching(self, keeps_claiming: Callable[[], bool]) -> AsyncIterator[None]:
        """Check periodically while this is open.

        Args:
            keeps_claiming: Returns whether the worker would claim a job now.
        """
        over = asyncio.Event()
        task = asyncio.create_task(self._check(keeps_claiming, over))
        try:
            yield
        finally:
            over.set()
            # Not cancelled at once: redis-py never closes a connection that is cancelled while it is made.
            await asyncio.wait([task], timeout=FINAL_CHECK_S)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _check(self, keeps_claiming: Callable[[], bool], over: asyncio.Event) -> None:
        starved_checks = 0
        stepped_back_ms: int | None = None
        while not over.is_set():
            self._claimed = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._after_s / 2):
                    await over.wait()
                    return
            stats = await self._probe()
            if stats is None:
                starved_checks = 0
                continue
            stepped_back_ms = self._compare_clock(stats, stepped_back_ms)
            ready = stats.ready_lanes > 0 and not self._queue.events_backlogged(stats)
            starved = not self._claimed and keeps_claiming() and ready
            starved_checks = starved_checks + 1 if starved and not self._claimed else 0
            # Once may be chance: other workers claimed the jobs. Twice in a row is not.
            if starved_checks == 2:
                starved_checks = 0
                await self._trip()

    async def _probe(self) -> QueueStats | None:
        try:
            return await self._queue.probe()
        except Exception as error:
            # The worker's next call fails in the same way and logs it.
            logger.debug("%s: the watchdog cannot check: %s", self._name, error)
            return None

    def _compare_clock(self, stats: QueueStats, before_ms: int | None) -> int:
        """Log that the server's clock stepped back since the last check. Returns the total, in ms."""
        now_ms = stats.counters.get(STEPPED_BACK_MS, 0)
        if before_ms is not None and now_ms > before_ms:
            logger.error(
                "%s: the clock of the queue's server stepped back by %g s; limits, pauses and leases follow it",
                self._name,
                (now_ms - before_ms) / 1000,
            )
        return now_ms

    async def _trip(self) -> None:
        self.trips += 1
        if self._queue.metrics:
            self._queue.metrics.watchdog_tripped(self._queue.name)
        logger.error("%s: jobs are ready and none was claimed for %g s; reconnecting", self._name, self._after_s)
        await self._queue.reconnect()

"""A worker that is alive and idle while jobs are ready: noticed, said, and connected anew.

It happens when a connection outlives its server's role, as after a failover: the old server answers, and has nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from postroad.queue.queue import Queue
from postroad.queue.standing import STEPPED_BACK_MS, QueueStats

logger = logging.getLogger(__name__)

LAST_LOOK_S = 1.0
"""How long a look may go on when its worker ends."""


class Watchdog:
    """Looks after one worker. ``fed`` is called whenever it claims something."""

    def __init__(self, queue: Queue, name: str, after_ms: int) -> None:
        self.trips = 0
        self._queue = queue
        self._name = name
        self._after_s = after_ms / 1000
        self._fed = False

    def fed(self) -> None:
        self._fed = True

    @asynccontextmanager
    async def watching(self, asks: Callable[[], bool]) -> AsyncIterator[None]:
        """Look from time to time. ``asks``: whether the worker wants jobs now."""
        over = asyncio.Event()
        task = asyncio.create_task(self._look(asks, over))
        try:
            yield
        finally:
            over.set()
            # Let a look end by itself: a connection that is cancelled while it is made is never closed by redis-py.
            await asyncio.wait([task], timeout=LAST_LOOK_S)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look(self, asks: Callable[[], bool], over: asyncio.Event) -> None:
        hungry_looks = 0
        stepped_back_ms: int | None = None
        while not over.is_set():
            self._fed = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._after_s / 2):
                    await over.wait()
                    return
            stats = await self._probe()
            if stats is None:
                hungry_looks = 0
                continue
            stepped_back_ms = self._compare_clock(stats, stepped_back_ms)
            ready = stats.ready_lanes > 0 and not self._queue.events_backlogged(stats)
            hungry = not self._fed and asks() and ready
            hungry_looks = hungry_looks + 1 if hungry and not self._fed else 0
            # Once may be chance: others took what was ready. Twice in a row, with no claim between, is not.
            if hungry_looks == 2:
                hungry_looks = 0
                await self._trip()

    async def _probe(self) -> QueueStats | None:
        try:
            return await self._queue.probe()
        except Exception as error:
            # Whoever claims has the same trouble and says so.
            logger.debug("%s: the watchdog cannot look: %s", self._name, error)
            return None

    def _compare_clock(self, stats: QueueStats, before_ms: int | None) -> int:
        """Log that the server's clock stepped back since the last look. Returns how far it has in all, ms."""
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
        logger.error("%s: jobs are ready and none was claimed for %g s; connecting anew", self._name, self._after_s)
        await self._queue.reconnect()

"""Clocks that change only when a test advances them."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime

from tests.kit.waiting import until

START_MS = 1_790_000_000_000


class FakeClock:
    """A clock that only changes when it is advanced. A sleep advances it, and takes no time."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self._now_ms = now_ms

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._now_ms / 1000, UTC)

    def now_ms(self) -> int:
        return self._now_ms

    async def sleep(self, seconds: float) -> None:
        self.advance(round(seconds * 1000))

    def advance(self, ms: int) -> None:
        self._now_ms += ms


class SleepingClock(FakeClock):
    """A clock whose sleepers wait until it is advanced to their time."""

    def __init__(self, now_ms: int = START_MS) -> None:
        super().__init__(now_ms)
        self._order = itertools.count()
        self._sleepers: dict[int, tuple[int, float, asyncio.Future[None]]] = {}

    async def sleep(self, seconds: float) -> None:
        number, future = next(self._order), asyncio.get_running_loop().create_future()
        self._sleepers[number] = (self._now_ms + round(seconds * 1000), seconds, future)
        try:
            await future
        finally:
            del self._sleepers[number]

    def advance(self, ms: int) -> None:
        super().advance(ms)
        for until_ms, _, future in self._sleepers.values():
            if until_ms <= self._now_ms and not future.done():
                future.set_result(None)

    async def asked_for(self, seconds: float) -> None:
        """Return once a task sleeps for this long."""
        await until(lambda: any(asked == seconds and not f.done() for _, asked, f in self._sleepers.values()))

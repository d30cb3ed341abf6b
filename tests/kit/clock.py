"""A clock that moves only when a test advances it."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from typing import NamedTuple

from tests.kit.waiting import until

START_MS = 1_790_000_000_000


class _Sleeper(NamedTuple):
    until_ms: int
    seconds: float
    wake: asyncio.Future[None]


class FakeClock:
    """A clock that changes only when it is advanced. A sleep advances it by its duration, so that it never waits."""

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


class WaitingClock(FakeClock):
    """A fake clock whose sleeps wait until it is advanced far enough."""

    def __init__(self, now_ms: int = START_MS) -> None:
        super().__init__(now_ms)
        self._order = itertools.count()
        self._sleepers: dict[int, _Sleeper] = {}

    async def sleep(self, seconds: float) -> None:
        number, wake = next(self._order), asyncio.get_running_loop().create_future()
        self._sleepers[number] = _Sleeper(self._now_ms + round(seconds * 1000), seconds, wake)
        if seconds <= 0:
            wake.set_result(None)
        try:
            await wake
        finally:
            del self._sleepers[number]

    def advance(self, ms: int) -> None:
        super().advance(ms)
        for sleeper in self._sleepers.values():
            if sleeper.until_ms <= self._now_ms and not sleeper.wake.done():
                sleeper.wake.set_result(None)

    async def until_sleeping(self, seconds: float) -> None:
        """Return once a task sleeps for exactly this long."""
        await until(lambda: any(sleeper.seconds == seconds for sleeper in self._sleepers.values()))

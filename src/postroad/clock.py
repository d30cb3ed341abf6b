"""Clocks, which are passed as arguments. Times are aware datetimes in UTC; the queue uses integers in ms."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import NamedTuple, Protocol


class Clock(Protocol):
    """Interface of a clock, so that tests can use a fake clock."""

    def now(self) -> datetime:
        """Return the current time in UTC."""
        ...

    def now_ms(self) -> int:
        """Return the current time in ms since the epoch."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for this many seconds of the clock."""
        ...


class SystemClock:
    """The system's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


MIN_SLEEP_S = 0.0005
"""Shortest sleep in real time, so that polling a clock that has stopped at its limit does not block the event loop."""


class _ClockState(NamedTuple):
    """Time of the clock at a real time, its speed since then, and the time at which it stops."""

    at_ms: float
    real_s: float
    speed: float
    until_ms: float


class ScaledClock:
    """A clock with a start time and an adjustable speed. It exists only within its process."""

    def __init__(self, start: datetime, speed: float = 1.0, *, real_s: Callable[[], float] = time.monotonic) -> None:
        """Start the clock.

        Args:
            start: Time at which it begins.
            speed: Seconds of the clock in a real second.
            real_s: Function that returns the real time in seconds.
        """
        self.speed = speed
        """Seconds of the clock in a real second, while it is not paused."""
        self._real_s = real_s
        # Replaced atomically, because threads read it too.
        self._state = _ClockState(start.timestamp() * 1000, real_s(), speed, math.inf)
        self._pauses = 0
        self._changed = asyncio.Event()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._now_ms() / 1000, UTC)

    def now_ms(self) -> int:
        return int(self._now_ms())

    def set_speed(self, speed: float, until_ms: float = math.inf) -> None:
        """Change the speed. Sleepers still wake at the time of the clock that they wait for.

        Args:
            speed: Seconds of the clock in a real second.
            until_ms: Time at which the clock stops until the next call, in ms since the epoch.
        """
        self.speed = speed
        self._set(until_ms)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock inside the context."""
        self._pauses += 1
        self._set(self._state.until_ms)
        try:
            yield
        finally:
            self._pauses -= 1
            self._set(self._state.until_ms)

    async def sleep(self, seconds: float) -> None:
        until_ms = self._now_ms() + seconds * 1000
        while (left_ms := until_ms - self._now_ms()) > 0:
            speed, changed = self._state.speed, self._changed
            with suppress(TimeoutError):
                async with asyncio.timeout(max(left_ms / 1000 / speed, MIN_SLEEP_S) if speed else None):
                    await changed.wait()

    def _now_ms(self) -> float:
        state = self._state
        now_ms = state.at_ms + (self._real_s() - state.real_s) * 1000 * state.speed
        return max(state.at_ms, min(now_ms, state.until_ms))

    def _set(self, until_ms: float) -> None:
        self._state = _ClockState(self._now_ms(), self._real_s(), 0.0 if self._pauses else self.speed, until_ms)
        self._changed.set()
        self._changed = asyncio.Event()

"""Time as an argument. Instants are aware datetimes in UTC; queue instants are integers of milliseconds."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import NamedTuple, Protocol


class Clock(Protocol):
    """What code that depends on time is given, so that a test can turn it by hand."""

    def now(self) -> datetime:
        """Return this instant, in UTC."""
        ...

    def now_ms(self) -> int:
        """Return this instant, in milliseconds since the epoch."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once this many seconds have passed."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


LEAST_SLEEP_S = 0.0005
"""In real time: looking at a clock that stands at its limit again and again would keep everybody else from the loop."""


class _Hand(NamedTuple):
    """Where the clock stood when, and how fast it has run since."""

    at_ms: float
    real_s: float
    speed: float
    until_ms: float


class ScaledClock:
    """A clock that begins at an instant and runs so many times faster than ``real_s``; its speed may be changed.

    It is one process's alone: whoever is to go by it must be given it.
    """

    def __init__(self, start: datetime, speed: float = 1.0, *, real_s: Callable[[], float] = time.monotonic) -> None:
        self.speed = speed
        """Seconds that pass on it in a real one, while it is not held."""
        self._real_s = real_s
        # Replaced as one, because threads read it too.
        self._hand = _Hand(start.timestamp() * 1000, real_s(), speed, math.inf)
        self._held = 0
        self._turned = asyncio.Event()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._now_ms() / 1000, UTC)

    def now_ms(self) -> int:
        return int(self._now_ms())

    def turn(self, speed: float, until_ms: float = math.inf) -> None:
        """Run at another speed from now on, and stand still at an instant, until it is turned again.

        Whoever sleeps sleeps until the instant that was meant.
        """
        self.speed = speed
        self._set(until_ms)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let it stand still: what is done inside takes no time on it."""
        self._held += 1
        self._set(self._hand.until_ms)
        try:
            yield
        finally:
            self._held -= 1
            self._set(self._hand.until_ms)

    async def sleep(self, seconds: float) -> None:
        until_ms = self._now_ms() + seconds * 1000
        while (left_ms := until_ms - self._now_ms()) > 0:
            speed, turned = self._hand.speed, self._turned
            with suppress(TimeoutError):
                async with asyncio.timeout(max(left_ms / 1000 / speed, LEAST_SLEEP_S) if speed else None):
                    await turned.wait()

    def _now_ms(self) -> float:
        hand = self._hand
        passed_ms = hand.at_ms + (self._real_s() - hand.real_s) * 1000 * hand.speed
        return max(hand.at_ms, min(passed_ms, hand.until_ms))

    def _set(self, until_ms: float) -> None:
        self._hand = _Hand(self._now_ms(), self._real_s(), 0.0 if self._held else self.speed, until_ms)
        self._turned.set()
        self._turned = asyncio.Event()

"""Time as an argument. Instants are aware datetimes in UTC; queue instants are integers of milliseconds."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


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

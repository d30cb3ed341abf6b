"""The plan: how a daily cap grows while a sender is healthy. Pure functions. No cap ever exceeds its plan."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from math import sqrt
from typing import assert_never

from msgspec import Struct

from postroad.settings.warmup import Preset, WarmupSettings

FIRST = 50
LINEAR_FIRST, LINEAR_CEILING = 10, 40
BEND = 20_000
"""Messages a day at which the curve has lost half of its growth."""
GROWTH, GOOGLE_GROWTH = 2.0, 1.5
"""Largest daily growth factor of the curve. Google watches new senders longest."""

SENDGRID = (50, 100, 500, 1_000, 5_000)
SPARKPOST = (200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
"""Both double each day after their last cap."""

MAX_CAP = 10**9
"""Largest possible cap. No sender sends as much to one provider."""


class Plan(Struct, frozen=True, kw_only=True):
    """How the cap of one identity grows at one mailbox provider, in messages a day."""

    first: int
    ceiling: int = MAX_CAP
    growth: float = GROWTH
    per_day: int = 0  # above 0: linear
    table: tuple[int, ...] = ()  # not empty: by the table, then twice as much each day

    def next_cap(self, cap: int) -> int:
        """Return the cap of the day after a healthy day that used up ``cap``. It never falls when ``cap`` grows."""
        return min(max(self._grown(cap), cap + 1), self.ceiling)

    def _grown(self, cap: int) -> int:
        if self.per_day:
            return cap + self.per_day
        if self.table:
            place = bisect_right(self.table, cap)
            return self.table[place] if place < len(self.table) else 2 * cap
        return round(cap * (1 + (self.growth - 1) / (1 + sqrt(cap / BEND))))

    def caps(self) -> Iterator[int]:
        """Yield each day's cap from the first day on, without end."""
        cap = self.first
        while True:
            yield cap
            cap = self.next_cap(cap)

    def on_day(self, number: int) -> int:
        """Return the cap of a day. The first day has number 0."""
        return next(islice(self.caps(), number, None))


def plan_for(settings: WarmupSettings, provider: str) -> Plan:
    """Return the plan of a sender's settings at a mailbox provider."""
    most = settings.ceiling or MAX_CAP
    match settings.preset:
        case Preset.CURVE:
            growth = GOOGLE_GROWTH if provider == "google" else GROWTH
            return Plan(first=min(settings.first or FIRST, most), ceiling=most, growth=growth)
        case Preset.LINEAR:
            most = settings.ceiling or LINEAR_CEILING
            return Plan(first=min(settings.first or LINEAR_FIRST, most), ceiling=most, per_day=settings.per_day)
        case Preset.SENDGRID:
            return Plan(first=min(SENDGRID[0], most), ceiling=most, table=SENDGRID)
        case Preset.SPARKPOST:
            return Plan(first=min(SPARKPOST[0], most), ceiling=most, table=SPARKPOST)
        case Preset.TABLE:
            most = min(most, settings.table[-1])
            return Plan(first=min(settings.table[0], most), ceiling=most, table=settings.table)
        case other:
            assert_never(other)

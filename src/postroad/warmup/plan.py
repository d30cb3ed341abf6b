"""The plan: how a daily cap grows when all goes well. Pure functions; nothing that happens moves a cap above it."""

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
"""Where the curve has lost half of its growth, in messages a day."""
GROWTH, GOOGLE_GROWTH = 2.0, 1.5
"""Most that the curve grows by in a day. Google watches new senders longest."""

SENDGRID = (50, 100, 500, 1_000, 5_000)
SPARKPOST = (200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
"""Both double behind their last cap."""

MOST = 10**9
"""No cap is above it: nobody sends as much to one provider."""


class Plan(Struct, frozen=True, kw_only=True):
    """How the cap of one identity grows at one mailbox provider, in messages a day."""

    first: int
    ceiling: int = MOST
    growth: float = GROWTH
    per_day: int = 0  # above 0: linear
    table: tuple[int, ...] = ()  # not empty: by the table, then twice as much each day

    def after(self, cap: int) -> int:
        """Cap of the day after one on which this was used up and all was well. Never falls when ``cap`` grows."""
        return min(max(self._grown(cap), cap + 1), self.ceiling)

    def _grown(self, cap: int) -> int:
        if self.per_day:
            return cap + self.per_day
        if self.table:
            place = bisect_right(self.table, cap)
            return self.table[place] if place < len(self.table) else 2 * cap
        return round(cap * (1 + (self.growth - 1) / (1 + sqrt(cap / BEND))))

    def caps(self) -> Iterator[int]:
        """Each day's cap from the first on, without end."""
        cap = self.first
        while True:
            yield cap
            cap = self.after(cap)

    def on_day(self, number: int) -> int:
        """Cap of a day, the first being 0."""
        return next(islice(self.caps(), number, None))


def plan_for(settings: WarmupSettings, provider: str) -> Plan:
    """Return the plan of a sender's settings at a mailbox provider."""
    most = settings.ceiling or MOST
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

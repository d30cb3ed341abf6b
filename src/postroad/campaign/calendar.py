"""When a touch is due: a time of day in the recipient's own zone, right on the days when clocks change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Self
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def due_at(after: datetime, at: time | None, zone: ZoneInfo) -> datetime:
    """Return the first instant, not before ``after``, at which a clock in the zone shows ``at``. None: ``after``.

    A time that the zone skips in spring is due as much later as the clocks jump; of one that comes twice in autumn the
    first is meant.
    """
    if at is None:
        return after.astimezone(UTC)
    day = after.astimezone(zone).date() - timedelta(days=1)
    while True:
        due = time_on(day, at, zone)
        if due >= after:
            return due
        day += timedelta(days=1)


def time_on(day: date, at: time, zone: ZoneInfo) -> datetime:
    """Return when a clock in the zone shows ``at`` on a day. Skipped and double times are as in `due_at`."""
    # fold=0 reads a skipped time with the offset from before the jump, and of two the first: PEP 495.
    return datetime.combine(day, at, tzinfo=zone).astimezone(UTC)


def add_days(after: datetime, days: int, zone: ZoneInfo) -> datetime:
    """Return the same time of day in the zone, so many days later. No day: ``after`` itself."""
    if not days:
        return after.astimezone(UTC)
    shown = after.astimezone(zone)
    return time_on(shown.date() + timedelta(days=days), shown.time(), zone)


@dataclass(frozen=True, kw_only=True)
class Window:
    """The hours in which a campaign may send, by the clock of each recipient. ``days``: 0 is Monday.

    ``end`` 00:00: midnight, at which the day ends.
    """

    start: time
    end: time
    days: frozenset[int]

    @classmethod
    def of(cls, kept: Mapping[str, Any] | None) -> Self | None:
        """Read what is kept of a window in the campaign table."""
        if kept is None:
            return None
        days = frozenset(DAYS.index(day) for day in kept["days"])
        return cls(start=time.fromisoformat(kept["from"]), end=time.fromisoformat(kept["to"]), days=days)

    def opens(self, after: datetime, zone: ZoneInfo) -> datetime:
        """Return the first instant, not before ``after``, at which the window is open. It is ``after`` if it is now."""
        day = after.astimezone(zone).date() - timedelta(days=1)
        while True:
            if day.weekday() in self.days:
                opens = datetime.combine(day, self.start, tzinfo=zone).astimezone(UTC)
                # A clock that jumps over the end closes the window where it jumps.
                last = day + timedelta(days=1) if self.end == time() else day
                closes = datetime.combine(last, self.end, tzinfo=zone).astimezone(UTC)
                if max(opens, after) < closes:
                    return max(opens, after).astimezone(UTC)
            day += timedelta(days=1)

"""Computes due times: times of day in the recipient's time zone, also on days when clocks change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Self
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def due_at(after: datetime, at: time | None, zone: ZoneInfo) -> datetime:
    """Return the first time, not before ``after``, at which a clock in the zone shows ``at``.

    A time of day that the zone skips in spring is shifted by the length of the jump. Of a time of day that occurs
    twice in autumn, the first is used.

    Args:
        after: Earliest result.
        at: Time of day. None: the result is ``after``.
        zone: The recipient's time zone.

    Returns:
        The time in UTC.
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
    """Return when a clock in the zone shows ``at`` on a day. Skipped and repeated times are handled as in `due_at`."""
    # fold=0 reads a skipped time with the offset from before the jump, and a repeated time as the first one: PEP 495.
    return datetime.combine(day, at, tzinfo=zone).astimezone(UTC)


def add_days(after: datetime, days: int, zone: ZoneInfo) -> datetime:
    """Return the same time of day in the zone, ``days`` later. Zero days: ``after`` itself."""
    if not days:
        return after.astimezone(UTC)
    shown = after.astimezone(zone)
    return time_on(shown.date() + timedelta(days=days), shown.time(), zone)


@dataclass(frozen=True, kw_only=True)
class Window:
    """The hours in which a campaign may send, in each recipient's time zone. ``days``: 0 is Monday.

    An ``end`` of 00:00 is the midnight at the end of the day.
    """

    start: time
    end: time
    days: frozenset[int]

    @classmethod
    def from_row(cls, row: Mapping[str, Any] | None) -> Self | None:
        """Parse a window as the campaign table stores it."""
        if row is None:
            return None
        days = frozenset(DAYS.index(day) for day in row["days"])
        return cls(start=time.fromisoformat(row["from"]), end=time.fromisoformat(row["to"]), days=days)

    def opens(self, after: datetime, zone: ZoneInfo) -> datetime:
        """Return the first time, not before ``after``, at which the window is open."""
        day = after.astimezone(zone).date() - timedelta(days=1)
        while True:
            hours = self._hours_on(day, zone)
            if hours is not None and max(hours[0], after) < hours[1]:
                return max(hours[0], after).astimezone(UTC)
            day += timedelta(days=1)

    def closed_between(self, start: datetime, end: datetime, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime]]:
        """Yield the parts of an interval in which the window is closed, in order: their starts and ends, in UTC."""
        day, closed_since = start.astimezone(zone).date() - timedelta(days=1), start
        while closed_since < end:
            hours = self._hours_on(day, zone)
            if hours is not None and hours[1] > max(closed_since, hours[0]):
                if hours[0] > closed_since:
                    yield closed_since.astimezone(UTC), min(hours[0], end).astimezone(UTC)
                closed_since = hours[1]
            day += timedelta(days=1)

    def _hours_on(self, day: date, zone: ZoneInfo) -> tuple[datetime, datetime] | None:
        """Return when the window opens and closes on a day. None: it stays closed."""
        if day.weekday() not in self.days:
            return None
        opens = datetime.combine(day, self.start, tzinfo=zone).astimezone(UTC)
        # A clock that jumps over the end closes the window at the jump.
        last = day + timedelta(days=1) if self.end == time() else day
        return opens, datetime.combine(last, self.end, tzinfo=zone).astimezone(UTC)

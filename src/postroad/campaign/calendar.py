"""Computes due times: times of day in the recipient's time zone, also on days when clocks change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

from postroad.campaign.holidays import HolidayCalendar
from postroad.errors import ConfigError

MAX_SEARCH: Final = timedelta(days=366)
"""Longest wait for a day on which a window opens."""

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

    An ``end`` of 00:00 is the midnight at the end of the day. ``calendar``: it is closed on the days off and the public
    holidays of this calendar. None: it has no holidays.
    """

    start: time
    end: time
    days: frozenset[int]
    calendar: HolidayCalendar | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any] | None, calendar: HolidayCalendar | None = None) -> Self | None:
        """Parse a window as the campaign table stores it.

        Args:
            row: The window.
            calendar: The calendar of a campaign with holidays. None: the public holidays alone.

        Returns:
            The window; None if the campaign may send at any time.
        """
        if row is None:
            return None
        days = frozenset(DAYS.index(day) for day in row["days"])
        days_without_mail = (calendar or HolidayCalendar()) if row.get("holidays") else None
        start, end = time.fromisoformat(row["from"]), time.fromisoformat(row["to"])
        return cls(start=start, end=end, days=days, calendar=days_without_mail)

    def region(self, place: str, zone: str, default_zone: str) -> str:
        """Return the region whose holidays apply to a recipient; empty if the window has no holidays.

        See `HolidayCalendar.region`.
        """
        return self.calendar.region(place, zone, default_zone) if self.calendar is not None else ""

    def is_holiday(self, at: datetime, zone: ZoneInfo, region: str) -> bool:
        """Return whether a time is on a day without mail."""
        return self.calendar is not None and self.calendar.is_closed(at.astimezone(zone).date(), region)

    def opens(self, after: datetime, zone: ZoneInfo, region: str = "") -> datetime:
        """Return the first time, not before ``after``, at which the window is open.

        Args:
            after: Earliest result.
            zone: The recipient's time zone.
            region: The region whose holidays apply.

        Returns:
            The time in UTC. If no day is open within `MAX_SEARCH`, the time after it, which a later call moves again.
        """
        first = after.astimezone(zone).date() - timedelta(days=1)
        for number in range(MAX_SEARCH.days + 1):
            hours = self._hours_on(first + timedelta(days=number), zone, region)
            if hours is not None and max(hours[0], after) < hours[1]:
                return max(hours[0], after).astimezone(UTC)
        return (after + MAX_SEARCH).astimezone(UTC)

    def closed_between(
        self, start: datetime, end: datetime, zone: ZoneInfo, region: str = ""
    ) -> Iterator[tuple[datetime, datetime]]:
        """Yield the parts of an interval in which the window is closed, in order: their starts and ends, in UTC."""
        day, closed_since = start.astimezone(zone).date() - timedelta(days=1), start
        while closed_since < end and day <= end.astimezone(zone).date():
            hours = self._hours_on(day, zone, region)
            if hours is not None and hours[1] > max(closed_since, hours[0]):
                if hours[0] > closed_since:
                    yield closed_since.astimezone(UTC), min(hours[0], end).astimezone(UTC)
                closed_since = hours[1]
            day += timedelta(days=1)
        if closed_since < end:
            yield closed_since.astimezone(UTC), end.astimezone(UTC)

    def _hours_on(self, day: date, zone: ZoneInfo, region: str) -> tuple[datetime, datetime] | None:
        """Return when the window opens and closes on a day. None: it stays closed."""
        if day.weekday() not in self.days or (self.calendar is not None and self.calendar.is_closed(day, region)):
            return None
        opens = datetime.combine(day, self.start, tzinfo=zone).astimezone(UTC)
        # A clock that jumps over the end closes the window at the jump.
        last = day + timedelta(days=1) if self.end == time() else day
        return opens, datetime.combine(last, self.end, tzinfo=zone).astimezone(UTC)


def require_open_day(window: Window, zone: ZoneInfo, now: datetime, *, where: str) -> None:
    """Check that a window with holidays opens within a year.

    Args:
        window: The window.
        zone: The campaign's time zone.
        now: The time.
        where: The file of the campaign, for the error.

    Raises:
        ConfigError: No day is left, or the calendar's settings are not valid.
    """
    if window.calendar is None:
        return
    window.calendar.require_valid()
    if window.opens(now, zone, window.region("", "", zone.key)) >= now + MAX_SEARCH:
        raise ConfigError(
            f"the campaign may not send on any of the next {MAX_SEARCH.days} days: all are days off or holidays, or "
            "outside its window",
            where=where,
            remedy="Correct calendar.days_off in postroad.toml, or the campaign's window and holidays.",
        )

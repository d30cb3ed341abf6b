"""The hours and days on which a campaign may send to the recipient of one touch."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from typing import NamedTuple, Self
from zoneinfo import ZoneInfo

from postroad.campaign.calendar import Window, time_on
from postroad.campaign.holidays import HolidayCalendar, place_of
from postroad.store.touch_lookup import FoundTouch


class TouchHours(NamedTuple):
    """A window with the time zone and the region of a recipient."""

    window: Window
    zone: ZoneInfo
    region: str

    @classmethod
    def of(cls, touch: FoundTouch, calendar: HolidayCalendar | None) -> Self | None:
        """Return the hours of a touch; None if its campaign may send at any time."""
        window = Window.from_row(touch.sending_window, calendar)
        if window is None:
            return None
        region = window.region(place_of(touch.country, touch.subdivision), touch.own_zone or "", touch.zone)
        return cls(window, ZoneInfo(touch.zone), region)

    def opens(self, after: datetime) -> datetime:
        """Return the first time, not before ``after``, at which mail may leave."""
        return self.window.opens(after, self.zone, self.region)

    def is_holiday(self, at: datetime) -> bool:
        """Return whether a time is on a day without mail."""
        return self.window.is_holiday(at, self.zone, self.region)

    def closed_between(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield the parts of an interval in which no mail may leave."""
        return self.window.closed_between(start, end, self.zone, self.region)

    def days_in(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, bool]]:
        """Yield the parts of an interval by days of the recipient's zone, and whether each is a day without mail."""
        if self.window.calendar is None:
            yield start, end, False
            return
        while start < end:
            midnight = time_on(start.astimezone(self.zone).date() + timedelta(days=1), time(), self.zone)
            following = min(midnight, end) if midnight > start else end
            yield start, following, self.is_holiday(start)
            start = following

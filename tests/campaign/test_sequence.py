"""When the next email of a sequence is due: days on the calendar, and no drift from one email to the next."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.campaign.calendar import Window
from postroad.campaign.sequence import EmailPlan
from postroad.settings.types import parse_duration_ms, time_zones

WEEKDAYS = Window(start=time(8), end=time(18), days=frozenset(range(5)))


def plan(wait: str, at: str | None = None, window: Window | None = None) -> EmailPlan:
    waits = timedelta(milliseconds=parse_duration_ms(wait))
    return EmailPlan(step_id=1, name="next", wait=waits, at=time.fromisoformat(at) if at else None, window=window)


def local(text: str, zone: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


TABLE = [
    # zone, wait, at, the email before was due, and accepted, the next is due (by the clock of the zone), why
    ("UTC", "7d", "09:30", "2026-05-04 09:30", "2026-05-04 09:30", "2026-05-11 09:30", "on time"),
    ("UTC", "7d", "09:30", "2026-05-04 09:30", "2026-05-04 09:34", "2026-05-11 09:30", "some minutes late"),
    ("UTC", "7d", "09:30", "2026-05-04 09:30", "2026-05-04 23:59", "2026-05-11 09:30", "late on the same day"),
    ("UTC", "7d", "09:30", "2026-05-04 09:30", "2026-05-06 11:00", "2026-05-11 09:30", "two days late: Monday"),
    ("UTC", "7d", "09:30", "2026-05-04 09:30", "2026-05-08 11:00", "2026-05-18 09:30", "four: the Monday after"),
    ("UTC", "14d", "09:30", "2026-05-04 09:30", "2026-05-15 11:00", "2026-06-01 09:30", "eleven: two weeks on"),
    ("UTC", "7d", "23:55", "2026-05-04 23:55", "2026-05-05 00:10", "2026-05-11 23:55", "late past midnight"),
    ("UTC", "7d", "00:05", "2026-05-04 00:05", "2026-05-04 00:09", "2026-05-11 00:05", "just past midnight"),
    ("UTC", "7d", "09:30", "2026-05-04 14:07:31", "2026-05-04 14:07", "2026-05-11 09:30", "after another time"),
    ("UTC", "7d", "23:00", "2026-05-04 09:00", "2026-05-04 09:00", "2026-05-11 23:00", "before another time"),
    ("UTC", "1d", "09:30", "2026-05-04 14:07", "2026-05-04 14:09", "2026-05-05 09:30", "the day after"),
    ("UTC", "3d", "09:30", "2026-05-04 09:30", "2026-05-04 22:40", "2026-05-07 09:30", "late on the same day"),
    (
        "UTC",
        "3d",
        "09:30",
        "2026-05-04 09:30",
        "2026-05-05 08:00",
        "2026-05-08 09:30",
        "a day late: the third from then",
    ),
    ("UTC", "3d", "23:30", "2026-05-04 23:30", "2026-05-05 04:00", "2026-05-07 23:30", "late past midnight"),
    ("UTC", "72h", "09:30", "2026-05-04 09:30", "2026-05-04 09:34", "2026-05-07 09:30", "hours that are days"),
    ("UTC", "36h", "09:30", "2026-05-04 21:30", "2026-05-04 21:34", "2026-05-06 09:30", "and a rest"),
    ("UTC", "2h", "09:30", "2026-05-04 07:30", "2026-05-04 07:34", "2026-05-04 09:30", "hours"),
    ("UTC", "2h", "09:30", "2026-05-04 07:30", "2026-05-04 09:00", "2026-05-05 09:30", "hours, not half of them"),
    ("UTC", "2h", None, "2026-05-04 07:30", "2026-05-04 07:34", "2026-05-04 09:34", "hours from when it left"),
    ("UTC", "3d", None, "2026-05-04 07:30", "2026-05-04 11:34", "2026-05-07 11:34", "days from when it left"),
    ("UTC", "7d", None, "2026-05-04 23:58", "2026-05-05 00:03", "2026-05-11 23:58", "a weekday stays"),
    # Berlin, 2026-03-29: 02:00 becomes 03:00. 2026-10-25: 03:00 becomes 02:00.
    ("Europe/Berlin", "7d", "09:30", "2026-03-26 09:30", "2026-03-26 09:31", "2026-04-02 09:30", "clocks forward"),
    ("Europe/Berlin", "7d", "09:30", "2026-10-22 09:30", "2026-10-22 09:31", "2026-10-29 09:30", "clocks back"),
    ("Europe/Berlin", "7d", "00:15", "2026-10-22 00:15", "2026-10-22 00:15", "2026-10-29 00:15", "back, by midnight"),
    ("Europe/Berlin", "7d", None, "2026-03-26 23:30", "2026-03-26 23:30", "2026-04-02 23:30", "forward, no time"),
    ("Europe/Berlin", "1d", None, "2026-10-24 09:30", "2026-10-24 09:30", "2026-10-25 09:30", "a day has 25 hours"),
    ("Europe/Berlin", "24h", "02:30", "2026-03-28 02:30", "2026-03-28 02:30", "2026-03-29 03:30", "skipped: later"),
    ("Europe/Berlin", "2d", "02:30", "2026-03-28 02:30", "2026-03-28 02:31", "2026-03-30 02:30", "after the skip"),
    ("Europe/Berlin", "1d", "02:30", "2026-03-29 03:30", "2026-03-29 03:31", "2026-03-30 02:30", "back to its time"),
    # Clocks that change at midnight.
    ("America/Havana", "7d", "00:30", "2026-03-01 00:30", "2026-03-01 00:31", "2026-03-08 01:30", "skipped midnight"),
    ("America/Havana", "7d", "00:30", "2026-03-08 01:30", "2026-03-08 01:31", "2026-03-15 00:30", "and after it"),
    ("America/Havana", "7d", "00:30", "2026-10-25 00:30", "2026-10-25 00:31", "2026-11-01 00:30", "double midnight"),
    ("Asia/Beirut", "7d", "00:00", "2026-03-22 00:00", "2026-03-22 00:02", "2026-03-29 01:00", "no midnight"),
    ("Asia/Beirut", "7d", "00:00", "2026-03-29 01:00", "2026-03-29 01:02", "2026-04-05 00:00", "a midnight again"),
    # 2026-03-28: 23:00 becomes 00:00 of the next day.
    (
        "America/Scoresbysund",
        "7d",
        "23:30",
        "2026-03-21 23:30",
        "2026-03-21 23:31",
        "2026-03-29 00:30",
        "past midnight",
    ),
    ("America/Scoresbysund", "7d", "23:30", "2026-03-29 00:30", "2026-03-29 00:31", "2026-04-04 23:30", "back again"),
    # Far from UTC.
    ("Pacific/Kiritimati", "7d", "09:30", "2026-05-04 09:30", "2026-05-04 09:40", "2026-05-11 09:30", "14 h ahead"),
    ("Pacific/Pago_Pago", "7d", "21:30", "2026-05-04 21:30", "2026-05-04 21:40", "2026-05-11 21:30", "11 h behind"),
    ("Asia/Kathmandu", "1d", "05:00", "2026-05-04 05:00", "2026-05-04 05:10", "2026-05-05 05:00", "5 h 45 min"),
]


@pytest.mark.parametrize(("zone", "wait", "at", "planned", "accepted", "due", "why"), TABLE)
def test_follow_ups_are_due_as_in_the_table(
    zone: str, wait: str, at: str | None, planned: str, accepted: str, due: str, why: str
) -> None:
    found = plan(wait, at).due_at(local(accepted, zone), ZoneInfo(zone), planned=local(planned, zone))
    assert found.astimezone(ZoneInfo(zone)).isoformat(" ", "minutes")[:16] == due, why


WINDOWS = [
    # wait, at, the email before was due, and accepted, the next is due (UTC), why
    ("3d", "09:30", "2026-05-06 09:30", "2026-05-06 09:31", "2026-05-11 09:30", "Saturday: Monday, at its time of day"),
    ("3d", None, "2026-05-06 09:30", "2026-05-06 09:31", "2026-05-11 08:00", "Saturday: Monday morning"),
    ("7d", "09:30", "2026-05-11 09:30", "2026-05-11 09:31", "2026-05-18 09:30", "Mondays after a shift"),
    ("7d", None, "2026-05-08 17:59", "2026-05-08 18:01", "2026-05-15 17:59", "accepted when it was closed"),
    ("7d", "08:00", "2026-05-08 08:00", "2026-05-11 08:03", "2026-05-15 08:00", "left after the weekend"),
]


@pytest.mark.parametrize(("wait", "at", "planned", "accepted", "due", "why"), WINDOWS)
def test_a_window_moves_an_email_and_not_its_time_of_day(
    wait: str, at: str | None, planned: str, accepted: str, due: str, why: str
) -> None:
    found = plan(wait, at, WEEKDAYS).due_at(local(accepted, "UTC"), ZoneInfo("UTC"), planned=local(planned, "UTC"))
    assert found == local(due, "UTC"), why


@settings(deadline=None, max_examples=150)
@given(
    zone=st.sampled_from(sorted(time_zones())),
    start=st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
    at=st.times().map(lambda moment: moment.replace(second=0, microsecond=0)),
    weeks=st.integers(1, 2),
    late=st.lists(st.integers(0, 3 * 24 * 60 - 1), min_size=1, max_size=30),
    window=st.sampled_from([None, Window(start=time(), end=time(), days=frozenset({0, 2, 4}))]),
)
def test_a_weekly_sequence_stays_on_its_weekday(
    zone: str, start: datetime, at: time, weeks: int, late: list[int], window: Window | None
) -> None:
    """For any delay of each email below three days, and any clock change."""
    info = ZoneInfo(zone)
    step = plan(f"{weeks * 7}d", f"{at:%H:%M}", window)
    due = first = step.due_at(start, info)
    for number, minutes in enumerate(late, start=1):
        accepted = (due + timedelta(minutes=minutes)).replace(second=0, microsecond=0)
        due = step.due_at(accepted, info, planned=due)
        days = (due.astimezone(info).date() - first.astimezone(info).date()).days
        # At 23:00 clocks in Scoresbysund skip the hour to midnight, so such an email is due on the next day.
        assert days == number * weeks * 7 or (zone.endswith("Scoresbysund") and at.hour == 23)
        assert due > accepted

"""When a touch is due, on the days when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postroad.campaign.calendar import Window, due_at


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


TABLE = [
    # zone, not before (UTC), time of day, due (UTC), why
    ("UTC", "2026-05-04 08:00", "09:00", "2026-05-04 09:00", "today, still to come"),
    ("UTC", "2026-05-04 09:00", "09:00", "2026-05-04 09:00", "not before includes the instant itself"),
    ("UTC", "2026-05-04 09:00:00.000001", "09:00", "2026-05-05 09:00", "just past"),
    ("Asia/Kolkata", "2026-05-04 00:00", "09:00", "2026-05-04 03:30", "half an hour off"),
    ("Asia/Kathmandu", "2026-05-04 00:00", "09:00", "2026-05-04 03:15", "three quarters off"),
    ("Pacific/Kiritimati", "2026-05-04 12:00", "09:00", "2026-05-04 19:00", "14 h ahead: tomorrow there"),
    ("Pacific/Pago_Pago", "2026-05-04 02:00", "23:00", "2026-05-04 10:00", "11 h behind: yesterday there"),
    ("America/Sao_Paulo", "2026-01-15 00:00", "09:00", "2026-01-15 12:00", "gave up summer time in 2019"),
    # Berlin, 2026-03-29: 02:00 CET becomes 03:00 CEST.
    ("Europe/Berlin", "2026-03-28 23:00", "01:59", "2026-03-29 00:59", "before the jump"),
    ("Europe/Berlin", "2026-03-28 23:00", "02:00", "2026-03-29 01:00", "skipped: at the jump"),
    ("Europe/Berlin", "2026-03-28 23:00", "02:30", "2026-03-29 01:30", "skipped: 03:30, an hour later by the clock"),
    ("Europe/Berlin", "2026-03-28 23:00", "03:00", "2026-03-29 01:00", "after the jump"),
    ("Europe/Berlin", "2026-03-29 01:31", "02:30", "2026-03-30 00:30", "skipped, and past"),
    # Berlin, 2026-10-25: 03:00 CEST becomes 02:00 CET.
    ("Europe/Berlin", "2026-10-24 22:00", "02:30", "2026-10-25 00:30", "comes twice: the first"),
    ("Europe/Berlin", "2026-10-25 00:30", "02:30", "2026-10-25 00:30", "comes twice: the first, just now"),
    ("Europe/Berlin", "2026-10-25 00:31", "02:30", "2026-10-26 01:30", "the first has passed: not twice a night"),
    ("Europe/Berlin", "2026-10-25 01:45", "02:30", "2026-10-26 01:30", "both have passed"),
    ("Europe/Berlin", "2026-10-24 22:00", "03:00", "2026-10-25 02:00", "after both"),
    ("America/New_York", "2026-03-08 00:00", "02:30", "2026-03-08 07:30", "skipped: 03:30 EDT"),
    ("America/New_York", "2026-11-01 04:00", "01:30", "2026-11-01 05:30", "comes twice: EDT"),
    # Lord Howe: by half an hour. 2026-10-04 02:00 becomes 02:30; 2026-04-05 02:00 becomes 01:30.
    ("Australia/Lord_Howe", "2026-10-03 14:00", "02:15", "2026-10-03 15:45", "skipped: 02:45"),
    ("Australia/Lord_Howe", "2026-04-04 14:00", "01:45", "2026-04-04 14:45", "comes twice: the first"),
    ("Australia/Lord_Howe", "2026-04-04 14:00", "09:00", "2026-04-04 22:30", "after it"),
    # Apia moved across the date line: 2011-12-30 was skipped.
    ("Pacific/Apia", "2011-12-29 20:00", "09:00", "2011-12-30 19:00", "the day after is two dates later"),
    ("Pacific/Apia", "2011-12-30 09:00", "23:30", "2011-12-30 09:30", "the evening before"),
    # Casablanca goes back an hour for Ramadan, and forward after it.
    ("Africa/Casablanca", "2026-02-14 12:00", "02:30", "2026-02-15 01:30", "comes twice: the first"),
    # Saint John's at one minute past midnight, until 2011.
    ("America/St_Johns", "2010-11-06 12:00", "23:30", "2010-11-07 02:00", "comes twice: the first"),
    ("America/St_Johns", "2010-11-07 02:00:01", "23:30", "2010-11-08 03:00", "a night later"),
    # Havana's day begins at 01:00 when the clock springs.
    ("America/Havana", "2026-03-08 04:00", "00:30", "2026-03-08 05:30", "the first half hour of a day is skipped"),
]


@pytest.mark.parametrize(("zone", "after", "at", "due", "why"), TABLE)
def test_due_times_match_the_table(zone: str, after: str, at: str, due: str, why: str) -> None:
    found = due_at(utc(after), time.fromisoformat(at), ZoneInfo(zone))
    assert found == utc(due), why
    assert found.tzinfo is UTC


def test_without_a_time_of_day_it_is_due_at_once() -> None:
    after = datetime(2026, 5, 4, 10, 30, 15, 1, tzinfo=ZoneInfo("Asia/Tokyo"))
    found = due_at(after, None, ZoneInfo("Europe/Berlin"))
    assert found == after
    assert found.tzinfo is UTC


ZONES = st.sampled_from(sorted(available_timezones() - {"localtime", "Factory"}))
INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
TIMES = st.times().map(lambda moment: moment.replace(second=0, microsecond=0))


@settings(deadline=None, max_examples=500)
@given(after=INSTANTS, at=TIMES, zone=ZONES)
@example(after=utc("2026-10-25 00:31"), at=time(2, 30), zone="Europe/Berlin")
@example(after=utc("2026-03-28 23:00"), at=time(2, 30), zone="Europe/Berlin")
@example(after=utc("2011-12-29 20:00"), at=time(9), zone="Pacific/Apia")
@example(after=utc("2010-03-05 00:00"), at=time(1, 0), zone="Antarctica/Casey")
def test_the_due_time_is_the_first_such_time_in_the_zone(after: datetime, at: time, zone: str) -> None:
    info = ZoneInfo(zone)
    due = due_at(after, at, info)
    assert due >= after
    shown = due.astimezone(info)
    offsets = [(after + timedelta(hours=hours)).astimezone(info).utcoffset() for hours in range(-25, 50)]
    shift = max(abs(one - other) for one in offsets for other in offsets if one is not None and other is not None)
    if shown.time() == at:
        assert shown.fold == 0, "of a time that comes twice, the first"
    else:  # Skipped: no clock in the zone showed it, so the result is later by the length of the jump.
        wanted = datetime.combine(due.astimezone(info).date(), at, tzinfo=info)
        back = wanted.astimezone(UTC).astimezone(info)
        assert back.replace(tzinfo=None) != wanted.replace(tzinfo=None)
        assert timedelta() < shown.replace(tzinfo=None) - wanted.replace(tzinfo=None) <= shift
    # One day plus the time by which clocks are put back: an hour, unless the zone itself changes.
    assert due - after <= timedelta(hours=24) + shift
    if after.year >= 2026 and zone != "Antarctica/Troll":  # Troll: by two hours, each year
        assert due - after <= timedelta(hours=25)


WINDOWS = [
    # zone, from, to, days, after (UTC), opens (UTC), why
    ("UTC", "09:00", "17:00", "0123456", "2026-05-04 08:00", "2026-05-04 09:00", "later today"),
    ("UTC", "09:00", "17:00", "0123456", "2026-05-04 09:00", "2026-05-04 09:00", "open at its first instant"),
    ("UTC", "09:00", "17:00", "0123456", "2026-05-04 16:59:59", "2026-05-04 16:59:59", "open at its last"),
    ("UTC", "09:00", "17:00", "0123456", "2026-05-04 17:00", "2026-05-05 09:00", "closed at its end"),
    ("UTC", "09:00", "17:00", "01234", "2026-05-08 18:00", "2026-05-11 09:00", "over the weekend"),
    ("UTC", "20:00", "00:00", "0", "2026-05-04 23:59", "2026-05-04 23:59", "until midnight"),
    ("UTC", "20:00", "00:00", "0", "2026-05-05 00:00", "2026-05-11 20:00", "midnight is the next day's"),
    ("Asia/Tokyo", "09:00", "17:00", "0123456", "2026-05-04 00:30", "2026-05-04 00:30", "09:30 there"),
    ("Pacific/Kiritimati", "09:00", "17:00", "1", "2026-05-04 18:00", "2026-05-04 19:00", "Tuesday there already"),
    # Berlin, 2026-03-29: 02:00 becomes 03:00. 2026-10-25: 03:00 becomes 02:00.
    ("Europe/Berlin", "02:30", "08:00", "6", "2026-03-29 00:00", "2026-03-29 01:30", "skipped: as much later"),
    ("Europe/Berlin", "01:00", "02:30", "6", "2026-03-29 01:15", "2026-03-29 01:15", "and its end as well"),
    ("Europe/Berlin", "02:30", "08:00", "6", "2026-10-25 00:00", "2026-10-25 00:30", "comes twice: the first"),
]


@pytest.mark.parametrize(("zone", "start", "end", "days", "after", "opens", "why"), WINDOWS)
def test_a_window_opens_by_the_clock_of_the_zone(
    zone: str, start: str, end: str, days: str, after: str, opens: str, why: str
) -> None:
    assert why
    window = Window(start=time.fromisoformat(start), end=time.fromisoformat(end), days=frozenset(map(int, days)))
    assert window.opens(utc(after), ZoneInfo(zone)) == utc(opens)


@given(
    st.sampled_from(sorted(available_timezones())),
    st.integers(1_577_836_800, 2_051_222_400),
    st.integers(0, 23),
    st.integers(1, 24),
    st.frozensets(st.integers(0, 6), min_size=1),
)
@settings(max_examples=200)
def test_a_window_is_open_when_it_begins(zone: str, at_s: int, start: int, hours: int, days: frozenset[int]) -> None:
    end = time((start + hours) % 24) if start + hours <= 24 else time()
    window = Window(start=time(start), end=end, days=days)
    after = datetime.fromtimestamp(at_s, UTC)
    opens = window.opens(after, ZoneInfo(zone))
    assert opens >= after
    assert window.opens(opens, ZoneInfo(zone)) == opens
    assert opens - after < timedelta(days=9)


@given(
    st.sampled_from(sorted(available_timezones())),
    st.integers(1_577_836_800, 2_051_222_400),
    st.integers(1, 12 * 86_400),
    st.integers(0, 23),
    st.integers(1, 24),
    st.frozensets(st.integers(0, 6), min_size=1),
)
@settings(max_examples=200)
def test_a_window_is_closed_exactly_between_its_hours(
    zone: str, at_s: int, length_s: int, start: int, hours: int, days: frozenset[int]
) -> None:
    """The closed parts are in order, lie within the interval, and contain the times at which it is not open."""
    end = time((start + hours) % 24) if start + hours <= 24 else time()
    window = Window(start=time(start), end=end, days=days)
    first = datetime.fromtimestamp(at_s, UTC)
    last = first + timedelta(seconds=length_s)
    closed = list(window.closed_between(first, last, ZoneInfo(zone)))
    bounds = [at for part in closed for at in part]
    assert bounds == sorted(bounds)
    assert all(first <= at <= last for at in bounds)
    for share in range(40):
        at = first + (last - first) * share / 40
        is_open = window.opens(at, ZoneInfo(zone)) == at
        assert is_open != any(begin <= at < finish for begin, finish in closed), at


def test_a_window_without_time_in_between_is_never_closed() -> None:
    window = Window(start=time(0), end=time(0), days=frozenset(range(7)))
    assert list(window.closed_between(utc("2026-05-04"), utc("2026-06-04"), ZoneInfo("Europe/Berlin"))) == []
    assert list(window.closed_between(utc("2026-05-04"), utc("2026-05-04"), ZoneInfo("UTC"))) == []

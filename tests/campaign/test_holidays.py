"""Days without mail: public holidays by country, days off, and what they do to due times and to the file's checks."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from postroad.campaign.calendar import DAYS, MAX_SEARCH, Window
from postroad.campaign.calendar_preflight import check_calendar
from postroad.campaign.holidays import HolidayCalendar, place_of
from postroad.campaign.launch_forecast import forecast
from postroad.campaign.plan import advance, launch
from postroad.errors import ConfigError, StateError
from postroad.settings import CalendarSettings, Settings
from postroad.settings.calendar import DayRange
from postroad.settings.types import time_zones
from postroad.store.campaign import find_campaign
from postroad.store.engine import read, write
from tests.campaign.project import CAMPAIGN, CONFIG, CampaignProject

HOLIDAYS = CAMPAIGN + "holidays: true\ntime_zone: Europe/Berlin\n"
CHRISTMAS_EVE = datetime(2026, 12, 24, 11, 30, tzinfo=UTC)


def calendar(**values: object) -> HolidayCalendar:
    return HolidayCalendar(CalendarSettings.model_validate(values))


def window(calendar: HolidayCalendar, **values: object) -> Window:
    row = {"from": "08:00", "to": "18:00", "days": ["mon", "tue", "wed", "thu", "fri"], "holidays": True, **values}
    found = Window.from_row(row, calendar)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("place", "zone", "default_zone", "region"),
    [
        ("DE", "America/New_York", "", "DE"),
        ("DE-BY", "", "", "DE-BY"),
        ("DE-ZZ", "", "", "DE"),
        ("UK", "", "", "GB"),
        ("GERMANY", "Asia/Tokyo", "", "JP"),
        ("", "Europe/Oslo", "", "NO"),
        ("", "US/Eastern", "", "US"),
        ("", "Asia/Calcutta", "", "IN"),
        ("", "Europe/Kiev", "", "UA"),
        ("", "Japan", "", "JP"),
        ("", "UTC", "Europe/Vienna", "CH-ZH"),
        ("", "CET", "", "CH-ZH"),
        ("", "EST5EDT", "", "CH-ZH"),
        ("XX", "", "", "CH-ZH"),
    ],
)
def test_the_first_known_country_applies(place: str, zone: str, default_zone: str, region: str) -> None:
    assert calendar(country="CH", subdivision="ZH").region(place, zone, default_zone) == region


def test_the_campaigns_time_zone_is_the_last_resort() -> None:
    assert calendar().region("", "", "Europe/Vienna") == "AT"
    assert calendar().region("", "UTC", "UTC") == ""


@pytest.mark.parametrize("zone", sorted(time_zones()))
def test_every_time_zone_has_a_known_country_or_none(zone: str) -> None:
    region = calendar().region("", zone)
    assert region == "" or calendar().knows(region)


@pytest.mark.parametrize(
    ("country", "subdivision", "place"),
    [
        (" de ", None, "DE"),
        ("de", "by", "DE-BY"),
        ("DE", "DE-BY", "DE-BY"),
        (None, "BY", ""),
        ("", "", ""),
        (49, None, "49"),
        ("x" * 1000, "y" * 1000, "XXXXXXXX-YYYYYYYY"),
    ],
)
def test_places_are_normalised(country: object, subdivision: object, place: str) -> None:
    assert place_of(country, subdivision) == place


@given(st.text(), st.text())
def test_any_text_of_a_country_is_a_place(country: str, subdivision: str) -> None:
    assert isinstance(calendar().region(place_of(country, subdivision), ""), str)


DAYS_OFF = ("2026-12-24", "2026-12-27..2026-12-31")


@pytest.mark.parametrize(
    ("after", "zone", "region", "opens"),
    [
        ("2026-12-23 12:00", "Europe/Berlin", "DE", "2026-12-23 12:00"),
        ("2026-12-23 18:00", "Europe/Berlin", "DE", "2027-01-04 08:00"),  # off, Christmas, off, New Year, a weekend
        ("2026-12-24 23:59", "America/New_York", "US", "2027-01-04 08:00"),
        ("2027-01-06 10:00", "Europe/Berlin", "DE-BY", "2027-01-07 08:00"),  # Epiphany, in Bavaria
        ("2027-01-06 10:00", "Europe/Berlin", "DE", "2027-01-06 10:00"),
        ("2026-07-03 10:00", "America/New_York", "US", "2026-07-06 08:00"),  # Independence Day is a Saturday
        ("2026-05-01 10:00", "Europe/Berlin", "", "2026-05-01 10:00"),
        ("2026-01-01 00:30", "Pacific/Auckland", "NZ", "2026-01-05 08:00"),
    ],
)
def test_a_window_opens_on_the_next_day_with_mail(after: str, zone: str, region: str, opens: str) -> None:
    local = ZoneInfo(zone)
    found = window(calendar(days_off=DAYS_OFF)).opens(
        datetime.fromisoformat(after).replace(tzinfo=local), local, region
    )
    assert found.astimezone(local) == datetime.fromisoformat(opens).replace(tzinfo=local)


def test_the_day_is_that_of_the_recipient() -> None:
    """At one time it is Christmas in Auckland, and the day before it in Los Angeles."""
    at = datetime(2026, 12, 24, 19, 0, tzinfo=UTC)
    always = window(calendar(), **{"from": "00:00", "to": "00:00", "days": list(DAYS)})
    assert always.is_holiday(at, ZoneInfo("Pacific/Auckland"), "NZ")
    assert not always.is_holiday(at, ZoneInfo("America/Los_Angeles"), "US")
    assert always.opens(at, ZoneInfo("America/Los_Angeles"), "US") == at


def test_the_search_for_a_day_ends() -> None:
    closed = window(calendar(days_off=["2026-01-01..2099-12-31"]))
    after = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)
    assert closed.opens(after, ZoneInfo("UTC")) == after + MAX_SEARCH


def test_a_range_of_days_includes_both_ends() -> None:
    days = DayRange.parse("2026-12-27..2026-12-31")
    assert [day in days for day in (date(2026, 12, 26), date(2026, 12, 27), date(2026, 12, 31), date(2027, 1, 1))] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('days_off = ["2026-02-30"]', "is not a day or a range of days"),
        ('days_off = ["24.12.2026"]', "is not a day or a range of days"),
        ('days_off = ["2026-12-24..", "2026-12-25"]', "is not a day or a range of days"),
        ('days_off = ["2026-12-31..2026-12-27"]', "ends before it begins"),
        ("days_off = [7]", "is not a day or a range of days"),
        ('country = "XX"', "is not a country code"),
        ('country = "de"', "is not a country code"),
        ('subdivision = "by"', "subdivision"),
        ('dayoff = ["2026-12-24"]', "dayoff"),
    ],
)
def test_a_wrong_setting_names_file_and_line(tmp_path: Path, line: str, expected: str) -> None:
    path = tmp_path / "postroad.toml"
    path.write_text(f"[calendar]\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2") as caught:
        Settings.load(path)
    assert expected in str(caught.value)


def test_a_day_may_be_a_date_of_toml(tmp_path: Path) -> None:
    path = tmp_path / "postroad.toml"
    path.write_text("[calendar]\ndays_off = [2026-12-24]\n", encoding="utf-8")
    assert date(2026, 12, 24) in Settings.load(path).calendar.days_off[0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ('days_off = ["2026-01-01..2099-12-31"]', "holidays: the campaign may not send on any of the next 366 days"),
        ('country = "DE"\nsubdivision = "ZZ"', "calendar.subdivision: ZZ is not a subdivision of DE"),
        ('subdivision = "BY"', "calendar.subdivision: BY is not a subdivision of a country"),
    ],
)
def test_apply_rejects_a_calendar_that_cannot_work(project: CampaignProject, settings: str, expected: str) -> None:
    project.configure(f"{CONFIG}\n[calendar]\n{settings}\n")
    with pytest.raises(ConfigError) as caught:
        project.apply(HOLIDAYS)
    assert expected in f"{caught.value.where}: {caught.value.message}"
    project.apply(CAMPAIGN)  # It has no holidays.


def test_due_times_are_on_days_with_mail(project: CampaignProject) -> None:
    """On Christmas Eve at noon in Berlin. Each recipient has the holidays of a country of their own."""
    project.configure(f'{CONFIG}\n[calendar]\ndays_off = ["2026-12-24"]\n')
    project.fill(
        ["a@example.com,,DE,", "b@example.com,,JP,", "c@example.com,Asia/Tokyo,,", "d@example.com,,,"],
        header="email,tz,country,subdivision",
    )
    project.apply(HOLIDAYS + "window: {from: '09:00', to: '18:00'}\n", now=CHRISTMAS_EVE)
    days = HolidayCalendar(project.settings.calendar)
    seen = forecast(project.engine, "spring", CHRISTMAS_EVE, calendar=days)
    assert {due.due_at for due in seen.due if due.time_zone == "Asia/Tokyo"} == {datetime(2026, 12, 25, tzinfo=UTC)}
    launch(project.engine, "spring", CHRISTMAS_EVE, calendar=days)
    due = {address[0]: due_at for _, address, _, due_at in project.touches()}
    sunday = datetime(2026, 12, 27, 8, tzinfo=UTC)
    assert due == {
        "a": sunday,
        "b": datetime(2026, 12, 25, 8, tzinfo=UTC),
        "c": datetime(2026, 12, 25, 0, tzinfo=UTC),
        "d": sunday,
    }


def test_a_follow_up_is_due_on_a_day_with_mail(project: CampaignProject) -> None:
    project.fill(["a@example.com,,DE"], header="email,tz,country")
    more = "  - wait: 3d\n  - email: again\n    subject: A\n    text: hello.txt\n"
    steps = HOLIDAYS.replace("holidays", f"{more}holidays")
    before = datetime(2026, 12, 22, 9, 0, tzinfo=UTC)
    project.apply(steps, now=before)
    launch(project.engine, "spring", before)
    with write(project.engine) as connection:
        accepted = "UPDATE touch SET state = 'accepted', settled_at = '2026-12-22 09:00:00.000000'"
        zone = "+00" if connection.dialect.name == "postgresql" else ""
        connection.execute(sa.text(accepted.replace("000000", f"000000{zone}")))
    assert advance(project.engine, "spring", before) == 1
    assert project.touches()[-1][3] == datetime(2026, 12, 26, 23, 0, tzinfo=UTC), "the midnight after two holidays"


def test_the_holidays_cannot_change_after_the_launch(project: CampaignProject) -> None:
    project.fill(["a@example.com,,Ada"])
    project.apply(HOLIDAYS)
    launch(project.engine, "spring", datetime(2026, 5, 4, 8, 30, tzinfo=UTC))
    with pytest.raises(StateError, match="its window cannot change"):
        project.apply(CAMPAIGN + "time_zone: Europe/Berlin\n")


def test_preflight_counts_recipients_without_a_country(project: CampaignProject) -> None:
    rows = ["a@example.com,,DE", "b@example.com,,Germany", "c@example.com,Asia/Tokyo,Japan", "d@example.com,,"]
    project.fill(rows, header="email,tz,country")
    project.apply(CAMPAIGN + "holidays: true\n")
    with read(project.engine) as connection:
        campaign = find_campaign(connection, "spring")
        found = list(check_calendar(connection, project.settings, campaign, CHRISTMAS_EVE))
    assert [(finding.code, finding.recipients) for finding in found] == [
        ("holidays.no-country", 2),
        ("holidays.wrong-country", 2),
    ]
    assert "'Germany'" in found[1].what


def test_the_holidays_are_imported_only_for_campaigns_that_need_them() -> None:
    code = (
        "import sys, postroad.delivery.admit, postroad.campaign.plan, postroad.campaign.preflight\n"
        "from postroad.campaign.calendar import Window\n"
        "assert 'holidays' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("day", [time(0, 0), time(12, 0), time(23, 59)])
def test_a_campaign_without_hours_sends_all_day_except_on_holidays(day: time) -> None:
    always = window(calendar(), **{"from": "00:00", "to": "00:00"})
    zone = ZoneInfo("Europe/Berlin")
    at = datetime.combine(date(2026, 5, 4), day, zone)
    assert always.opens(at, zone, "DE") == at

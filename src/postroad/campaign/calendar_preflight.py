"""Preflight of the days without mail of a campaign."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from postroad.campaign.calendar import Window, require_open_day
from postroad.campaign.finding import PreflightCode, PreflightFinding, campaign_finding
from postroad.campaign.holidays import HolidayCalendar, place_of
from postroad.campaign.segment import Segment
from postroad.errors import ConfigError
from postroad.printable import counted
from postroad.settings import Settings
from postroad.store.campaign import Campaign
from postroad.store.recipient import place_sql


def check_calendar(
    connection: sa.Connection, settings: Settings, campaign: Campaign, now: datetime
) -> Iterator[PreflightFinding]:
    """Yield findings on the days without mail of a campaign, for the recipients of its segment."""
    calendar = HolidayCalendar(settings.calendar)
    window = Window.from_row(campaign.sending_window, calendar)
    if window is None or window.calendar is None:
        return
    try:
        require_open_day(window, ZoneInfo(campaign.time_zone), now, where="holidays")
    except ConfigError as error:
        yield campaign_finding(PreflightCode.HOLIDAYS_NO_DAY, error.message, error.remedy or "")
    yield from _unknown_countries(connection, campaign, Segment.of(campaign, now), calendar)


def _unknown_countries(
    connection: sa.Connection, campaign: Campaign, segment: Segment, calendar: HolidayCalendar
) -> Iterator[PreflightFinding]:
    """Yield the recipients whose public holidays are not known, and those whose country is not a code."""
    where = segment.sql(connection.dialect.name)
    statement = sa.text(
        f"SELECT recipient.time_zone, {place_sql(connection)}, count(*) AS n FROM audience_member "
        "JOIN recipient ON recipient.id = audience_member.recipient_id "
        f"WHERE audience_member.audience_id = :id AND {where.sql} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    without, wrong = 0, Counter[str]()
    for row in connection.execute(statement, {"id": campaign.audience_id, **where.parameters}):
        place = place_of(row.country, row.subdivision)
        if place and not calendar.knows(place):
            wrong[", ".join(filter(None, (row.country, row.subdivision)))] += row.n
        if not calendar.region(place, row.time_zone or "", campaign.time_zone):
            without += row.n
    if without:
        what = f"the country of {counted(without, 'recipient')} is not known, so no public holidays apply to them"
        remedy = "Add a column `country` to the CSV, with codes as DE, or set calendar.country in postroad.toml."
        yield campaign_finding(PreflightCode.HOLIDAYS_NO_COUNTRY, what, remedy, recipients=without)
    if wrong:
        example = min(wrong, key=lambda text: (-wrong[text], text))
        what = f"the country of {counted(wrong.total(), 'recipient')}, such as {example!r}, is not a code of ISO 3166"
        remedy = "Correct the columns `country` and `subdivision`. Until then the country of the time zone applies."
        yield campaign_finding(PreflightCode.HOLIDAYS_WRONG_COUNTRY, what, remedy, recipients=wrong.total())

"""Counts who would get the first email of a campaign, and when, if it was launched now."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from postroad.campaign.calendar import Window
from postroad.campaign.entry import CampaignEntry
from postroad.campaign.file_trial import FileTrial
from postroad.campaign.holidays import HolidayCalendar
from postroad.campaign.segment import count_audience
from postroad.campaign.sequence import EmailPlan, first_email
from postroad.store.campaign import find_campaign, steps_of
from postroad.store.engine import read


@dataclass(frozen=True, kw_only=True)
class ZoneForecast:
    """Recipients of one time zone, and when their first email is due. The campaign's zone is the default."""

    time_zone: str
    due_at: datetime
    recipients: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The audience that a launch now would freeze."""

    recipients: int
    suppressed: int
    due: tuple[ZoneForecast, ...]
    time_zone: str
    """Time zone of the campaign."""


def forecast(
    engine: sa.Engine,
    name: str,
    now: datetime,
    coming: FileTrial | None = None,
    calendar: HolidayCalendar | None = None,
) -> Forecast:
    """Return how many recipients would get the first email, and when, if the campaign was launched now.

    Args:
        engine: The database.
        name: Name of the campaign.
        now: Time of the launch.
        coming: Trial of the file that the launch would import first.
        calendar: The days without mail. Only the countries of time zones are considered. None: public holidays alone.

    Returns:
        The forecast.

    Raises:
        StateError: No campaign has that name.
    """
    coming = coming or FileTrial()
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        window = Window.from_row(campaign.sending_window, calendar)
        first = first_email(steps_of(connection, campaign.id or 0), window)
    known, suppressed = Counter[str | None](), 0
    if CampaignEntry.of(campaign).at_launch:
        known, suppressed = count_audience(engine, campaign, now, excluded=coming.known, before=coming.before)
    else:
        coming = FileTrial()  # Who will enter is not known.
    zones: Counter[str] = Counter()
    for zone, recipients in (*known.items(), *coming.zones.items()):
        zones[zone or campaign.time_zone] += recipients
    return Forecast(
        recipients=zones.total(),
        suppressed=suppressed + coming.suppressed,
        due=tuple(
            ZoneForecast(time_zone=zone, due_at=_first_due(first, now, zone), recipients=recipients)
            for zone, recipients in sorted(zones.items())
        ),
        time_zone=campaign.time_zone,
    )


def _first_due(email: EmailPlan, now: datetime, zone: str) -> datetime:
    region = email.window.region("", zone, "") if email.window is not None else ""
    return email.due_at(now, ZoneInfo(zone), region=region)

"""The forecast of a campaign: when it is over, what holds it longest, and what would help."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from fastapi import Query, Response

from postroad.console.authorise import CurrentVisit
from postroad.console.campaign_view import campaign_url
from postroad.console.hour_chart import HourBar, hour_chart
from postroad.console.screens.campaigns import screen
from postroad.console.visit import Visit
from postroad.errors import PostroadError, UsageError
from postroad.forecast.coming import coming_recipients
from postroad.forecast.forecast import ForecastRequest, forecast_campaign
from postroad.forecast.report import CampaignForecast, HourForecast, whole_messages
from postroad.settings import AccessRole

SERIES: Final = (("messages", "info"),)
MAX_CHANGES: Final = 10

ShortText = Annotated[str, Query(max_length=300)]


@screen.get("/campaigns/{campaign}/forecast", role=AccessRole.VIEW)
async def forecast(visit: CurrentVisit, campaign: str, deadline: ShortText = "", what_if: ShortText = "") -> Response:
    """Show the forecast. Nothing is changed."""
    return visit.page("campaign_forecast.html", **await forecast_values(visit, campaign, deadline, what_if))


async def forecast_values(visit: Visit, campaign: str, deadline: str = "", what_if: str = "") -> dict[str, Any]:
    """Return the variables of the pages that show a forecast.

    Args:
        visit: The request.
        campaign: Name of the campaign.
        deadline: Until when everything should be sent, in the zone of the settings. Empty: no deadline.
        what_if: Other values of settings, separated by commas or spaces. Empty: none.

    Returns:
        The variables. If there is no forecast, ``problem`` says why.
    """
    found: CampaignForecast | None = None
    problem: PostroadError | None = None
    try:
        request = ForecastRequest(
            campaign=campaign,
            deadline=_deadline(deadline, visit.parts.zone),
            changes=_changes(what_if),
            coming=await asyncio.to_thread(coming_recipients, visit.parts.context, campaign),
        )
        found = await forecast_campaign(visit.parts.context, request)
    except PostroadError as error:
        problem = error
    bars = _bars(found.hours) if found is not None else []
    return {
        "campaign": campaign,
        "found": found,
        "problem": problem,
        "chart": hour_chart(bars, SERIES, visit.parts.zone),
        "deadline": deadline,
        "what_if": what_if,
        "url_of": campaign_url,
    }


def _bars(hours: Sequence[HourForecast]) -> list[HourBar]:
    sums = Counter[datetime]()
    for hour, messages in zip(hours, whole_messages(hours), strict=True):
        sums[hour.hour] += messages
    return [HourBar(at=at, values=(float(sums[at]),)) for at in sorted(sums)]


def _deadline(text: str, zone: ZoneInfo) -> datetime | None:
    if not text.strip():
        return None
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f"the deadline {text!r} is not a time", remedy="Write a date and a time, such as 2027-01-31 18:00."
        ) from None
    return at if at.tzinfo is not None else at.replace(tzinfo=zone)


def _changes(text: str) -> dict[str, str]:
    given = text.replace(",", " ").split()
    if len(given) > MAX_CHANGES:
        raise UsageError(f"{len(given)} changes are more than {MAX_CHANGES}", remedy="Try fewer at once.")
    changes: dict[str, str] = {}
    for one in given:
        path, sign, value = one.partition("=")
        if not (sign and path and value):
            raise UsageError(
                f"{one!r} is not a change of a setting", remedy="Write a path and a value: sender.ada.rate=60/1h."
            )
        changes[path] = value
    return changes

"""The forecast of a campaign with a rollout: each share follows the messages before it."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.app.advance import advance_campaign
from postroad.app.context import AppContext
from postroad.campaign.plan import advance, launch
from postroad.forecast.forecast import ForecastRequest, forecast_campaign
from postroad.forecast.report import CampaignForecast
from postroad.senders.rollout import widen
from postroad.store.engine import write
from tests.forecast.test_forecast import MONDAY, campaign, clock, context

__all__ = ["clock", "context"]
PEOPLE = [f"r{n}@gmail.com" for n in range(300)]
pytestmark = pytest.mark.usefixtures("clock")


async def forecast(context: AppContext) -> CampaignForecast:
    return await forecast_campaign(context, ForecastRequest(campaign="trial"))


async def test_a_draft_is_forecast_share_by_share(context: AppContext) -> None:
    """The sender has a rate of 60 an hour: 30 messages, a wait of 5 hours in all, and 270 more."""
    campaign(context, PEOPLE, more="rollout: {shares: [10%, 100%], after: 5h}")
    found = await forecast(context)
    [hello, again] = found.steps
    assert found.recipients == 300
    assert (hello.first_at, round(hello.messages)) == (MONDAY, 300)
    # The first share takes half an hour, the others begin after five hours and take at least four and a half.
    assert MONDAY + timedelta(hours=9, minutes=20) <= hello.last_at <= MONDAY + timedelta(hours=11)
    by_hour = {hour.hour: hour.messages for hour in found.hours}
    assert round(by_hour[MONDAY]) == 30
    assert all(by_hour.get(MONDAY + timedelta(hours=n), 0) == 0 for n in range(1, 5))
    assert any("each share of the rollout" in note for note in found.notes)
    assert round(again.messages) == 300


async def test_without_a_rollout_it_ends_earlier(context: AppContext) -> None:
    campaign(context, PEOPLE)
    found = await forecast(context)
    assert found.steps[0].last_at < MONDAY + timedelta(hours=5, minutes=10)
    assert not any("rollout" in note for note in found.notes)


async def test_a_running_campaign_is_forecast_with_what_is_withheld(context: AppContext) -> None:
    campaign(context, PEOPLE, more="rollout: [10%, 100%]")
    launch(context.engine, "trial", MONDAY)
    found = await forecast(context)
    assert (found.recipients, round(found.steps[0].messages)) == (300, 300)
    # Its first messages all ended; the test has too few, so a person decides.
    with write(context.engine) as connection:
        settled = "UPDATE touch SET state = 'accepted', follow_up = false, settled_at = due_at WHERE state = 'planned'"
        connection.execute(sa.text(settled))
    await advance_campaign(context, "trial")
    found = await forecast(context)
    assert round(found.steps[0].messages) == 270
    assert any("Share 2 is not let go now: 0 hard bounces" in note for note in found.notes)
    widen(context.engine, "trial", 2, by="ada", now=MONDAY)
    advance(context.engine, "trial", MONDAY)
    found = await forecast(context)
    assert round(found.steps[0].messages) == 270
    assert not any("rollout" in note for note in found.notes)

"""Campaigns: which part of an audience is where, the rows of each part, and when it is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import sqlalchemy as sa
from fastapi import Query, Response

from postroad.campaign.status import CampaignSummary
from postroad.console.authorise import CurrentVisit
from postroad.console.campaign_view import (
    CAMPAIGN_TONES,
    ENROLMENT_TONES,
    TOUCH_TONES,
    audience_bar,
    campaign_url,
    states_bar,
    used_states,
)
from postroad.console.hour_chart import HourBar, hour_chart
from postroad.console.screen import NavSection, Screen
from postroad.console.variant_view import variant_views
from postroad.console.visit import Visit
from postroad.explain.campaign_delays import campaign_delays
from postroad.local.live_launches import LiveLaunch, shown_launches
from postroad.read_model.campaigns import (
    CampaignParts,
    campaign_lines,
    campaign_parts,
    campaign_states,
    campaign_touches,
    campaign_traffic,
    journey_recipients,
)
from postroad.read_model.receivers import TrafficWindow
from postroad.settings import AccessRole
from postroad.store.campaign import CampaignState, find_campaign
from postroad.store.cohort import NamedPause, pauses
from postroad.store.enrolment import EnrolmentState, ExitReason
from postroad.store.ledger import LIVE, TouchState
from postroad.store.overflow import Moved, moved
from postroad.store.traffic import CampaignHour

screen = Screen(name="campaigns", title="Campaigns", path="/campaigns", section=NavSection.MAIL)

MOVED_OF_STEP: Final = 2_000
"""Messages that went to other senders, of each step, that the page counts: those that went last."""
TRAFFIC_SERIES: Final = (("accepted", "good"), ("deferred", "warn"), ("bounced", "bad"))

Cursor = Annotated[str | None, Query(max_length=200)]
StepQuery = Annotated[str | None, Query(max_length=200)]


@screen.get("/campaigns", role=AccessRole.VIEW)
async def campaigns(visit: CurrentVisit, state: CampaignState | None = None, after: Cursor = None) -> Response:
    """List the campaigns, the newest first."""
    page = await visit.read(campaign_lines, state=state, after=after)
    return visit.page(
        "campaigns.html",
        page=page,
        first=after is None,
        state=state,
        states=await visit.read(campaign_states),
        tones=CAMPAIGN_TONES,
        bar_of=states_bar,
        url_of=campaign_url,
    )


@screen.get("/campaigns/{campaign}", role=AccessRole.VIEW)
async def campaign(visit: CurrentVisit, campaign: str) -> Response:
    """Show a campaign."""
    return visit.page("campaign.html", **await _campaign_values(visit, campaign))


@screen.get("/campaigns/{campaign}/live", role=AccessRole.VIEW)
async def live(visit: CurrentVisit, campaign: str) -> Response:
    """Return the part of the page that changes."""
    return visit.page("campaign_live.html", **await _campaign_values(visit, campaign))


def _read_campaign(
    connection: sa.Connection, name: str, now: datetime
) -> tuple[CampaignParts, list[CampaignHour], list[Moved], list[NamedPause]]:
    found = campaign_parts(connection, name)
    campaign_id = find_campaign(connection, name).id or 0
    paused = [each for each in pauses(connection) if each.campaign == name]
    return (
        found,
        campaign_traffic(connection, name, now, TrafficWindow.WEEK),
        moved(connection, campaign_id, newest=MOVED_OF_STEP),
        paused,
    )


def _is_cut(moves: Sequence[Moved]) -> bool:
    """Return whether a step may have more moved messages than were counted."""
    of_step: Counter[str] = Counter()
    for move in moves:
        of_step[move.step] += move.states.total()
    return max(of_step.values(), default=0) >= MOVED_OF_STEP


async def _live_launch(visit: Visit, summary: CampaignSummary) -> LiveLaunch | None:
    """Return the run that launches a draft now."""
    if summary.state is not CampaignState.DRAFT:
        return None
    return (await shown_launches(visit.parts.context)).get(summary.campaign)


async def _campaign_values(visit: Visit, name: str) -> dict[str, Any]:
    found, hours, moves, paused = await visit.read(_read_campaign, name, visit.parts.now())
    summary = found.summary
    bars = [HourBar(at=hour.at, values=(hour.accepted, hour.deferred, hour.bounced)) for hour in hours]
    return {
        "summary": summary,
        "tone": CAMPAIGN_TONES[summary.state],
        "parts": audience_bar(found),
        "steps": summary.steps,
        "states": used_states(step.counts for step in summary.steps),
        "waiting": sum(summary.counts[state] for state in LIVE),
        "chart": hour_chart(bars, TRAFFIC_SERIES, visit.parts.zone),
        "moves": moves,
        "counts_newest": MOVED_OF_STEP if _is_cut(moves) else None,
        "paused_cohorts": paused,
        "url_of": campaign_url,
        "tones": TOUCH_TONES,
        "variants": await variant_views(visit, name),
        "request_expired": summary.approval is not None and summary.approval.expired(visit.parts.now()),
        "launching": await _live_launch(visit, summary),
    }


@screen.get("/campaigns/{campaign}/messages", role=AccessRole.VIEW)
async def messages(
    visit: CurrentVisit,
    campaign: str,
    state: TouchState = TouchState.ACCEPTED,
    step: StepQuery = None,
    after: Cursor = None,
) -> Response:
    """List the messages of a campaign in one state."""
    page = await visit.read(campaign_touches, campaign, state=state, step=step, after=after)
    found = await visit.read(campaign_parts, campaign)
    return visit.page(
        "campaign_messages.html",
        page=page,
        summary=found.summary,
        state=state,
        step=step,
        first=after is None,
        tones=TOUCH_TONES,
        url_of=campaign_url,
    )


@screen.get("/campaigns/{campaign}/recipients", role=AccessRole.VIEW)
async def recipients(
    visit: CurrentVisit,
    campaign: str,
    state: EnrolmentState = EnrolmentState.ACTIVE,
    why: ExitReason | None = None,
    step: StepQuery = None,
    after: Cursor = None,
) -> Response:
    """List the recipients of a journey in one state."""
    page = await visit.read(journey_recipients, campaign, state=state, why=why, step=step, after=after)
    found = await visit.read(campaign_parts, campaign)
    return visit.page(
        "campaign_recipients.html",
        page=page,
        summary=found.summary,
        state=state,
        why=why,
        step=step,
        first=after is None,
        tones=ENROLMENT_TONES,
        url_of=campaign_url,
    )


@screen.get("/campaigns/{campaign}/delays", role=AccessRole.VIEW)
async def delays(visit: CurrentVisit, campaign: str) -> Response:
    """Show where the hours from due to accepted went."""
    found = await campaign_delays(visit.parts.context, campaign)
    return visit.page("campaign_delays.html", found=found, url_of=campaign_url)

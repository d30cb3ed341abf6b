"""Campaigns: list, look at, and what one does with them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import Field

from postroad.api.access import ApiRoute, needs
from postroad.api.fields import (
    DEFAULT_PAGE,
    Answer,
    CallerParameter,
    CampaignName,
    CursorParameter,
    Limit,
    Time,
    problems,
)
from postroad.api.pages import page_of
from postroad.api.problems import ProblemKind, invalid
from postroad.app.message_order import MAX_KEY_CHARACTERS
from postroad.app.preflight import preflight_with_file
from postroad.campaign.finding import Level, PreflightFinding
from postroad.campaign.status import CampaignSummary, summary
from postroad.forecast.coming import coming_recipients
from postroad.forecast.forecast import ForecastRequest, forecast_campaign
from postroad.local.campaign_launch import require_startable, start_launch
from postroad.settings import AccessRole
from postroad.store.campaign import CampaignState
from postroad.store.campaign_page import CampaignRow, campaign_page
from postroad.store.engine import read
from postroad.store.enrolment import ExitReason
from postroad.store.ledger import TouchState

router = APIRouter(route_class=ApiRoute, tags=["campaigns"])

Counts = Annotated[dict[TouchState, int], Field(description="messages by state; they sum to `messages`")]


class CampaignListed(Answer):
    """A campaign in a list."""

    name: str
    state: CampaignState
    audience: str
    sender: str
    created_at: Time
    launched_at: Time | None
    finished_at: Time | None


class CampaignPage(Answer):
    """A page of campaigns, in the order of their names."""

    items: list[CampaignListed]
    next: str | None


class StepAnswer(Answer):
    """One email step."""

    name: str
    messages: int
    counts: Counts


class EnrolmentsAnswer(Answer):
    """Enrolments of a journey: enrolled = active + completed + exited."""

    entry: str
    open: bool = Field(description="whether more recipients may enter")
    enrolled: int
    active: int
    completed: int
    exited: dict[ExitReason, int]
    goal: int = Field(description="how many reached the goal")


class CampaignAnswer(Answer):
    """The state of a campaign."""

    name: str
    state: CampaignState
    audience: int = Field(description="size of the frozen audience; of `entry: api`, the messages")
    messages: int
    counts: Counts
    steps: list[StepAnswer]
    enrolments: EnrolmentsAnswer | None
    launched_at: Time | None
    next_due_at: Time | None
    paused_at: Time | None
    paused_by: str | None
    launch_failed_at: Time | None
    launch_error: str | None


class FindingAnswer(Answer):
    """One problem and its remedy."""

    code: str = Field(description="see docs/reference/preflight-findings.md")
    level: Level
    what: str
    remedy: str
    step: str | None
    place: str | None
    recipients: int | None
    examples: list[str]


class PreflightAnswer(Answer):
    """All findings of a preflight. ``ok``: nothing prevents the launch."""

    campaign: str
    ok: bool
    recipients: int
    findings: list[FindingAnswer]


class HourAnswer(Answer):
    """Messages of one hour from one sender to one provider."""

    hour: Time
    sender: str
    provider: str
    messages: float


class StepForecastAnswer(Answer):
    """When the messages of a step leave."""

    step: str
    messages: float
    first_at: Time
    last_at: Time


class HoldAnswer(Answer):
    """What holds mail, and for how many message hours."""

    cause: str
    limit: str
    message_hours: float


class ForecastAnswer(Answer):
    """When the mail of a campaign leaves, if no receiver refuses it."""

    campaign: str
    launched: bool
    made_at: Time
    recipients: int
    messages: float
    ends_at: Time | None = Field(description="null: it does not end, as long as what holds it is not removed")
    steps: list[StepForecastAnswer]
    holds: list[HoldAnswer]
    hours: list[HourAnswer]
    notes: list[str]


class LaunchAnswer(Answer):
    """The Prefect run of a launch."""

    campaign: str
    flow_run: str
    url: str
    needs_approval: bool = Field(description="the run waits until a person approves the launch")


@router.get("/campaigns", responses=problems())
@needs(AccessRole.VIEW)
async def list_campaigns(
    caller: CallerParameter,
    cursor: CursorParameter = None,
    limit: Limit = DEFAULT_PAGE,
    state: Annotated[CampaignState | None, Query(description="only in this state")] = None,
) -> CampaignPage:
    """List campaigns, in the order of their names."""
    kind = f"campaigns {state}"
    key = caller.parts.cursors.read(kind, cursor)

    def look() -> list[CampaignRow]:
        with read(caller.parts.context.engine) as connection:
            return campaign_page(connection, after=str(key[0]) if key else "", state=state, limit=limit + 1)

    rows, last = page_of(await asyncio.to_thread(look), limit)
    return CampaignPage(
        items=[CampaignListed.model_validate(row, from_attributes=True) for row in rows],
        next=caller.parts.cursors.sign(kind, [last.name]) if last is not None else None,
    )


@router.get("/campaigns/{name}", responses=problems(ProblemKind.NOT_FOUND))
@needs(AccessRole.VIEW)
async def get_campaign(name: CampaignName, caller: CallerParameter) -> CampaignAnswer:
    """Return the state of a campaign: its messages by step and state."""
    return _campaign(await asyncio.to_thread(summary, caller.parts.context.engine, name))


def _campaign(found: CampaignSummary) -> CampaignAnswer:
    journey = found.journey
    return CampaignAnswer(
        name=found.campaign,
        state=found.state,
        audience=found.audience,
        messages=sum(found.counts.values()),
        counts=found.counts,
        steps=[StepAnswer(name=step.name, messages=step.touches, counts=step.counts) for step in found.steps],
        enrolments=EnrolmentsAnswer(
            entry=journey.entry,
            open=journey.open,
            enrolled=journey.enrolled,
            active=journey.active,
            completed=journey.completed,
            exited=journey.exited,
            goal=journey.goal,
        )
        if journey is not None
        else None,
        launched_at=found.launched_at,
        next_due_at=found.next_due_at,
        paused_at=found.paused_at,
        paused_by=found.paused_by,
        launch_failed_at=found.launch_failed_at,
        launch_error=found.launch_error,
    )


@router.post("/campaigns/{name}/preflight", responses=problems(ProblemKind.NOT_FOUND, ProblemKind.PREFLIGHT_FAILED))
@needs(AccessRole.VIEW)
async def preflight_campaign(name: CampaignName, caller: CallerParameter) -> PreflightAnswer:
    """Check a campaign before its launch. Nothing is changed."""
    report, _ = await preflight_with_file(caller.parts.context, name)
    return PreflightAnswer(
        campaign=name,
        ok=report.ok,
        recipients=report.recipients,
        findings=[_finding(finding) for finding in report.findings],
    )


def _finding(finding: PreflightFinding) -> FindingAnswer:
    return FindingAnswer.model_validate({**vars(finding), "examples": list(finding.examples)})


@router.get("/campaigns/{name}/forecast", responses=problems(ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.VIEW)
async def forecast_campaign_(name: CampaignName, caller: CallerParameter) -> ForecastAnswer:
    """Forecast hour by hour when a campaign's mail leaves, and what holds it. Nothing is changed."""
    context = caller.parts.context
    coming = await asyncio.to_thread(coming_recipients, context, name)
    found = await forecast_campaign(context, ForecastRequest(campaign=name, coming=coming))
    rows: dict[str, Any] = {part: [vars(row) for row in getattr(found, part)] for part in ("steps", "holds", "hours")}
    return ForecastAnswer(
        campaign=found.campaign,
        launched=found.launched,
        made_at=found.made_at,
        recipients=found.recipients,
        messages=found.messages,
        ends_at=found.ends_at,
        notes=list(found.notes),
        **rows,
    )


@router.post(
    "/campaigns/{name}/launch",
    status_code=202,
    responses=problems(ProblemKind.NOT_FOUND, ProblemKind.CONFLICT, ProblemKind.PREFLIGHT_FAILED),
)
@needs(AccessRole.SEND)
async def launch_campaign(
    name: CampaignName,
    caller: CallerParameter,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=MAX_KEY_CHARACTERS,
            description="a repetition with the same key returns the same run; unset: the campaign is launched again, "
            "which sends no message twice",
        ),
    ] = None,
) -> LaunchAnswer:
    """Launch a campaign: preflight, then start the Prefect run that freezes its audience and enqueues its mail.

    While a run launches the campaign, this is a conflict, whose detail names the run.
    """
    if key is not None and not key.isascii():
        raise invalid("Idempotency-Key", "it has visible ASCII characters")
    run_key = f"api {name} {key}" if key is not None else None
    await require_startable(caller.parts.context, name, is_repetition=key is not None)
    async with caller.act("campaign.launch", name, first=True):
        started = await start_launch(caller.parts.context, name, asked_by=caller.name, idempotency_key=run_key)
    return LaunchAnswer(campaign=name, flow_run=started.run_id, url=started.url, needs_approval=started.needs_approval)

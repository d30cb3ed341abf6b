"""Launches that Prefect runs: follow one, list the requests for approval, approve, refuse."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field

from postroad.api.access import ApiRoute, Caller, needs
from postroad.api.fields import (
    DEFAULT_PAGE,
    MAX_BIG_ID,
    WITH_BODY,
    Answer,
    CallerParameter,
    CampaignName,
    CursorParameter,
    Input,
    Limit,
    Time,
    problems,
)
from postroad.api.pages import number_of, page_of
from postroad.api.problems import ProblemKind
from postroad.app.approval import find_pending, list_approvals
from postroad.campaign.approval_decision import Decider
from postroad.local.approval_runs import ResumedDecision, approve_and_resume, refuse_and_resume
from postroad.local.prefect_api import open_prefect
from postroad.settings import AccessRole
from postroad.store.approval import ApprovalState, NamedApproval

router = APIRouter(route_class=ApiRoute, tags=["launches"])

MAX_REASON = 300


class RunAnswer(Answer):
    """The state of the Prefect run of a launch."""

    flow_run: UUID
    state: str = Field(description="as Prefect's UI shows it", examples=["Completed"])
    message: str = Field(description="what the run says of itself, such as who refused the launch")
    ended: bool
    completed: bool = Field(description="it ended well. A refused launch is completed, too, and its state says so")
    url: str = Field(description="page of the run in Prefect's UI")


class ApprovalAnswer(Answer):
    """A request to launch a campaign, and its decision."""

    id: int = Field(description="id of the request", examples=[1])
    campaign: str
    state: ApprovalState
    expired: bool = Field(description="its time is over, so it allows no launch")
    people: int | None = Field(description="recipients when it was requested; null: not known")
    summary: str = Field(description="what the person who decides is shown, in Markdown")
    requested_at: Time
    requested_by: str
    expires_at: Time
    flow_run: str | None = Field(description="the Prefect run that waits for it")
    decided_at: Time | None
    decided_by: str | None
    decided_from: str | None
    reason: str | None
    used_at: Time | None = Field(description="when the launch began")


class ApprovalPage(Answer):
    """A page of requests, the newest first."""

    items: list[ApprovalAnswer]
    next: str | None


class ApprovalInput(Input):
    """Which request is approved."""

    request: int = Field(
        ge=1, le=MAX_BIG_ID, description="`id` of the request, so that one that was not seen is not approved"
    )


class RefusalInput(Input):
    """Why a launch is refused."""

    reason: str = Field(min_length=1, max_length=MAX_REASON, description="the person who asked for it sees this")


class DecisionAnswer(Answer):
    """A decision on a launch."""

    campaign: str
    state: ApprovalState
    already: bool = Field(description="the same decision was made before")
    people: int | None
    flow_run: str | None = Field(description="the Prefect run that continues; null: no run waits for the decision")
    url: str | None


@router.get("/launches/{flow_run}", responses=problems(ProblemKind.NOT_FOUND))
@needs(AccessRole.SEND)
async def get_launch(
    flow_run: Annotated[UUID, Path(description="`flow_run` of the launch")], caller: CallerParameter
) -> RunAnswer:
    """Return the state of the Prefect run of a launch. `GET /campaigns/{name}` has what became of its messages."""
    async with open_prefect(caller.parts.context.settings) as prefect:
        state = await prefect.state(flow_run)
        return RunAnswer(
            flow_run=flow_run,
            state=state.name,
            message=state.message,
            ended=state.terminal,
            completed=state.completed,
            url=prefect.url_of(flow_run),
        )


@router.get("/approvals", responses=problems(ProblemKind.NOT_FOUND))
@needs(AccessRole.SEND)
async def list_launch_approvals(
    caller: CallerParameter,
    cursor: CursorParameter = None,
    limit: Limit = DEFAULT_PAGE,
    campaign: Annotated[str | None, Query(min_length=1, max_length=100, description="only of this campaign")] = None,
) -> ApprovalPage:
    """List requests to launch campaigns and their decisions, the newest first."""
    kind = f"approvals {campaign}"
    before = number_of(caller.parts.cursors.read(kind, cursor))
    rows = await list_approvals(caller.parts.context, campaign, limit + 1, before=before)
    shown, last = page_of(rows, limit)
    return ApprovalPage(
        items=[_answer(caller, row) for row in shown],
        next=caller.parts.cursors.sign(kind, [last.approval.id or 0]) if last is not None else None,
    )


def _answer(caller: Caller, row: NamedApproval) -> ApprovalAnswer:
    approval = row.approval
    fields = approval.model_dump(include=set(ApprovalAnswer.model_fields))
    expired = approval.expired(caller.parts.context.clock.now())
    return ApprovalAnswer(**fields, campaign=row.campaign, expired=expired, flow_run=approval.run_id)


@router.post("/campaigns/{name}/approve", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.SEND)
async def approve_launch(name: CampaignName, approval: ApprovalInput, caller: CallerParameter) -> DecisionAnswer:
    """Approve the launch that waits, and let its run continue. Idempotent.

    With `approval.second_person`, the key may not be the one that asked for it.
    """
    context = caller.parts.context
    pending = await find_pending(context, name)
    async with caller.act("campaign.approve", name) as act:
        act.count = pending.people if pending is not None else None
        done = await approve_and_resume(context, name, _decider(caller), seen=approval.request)
        act.count = 0 if done.decision.already else act.count
    return _decision(name, done)


@router.post("/campaigns/{name}/refuse", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.SEND)
async def refuse_launch(name: CampaignName, refusal: RefusalInput, caller: CallerParameter) -> DecisionAnswer:
    """Refuse the launch that waits, or take back an approval that no launch used. The campaign stays a draft."""
    async with caller.act("campaign.refuse", name, note=refusal.reason):
        done, _ = await refuse_and_resume(caller.parts.context, name, _decider(caller), refusal.reason)
    return _decision(name, done)


def _decider(caller: Caller) -> Decider:
    return Decider(name=caller.name, source=f"the API, from {caller.origin}")


def _decision(name: str, done: ResumedDecision) -> DecisionAnswer:
    approval = done.decision.approval
    return DecisionAnswer(
        campaign=name,
        state=approval.state,
        already=done.decision.already,
        people=approval.people,
        flow_run=approval.run_id if done.url is not None else None,
        url=done.url,
    )

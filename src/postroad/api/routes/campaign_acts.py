"""Acts on campaigns: pause, resume, close, cancel, recall."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import Field

from postroad.api.access import ApiRoute, Caller, needs
from postroad.api.fields import WITH_BODY, Answer, CallerParameter, CampaignName, Input, problems
from postroad.api.problems import ProblemKind
from postroad.app import campaign_acts
from postroad.campaign.status import summary
from postroad.settings import AccessRole
from postroad.store.campaign import CampaignState
from postroad.store.ledger import TouchState

router = APIRouter(route_class=ApiRoute, tags=["campaigns"])

MAX_REASON = 300


class ActAnswer(Answer):
    """The state of a campaign after an act."""

    campaign: str
    state: CampaignState


class RecallInput(Input):
    """What to recall."""

    step: str | None = Field(default=None, max_length=100, description="only this email step; unset: the campaign")
    reason: str = Field(default="", max_length=MAX_REASON, description="it is kept in the audit log")


class RecallAnswer(Answer):
    """The messages of what was recalled, by state."""

    campaign: str
    step: str | None
    state: CampaignState
    counts: dict[TouchState, int]


@router.post("/campaigns/{name}/pause", responses=problems(ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.SEND)
async def pause_campaign(name: CampaignName, caller: CallerParameter) -> ActAnswer:
    """Let nothing more of a campaign leave. What is on the wire finishes."""
    async with caller.act("campaign.pause", name):
        await campaign_acts.pause(caller.parts.context, name, by=f"API key {caller.key.name}")
    return await _acted(caller, name)


@router.post("/campaigns/{name}/resume", responses=problems(ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.SEND)
async def resume_campaign(name: CampaignName, caller: CallerParameter) -> ActAnswer:
    """Resume a paused campaign. No message is sent twice."""
    async with caller.act("campaign.resume", name):
        await campaign_acts.resume(caller.parts.context, name, by=f"API key {caller.key.name}")
    return await _acted(caller, name)


@router.post("/campaigns/{name}/close", responses=problems(ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.SEND)
async def close_campaign(name: CampaignName, caller: CallerParameter) -> ActAnswer:
    """Let no more recipients enter a campaign. It finishes after those who did."""
    async with caller.act("campaign.close", name):
        await campaign_acts.close(caller.parts.context, name)
    return await _acted(caller, name)


@router.post("/campaigns/{name}/cancel", responses=problems(ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.OPERATE)
async def cancel_campaign(name: CampaignName, caller: CallerParameter) -> ActAnswer:
    """End a campaign for good. What is on the wire finishes; everything that waits is cancelled."""
    async with caller.act("campaign.cancel", name) as act:
        act.count = await campaign_acts.cancel(caller.parts.context, name)
    return await _acted(caller, name)


@router.post("/campaigns/{name}/recall", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.OPERATE)
async def recall_campaign(name: CampaignName, recall: RecallInput, caller: CallerParameter) -> RecallAnswer:
    """Stop what has not left of a campaign, or of one of its steps, for good."""
    target = f"{name}, step {recall.step}" if recall.step else name
    async with caller.act("campaign.recall", target, note=recall.reason) as act:
        done = await campaign_acts.recall_campaign(caller.parts.context, name, recall.step)
        act.count = done.counts[TouchState.CANCELLED]
    return RecallAnswer(campaign=name, step=done.step, state=done.state, counts=done.counts)


async def _acted(caller: Caller, name: str) -> ActAnswer:
    found = await asyncio.to_thread(summary, caller.parts.context.engine, name)
    return ActAnswer(campaign=name, state=found.state)

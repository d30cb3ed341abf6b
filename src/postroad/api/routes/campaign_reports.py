"""How a campaign does: its rollout, which may be widened, and its variants."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import Field

from postroad.api.access import ApiRoute, needs
from postroad.api.fields import WITH_BODY, Answer, CallerParameter, CampaignName, Input, Time, problems
from postroad.api.problems import ProblemKind
from postroad.app.rollouts import read_rollout, widen
from postroad.campaign.variant_report import variant_report
from postroad.settings import AccessRole
from postroad.store.campaign import CampaignState
from postroad.store.ledger import TouchState
from postroad.store.variant import DecisionReason
from postroad.store.variant_split import Criterion

router = APIRouter(route_class=ApiRoute, tags=["campaigns"])


class ShareAnswer(Answer):
    """One share of a rollout."""

    number: int = Field(description="from 1")
    basis_points: int = Field(description="of the audience, with all shares before, in hundredths of a percent")
    people: int = Field(description="recipients of this share alone")
    opened_at: Time | None = Field(description="when it was let go")
    opened_by: str | None
    held_since: Time | None
    held_because: str | None = Field(description="kind of the reason for which it is not let go")
    held_why: str | None = Field(description="the reason in words")


class RolloutAnswer(Answer):
    """The rollout of a campaign."""

    campaign: str
    shares: list[ShareAnswer] = Field(description="empty: it has no rollout, or was not launched")
    next: int | None = Field(description="number of the share that is let go next; null: all were")


class WidenInput(Input):
    """Which share to let go."""

    share: int = Field(ge=1, le=1_000, description="number of the next share, so that a repetition opens no other one")


class WidenAnswer(Answer):
    """A share that was let go."""

    campaign: str
    share: int
    already: bool = Field(description="it was let go before")
    submitted: int = Field(description="messages that were submitted to the queue now")


class VariantAnswer(Answer):
    """What became of one variant, in messages."""

    name: str
    share: int = Field(description="percent of the recipients, before a decision")
    touches: int = Field(description="messages")
    counts: dict[TouchState, int]
    sent: int = Field(description="accepted, bounced or unknown")
    accepted: int
    bounced: int
    complained: int
    unsubscribed: int
    replied: int
    goal: int | None = Field(description="null: the campaign has no goal")
    rate: float = Field(description="share of the accepted messages that succeeded")
    low: float = Field(description="lower end of the 95 % interval, which holds at all times at once")
    high: float
    evidence: float | None = Field(
        description="that it is better than each of the others, now or at the decision, at most 1,000,000; null: the "
        "step has no rule of a winner"
    )


class VariantDecisionAnswer(Answer):
    """How the winner of a step is decided, and what was."""

    by: Criterion
    begun_at: Time | None
    decide_at: Time | None = Field(description="when it is decided at the latest")
    planned: int
    tested: int
    waiting: int = Field(description="messages that wait for the decision")
    at_most: int = Field(description="percent of the recipients who get a variant before the decision")
    evidence_needed: float = Field(description="a variant wins when its `evidence` reaches this")
    false_winner: float = Field(description="probability, at most, of a winner that is not better than all others")
    decided_at: Time | None
    winner: str | None = Field(description="null with `decided_at`: no variant was better for sure")
    reason: DecisionReason | None
    words: str = Field(description="all of it as a sentence")


class StepVariantsAnswer(Answer):
    """The variants of one step. Their messages and `without_variant` sum to `touches`."""

    step: str
    success: Criterion = Field(description="what the rates count")
    touches: int
    without_variant: int
    variants: list[VariantAnswer]
    decision: VariantDecisionAnswer | None = Field(description="null: the step has no rule of a winner")


class VariantsAnswer(Answer):
    """The variants of a campaign. Steps without variants are missing."""

    campaign: str
    state: CampaignState
    steps: list[StepVariantsAnswer]


@router.get("/campaigns/{name}/rollout", responses=problems(ProblemKind.NOT_FOUND))
@needs(AccessRole.VIEW)
async def get_rollout(name: CampaignName, caller: CallerParameter) -> RolloutAnswer:
    """Return the shares of a campaign's rollout, and what holds the next one."""
    found = await read_rollout(caller.parts.context, name)
    if found is None:
        return RolloutAnswer(campaign=name, shares=[], next=None)
    return RolloutAnswer(
        campaign=name,
        shares=[ShareAnswer.model_validate(share, from_attributes=True) for share in found.shares],
        next=found.next.number if found.next is not None else None,
    )


@router.post("/campaigns/{name}/widen", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.OPERATE)
async def widen_campaign(name: CampaignName, share: WidenInput, caller: CallerParameter) -> WidenAnswer:
    """Let the next share of a rollout go, whatever holds it. A pass does this by itself when the outcomes are good."""
    async with caller.act("campaign.widen", f"{name}, share {share.share}") as act:
        done = await widen(caller.parts.context, name, share.share, by=caller.name)
        act.count = done.advance.submitted
    return WidenAnswer(campaign=name, share=share.share, already=not done.opened, submitted=done.advance.submitted)


@router.get("/campaigns/{name}/variants", responses=problems(ProblemKind.NOT_FOUND))
@needs(AccessRole.VIEW)
async def get_variants(name: CampaignName, caller: CallerParameter) -> VariantsAnswer:
    """Return what became of each variant, how many recipients succeeded, and how the winner is decided."""
    report = await asyncio.to_thread(variant_report, caller.parts.context.engine, name)
    return VariantsAnswer.model_validate(report, from_attributes=True)

"""The decision about a launch: a second person approves or refuses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import Response

from postroad.app.approval import find_pending
from postroad.campaign.approval_decision import Decider
from postroad.campaign.planned_variants import StepVariantPlan, planned_variants
from postroad.console.authorise import CurrentVisit
from postroad.console.confirm import Confirmation, Extent, FormField
from postroad.console.screens.launch import launch_url, screen
from postroad.console.visit import Visit
from postroad.errors import StateError
from postroad.local.approval_runs import approve_and_resume, refuse_and_resume
from postroad.settings import AccessRole
from postroad.store.approval import Approval, ApprovalState

MAX_REASON: Final = 300


async def _open_request(visit: Visit, campaign: str) -> Approval:
    """Return the request that waits. Raises StateError if no launch of the campaign waits for an approval."""
    pending = await find_pending(visit.parts.context, campaign)
    if pending is None or pending.state is not ApprovalState.OPEN or pending.expired(visit.parts.now()):
        raise StateError(
            f"no launch of campaign {campaign} waits for an approval",
            remedy="It was decided, it has expired, or it was never asked for.",
        )
    return pending


def _variants(campaign: str, plans: Sequence[StepVariantPlan]) -> list[Extent]:
    """Return the variants of each step, with the link to their messages."""
    href = f"{launch_url(campaign)}#variants"
    return [
        Extent(count=len(plan.variants), label=f"variants of step {plan.step}: {plan.shares}", href=href)
        for plan in plans
    ]


def _people(pending: Approval) -> list[Extent]:
    """Return how many people get it; empty: that is not known, because recipients enter after the launch."""
    known = pending.people is not None
    return [Extent(count=pending.people or 0, label="recipients get its first message")] if known else []


@screen.get("/launch/{campaign}/approve", role=AccessRole.SEND)
async def ask_approve(visit: CurrentVisit, campaign: str) -> Response:
    """Show what an approval lets go."""
    pending = await _open_request(visit, campaign)
    asked = f"{pending.requested_by or 'A person'} asked for it {visit.parts.templates.age(pending.requested_at)}."
    return visit.confirm(
        Confirmation(
            title=f"Approve the launch of {campaign}?",
            button="Approve it",
            action=launch_url(campaign, "approve"),
            back=launch_url(campaign),
            extents=[*_people(pending), *_variants(campaign, await visit.read(planned_variants, campaign))],
            effects=[asked, "It is launched at once. The approval holds for the campaign as it is now."],
            hidden={"request": str(pending.id)},
        )
    )


@screen.post("/launch/{campaign}/approve", role=AccessRole.SEND)
async def approve(visit: CurrentVisit, campaign: str) -> Response:
    """Approve the launch that the page showed, and let its run continue."""
    shown = (await visit.form()).row_id("request")
    pending = await find_pending(visit.parts.context, campaign)
    async with visit.act("campaign.approve", campaign, count=pending.people if pending else None) as act:
        done = await approve_and_resume(visit.parts.context, campaign, _decider(visit), seen=shown)
        act.count = 0 if done.decision.already else act.count  # Another person approved it.
    return visit.redirect(launch_url(campaign), f"The launch of {campaign} is approved. Its run continues.")


def _refusal(campaign: str, reason: str = "", error: str = "") -> Confirmation:
    hint = "The person who asked for it sees this."
    return Confirmation(
        title=f"Refuse the launch of {campaign}?",
        button="Refuse it",
        action=launch_url(campaign, "refuse"),
        back=launch_url(campaign),
        effects=["Nothing is sent. The campaign stays a draft, and can be launched again."],
        fields=[FormField(name="reason", label="Reason", value=reason, error=error, hint=hint)],
    )


@screen.get("/launch/{campaign}/refuse", role=AccessRole.SEND)
async def ask_refuse(visit: CurrentVisit, campaign: str) -> Response:
    """Ask for the reason."""
    return visit.confirm(_refusal(campaign))


@screen.post("/launch/{campaign}/refuse", role=AccessRole.SEND)
async def refuse(visit: CurrentVisit, campaign: str) -> Response:
    """Refuse a launch."""
    form = await visit.form()
    reason = form.text("reason", max_characters=MAX_REASON)
    if form.errors:
        return visit.confirm(_refusal(campaign, reason, form.errors["reason"]), status=422)
    async with visit.act("campaign.refuse", campaign, note=reason):
        await refuse_and_resume(visit.parts.context, campaign, _decider(visit), reason)
    return visit.redirect(launch_url(campaign), f"The launch of {campaign} is refused.")


def _decider(visit: Visit) -> Decider:
    return Decider(name=visit.user.user, source=f"the console, from {visit.client}")

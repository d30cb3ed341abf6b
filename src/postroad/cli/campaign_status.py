"""postroad campaign status: touches of a campaign by state, and why it does not send."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_line, print_table, print_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from postroad.app.context import AppContext
    from postroad.campaign.status import CampaignSummary, JourneySummary, StepSummary
    from postroad.store.approval import Approval
    from postroad.store.ledger import TouchState
    from postroad.store.rollout import RolloutShare


def status(
    name: Annotated[str | None, typer.Argument(help="Name of the campaign; all where none is named.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the progress of a campaign: its touches by state, which sum to its frozen audience.

    For a journey also its enrolments by step: enrolled = active + completed + exited.
    """
    from postroad.campaign.status import campaigns_in, summary
    from postroad.store.ledger import TouchState

    async def work(context: AppContext) -> tuple[list[CampaignSummary], datetime]:
        names = [name] if name else await asyncio.to_thread(campaigns_in, context.engine)
        return [await asyncio.to_thread(summary, context.engine, each) for each in names], context.clock.now()

    summaries, now = with_context(work)
    if as_json:
        rows = [
            {
                "campaign": each.campaign,
                "state": each.state,
                "audience": each.audience,
                "counts": each.counts,
                "steps": [_step(step) for step in each.steps],
                "launched_at": each.launched_at,
                "next_due_at": each.next_due_at,
                "paused_at": each.paused_at,
                "paused_by": each.paused_by,
                "launch_failed_at": each.launch_failed_at,
                "launch_error": each.launch_error,
                **({"approval": _approval(each.approval)} if each.approval is not None else {}),
                **({"rollout": [_share(share) for share in each.rollout]} if each.rollout else {}),
                **({"enrolments": _enrolments(each.journey)} if each.journey is not None else {}),
            }
            for each in summaries
        ]
        print_json(rows[0] if name else rows)
        return
    for each in summaries:
        used = [state for state in TouchState if each.counts[state]]
        print_table(
            f"{each.campaign}: {each.state}, audience {each.audience:,}",
            ["step", "touches", *used],
            (row for step in each.steps for row in _rows(step, used)),
        )
        if each.journey is not None and not each.journey.by_request:
            _print_journey(each.campaign, each.journey)
        if each.rollout:
            _print_rollout(each.campaign, each.rollout)
        for line in _notes(each, now):
            print_text(f"{line}\n")
    if not summaries:
        print_line("There is no campaign yet. `postroad campaign apply FILE` makes one.")


def _step(step: StepSummary) -> dict[str, object]:
    variants = [
        {"variant": name, "touches": sum(counts.values()), "counts": counts} for name, counts in step.variants.items()
    ]
    row = {
        "step": step.name,
        "touches": step.touches,
        "counts": step.counts,
        "version": step.version,
        "recalled_at": step.recalled_at,
    }
    return {**row, "variants": variants} if variants else row


def _rows(step: StepSummary, used: list[TouchState]) -> Iterator[list[object]]:
    yield [step.name, step.touches, *(step.counts[state] for state in used)]
    for name, counts in step.variants.items():
        yield [f"  {name}", sum(counts.values()), *(counts[state] for state in used)]


def _approval(approval: Approval) -> dict[str, object]:
    return approval.model_dump(
        include={"id", "state", "people", "requested_at", "requested_by", "expires_at", "decided_by", "decided_at"}
    )


def _share(share: RolloutShare) -> dict[str, object]:
    return {
        "number": share.number,
        "percent": share.basis_points / 100,
        "people": share.people,
        "opened_at": share.opened_at,
        "opened_by": share.opened_by,
        "held_since": share.held_since,
        "held_because": share.held_because,
        "held_why": share.held_why,
    }


def _print_rollout(campaign: str, shares: Sequence[RolloutShare]) -> None:
    coming = next((share for share in shares if share.opened_at is None), None)
    print_table(
        f"{campaign}: rollout",
        ["share", "of the audience", "people", "let go at", "by"],
        ([share.number, share.percent, share.people, share.opened_at, share.opened_by] for share in shares),
    )
    if coming is not None and coming.held_why is not None:
        since = f" since {coming.held_since:%Y-%m-%d %H:%M:%S} UTC" if coming.held_since is not None else ""
        print_text(
            f"share {coming.number} is not let go{since}: {coming.held_why}; "
            f"`postroad campaign widen {campaign}` lets it go\n"
        )


def _enrolments(journey: JourneySummary) -> dict[str, object]:
    return {
        "entry": journey.entry,
        "open": journey.open,
        "enrolled": journey.enrolled,
        "active": journey.active,
        "completed": journey.completed,
        "exited": sum(journey.exited.values()),
        "exited_by_reason": journey.exited,
        "goal": journey.goal,
        "steps": [
            {
                "step": place.step,
                "kind": place.kind,
                "active": place.enrolments.active,
                "completed": place.enrolments.completed,
                "exited": place.enrolments.exited.total(),
                "exited_by_reason": dict(sorted(place.enrolments.exited.items())),
                "goal": place.enrolments.goal,
            }
            for place in journey.places
        ],
    }


def _print_journey(campaign: str, journey: JourneySummary) -> None:
    reasons = list(journey.exited)
    print_table(
        f"{campaign}: {journey.enrolled:,} enrolled = {journey.active:,} active + {journey.completed:,} completed "
        f"+ {sum(journey.exited.values()):,} exited; {journey.goal:,} reached the goal",
        ["step", "kind", "active", "completed", *(f"exited: {reason}" for reason in reasons)],
        (
            [
                place.step,
                place.kind,
                place.enrolments.active,
                place.enrolments.completed,
                *(place.enrolments.exited[reason] for reason in reasons),
            ]
            for place in journey.places
        ),
    )


def _notes(summary: CampaignSummary, now: datetime) -> list[str]:
    """Return what a person has to know of a campaign that its table does not show."""
    from postroad.store.campaign import CampaignState
    from postroad.store.ledger import TouchState

    notes = [
        f"step {step.name} was recalled at {step.recalled_at:%Y-%m-%d %H:%M:%S} UTC, and is sent to no recipient"
        for step in summary.steps
        if step.recalled_at is not None
    ]
    if summary.state is CampaignState.PAUSED:
        since = f" since {summary.paused_at:%Y-%m-%d %H:%M:%S} UTC" if summary.paused_at else ""
        by = f" by {summary.paused_by}" if summary.paused_by else ""
        notes.append(f"paused{since}{by}; `postroad campaign resume {summary.campaign}` resumes it")
    if summary.approval is not None:
        notes.append(_approval_note(summary.campaign, summary.approval, now))
    if summary.journey is not None and summary.journey.open and summary.journey.by_request:
        notes.append(f"a program requests its messages, until `postroad campaign close {summary.campaign}`")
    elif summary.journey is not None and summary.journey.open:
        notes.append(
            f"recipients enter it ({summary.journey.entry}) until `postroad campaign close {summary.campaign}`"
        )
    awaiting = [step.name for step in summary.steps if step.counts[TouchState.AWAITING]]
    if awaiting:
        notes.append(
            f"{summary.counts[TouchState.AWAITING]:,} wait for the decision on the variants of {', '.join(awaiting)}: "
            f"`postroad campaign variants {summary.campaign}`"
        )
    if summary.launch_error is not None:
        notes.append(f"the launch at {summary.launch_failed_at:%Y-%m-%d %H:%M:%S} UTC failed: {summary.launch_error}")
    return notes


def _approval_note(campaign: str, approval: Approval, now: datetime) -> str:
    if approval.expired(now):
        return (
            f"the request to launch it expired at {approval.expires_at:%Y-%m-%d %H:%M:%S} UTC; "
            f"`postroad campaign launch {campaign}` requests it again"
        )
    until = f"until {approval.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    if (by := approval.decided_by) is not None:
        return f"its launch is approved by {by} {until}; `postroad campaign launch {campaign}` begins it"
    asker = f" that {approval.requested_by} asked for," if approval.requested_by else ""
    return f"its launch waits for an approval{asker} {until}; `postroad campaign approve {campaign} --by WHO` gives it"

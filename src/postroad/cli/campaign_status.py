"""postroad campaign status: touches of a campaign by state, and why it does not send."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_line, print_table, print_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroad.app.context import AppContext
    from postroad.campaign.status import CampaignSummary, JourneySummary, StepSummary
    from postroad.store.ledger import TouchState


def status(
    name: Annotated[str | None, typer.Argument(help="Name of the campaign; all where none is named.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the progress of a campaign: its touches by state, which sum to its frozen audience.

    For a journey also its enrolments by step: enrolled = active + completed + exited.
    """
    from postroad.campaign.status import campaigns_in, summary
    from postroad.store.ledger import TouchState

    async def work(context: AppContext) -> list[CampaignSummary]:
        names = [name] if name else await asyncio.to_thread(campaigns_in, context.engine)
        return [await asyncio.to_thread(summary, context.engine, each) for each in names]

    summaries = with_context(work)
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
        for line in _notes(each):
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


def _notes(summary: CampaignSummary) -> list[str]:
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

"""What a campaign run leaves behind to read: where its audience stands, and where to look next."""

from __future__ import annotations

from typing import Any

from postroad.campaign.status import Summary
from tasks.report import publish_markdown, publish_table


def ended(state: Summary) -> int:
    """People of the frozen audience whose first email reached its end, of whatever kind."""
    return sum(step.touches - step.live for step in state.steps[:1])


def completeness(state: Summary) -> list[dict[str, Any]]:
    """Rows of step, state and people; for each step they sum to its touches, and for the first to the audience."""
    rows: list[dict[str, Any]] = []
    for step in state.steps:
        rows += [_row(step.name, str(name), n, step.touches) for name, n in step.counts.items() if n]
        rows.append(_row(step.name, "= touches", step.touches, step.touches))
    return rows


def where_to_look(state: Summary, submitted: int) -> str:
    """Markdown: what this run did, and the commands that tell more."""
    name = state.campaign
    rest = state.audience - ended(state)
    going_on = (
        f"**{rest:,}** are still under way: due later, or being retried. Delivery goes on without this run."
        if rest
        else "Everybody in the audience is settled."
    )
    return f"""# {name}

This run handed **{submitted:,}** messages to the queue, for a frozen audience of **{state.audience:,}**.
{going_on}

| To see | run |
|---|---|
| where everybody stands | `postroad campaign status {name}` |
| what could not be delivered, by cause | `postroad queue dead --by cause` |
| how fast the queue moves | `postroad queue stats` |
"""


async def publish_result(state: Summary, submitted: int) -> None:
    """Show the completeness table and where to look next."""
    await publish_table(
        f"completeness-{state.campaign}",
        completeness(state),
        f"Where the {state.audience:,} people of {state.campaign} stand, step by step.",
    )
    await publish_markdown(
        f"result-{state.campaign}", where_to_look(state, submitted), f"The result of {state.campaign}"
    )


def _row(step: str, name: str, people: int, touches: int) -> dict[str, Any]:
    percent = 100.0 * people / touches if touches else 100.0
    return {"step": step, "state": name, "people": people, "percent": round(percent, 2)}

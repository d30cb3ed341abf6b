"""What a campaign run leaves behind to read: where its audience stands, and where to look next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from postroad.campaign.status import Summary
from tasks.report import publish_markdown, publish_table

ENDS: Final = frozenset({"accepted", "bounced", "suppressed", "cancelled", "expired", "dead", "unknown"})
"""A touch ends in exactly one of these; every other state is still under way."""


def ended(state: Summary) -> int:
    """People of the frozen audience whose touch reached its end."""
    return sum(n for name, n in state.counts.items() if name in ENDS)


def completeness(state: Summary) -> list[dict[str, Any]]:
    """Rows of state and people that add up to the last, the frozen audience. A difference is a row too."""
    rows = [_row(name, n, state.audience) for name, n in sorted(_plain(state.counts).items())]
    missing = state.audience - sum(state.counts.values())
    if missing:
        rows.append(_row("NOT ACCOUNTED FOR", missing, state.audience))
    return [*rows, _row("frozen audience", state.audience, state.audience)]


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
| where everybody stands | `postroad status {name}` |
| what could not be delivered, by cause | `postroad dead` |
| how fast the queue moves | `postroad queues` |
"""


async def publish_result(state: Summary, submitted: int) -> None:
    """Show the completeness table and where to look next."""
    await publish_table(
        f"completeness-{state.campaign}",
        completeness(state),
        f"Where each of the {state.audience:,} people of {state.campaign} stands.",
    )
    await publish_markdown(
        f"result-{state.campaign}", where_to_look(state, submitted), f"The result of {state.campaign}"
    )


def _plain(counts: Mapping[str, int]) -> dict[str, int]:
    return {str(name): n for name, n in counts.items()}


def _row(name: str, people: int, audience: int) -> dict[str, Any]:
    percent = 100.0 * people / audience if audience else 100.0
    return {"state": name, "people": people, "percent": round(percent, 2)}

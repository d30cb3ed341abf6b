"""What the run of a campaign shows: where its audience stands, and where to look next."""

from __future__ import annotations

from typing import Any

from postroad.campaign.status import CampaignSummary
from postroad.store.campaign import CampaignState
from postroad.store.ledger import TouchState
from tasks.report import (
    artifact_url,
    publish_markdown,
    publish_table,
    renew_markdown,
    renew_progress,
    renew_table,
    ui_url,
)


def ended(state: CampaignSummary) -> int:
    """People of the frozen audience whose first email reached its end, of whatever kind."""
    return sum(step.touches - step.live for step in state.steps[:1])


def completeness(state: CampaignSummary) -> list[dict[str, Any]]:
    """Rows of step, state and people; for each step they sum to its touches, and for the first to the audience."""
    rows: list[dict[str, Any]] = []
    for step in state.steps:
        rows += [_row(step.name, str(name), n, step.touches) for name, n in step.counts.items() if n]
        rows.append(_row(step.name, "= touches", step.touches, step.touches))
    return rows


def where_to_look(state: CampaignSummary) -> str:
    """Return Markdown: where the campaign stands, and the pages that tell more."""
    name = state.campaign
    rest = sum(step.live for step in state.steps)
    stop = (
        f"* To stop the mail, start `campaign` for {name} again on the page [Deployments]({ui_url()}/deployments), and "
        "cancel that run while it is running: that pauses the campaign\n"
        if rest and state.state is CampaignState.RUNNING
        else ""
    )
    return f"""# {name}

The frozen audience has **{state.audience:,}** people. {_outlook(state, rest)}

* [Where everybody stands]({artifact_url(f"completeness-{name}")}), step by step
* [How far delivery is]({artifact_url(f"delivery-{name}")})
* [How the queues stand]({artifact_url("queues")})
* [Deployments]({ui_url()}/deployments): run `dead-letters` to see by cause what could not be delivered
{stop}"""


def _outlook(state: CampaignSummary, rest: int) -> str:
    """Say what is still to come, of all steps."""
    if state.state is CampaignState.CANCELLED:
        wire = f" **{rest:,}** messages were on the wire, and finish." if rest else ""
        return f"The campaign is cancelled: {state.counts[TouchState.CANCELLED]:,} messages were not sent.{wire}"
    if not rest:
        return "Everybody in the audience is settled."
    planned = state.counts[TouchState.PLANNED]
    later = f", **{planned:,}** of them planned for later" if planned else ""
    if state.state is CampaignState.PAUSED:
        return f"The campaign is paused. **{rest:,}** messages are not settled{later}."
    return (
        f"**{rest:,}** messages are still under way{later}: due later, or being retried. Delivery continues without "
        "this run, and this page is renewed every few minutes."
    )


async def publish_result(state: CampaignSummary) -> None:
    """Show the completeness table and where to look next."""
    await publish_table(f"completeness-{state.campaign}", completeness(state), _standing(state))
    await publish_markdown(f"result-{state.campaign}", where_to_look(state), f"The result of {state.campaign}")


async def renew_result(state: CampaignSummary) -> None:
    """Bring what the campaign's run shows up to date. A campaign whose run showed nothing, or long ago, has nothing."""
    name = state.campaign
    if not await renew_progress(f"delivery-{name}", ended(state), state.audience, delivery_title(name)):
        return
    await renew_table(f"completeness-{name}", completeness(state), _standing(state))
    await renew_markdown(f"result-{name}", where_to_look(state), f"The result of {name}")


def delivery_title(campaign: str) -> str:
    """Return the description of the progress bar of a campaign's delivery."""
    return f"Messages of {campaign} that reached their end"


def _standing(state: CampaignSummary) -> str:
    return f"Where the {state.audience:,} people of {state.campaign} stand, step by step."


def _row(step: str, name: str, people: int, touches: int) -> dict[str, Any]:
    percent = 100.0 * people / touches if touches else 100.0
    return {"step": step, "state": name, "people": people, "percent": round(percent, 2)}

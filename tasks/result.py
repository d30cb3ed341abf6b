"""Shows the result of a campaign: the states of its touches, and pages with more."""

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
    """Return the number of recipients whose first message has an outcome."""
    return sum(step.touches - step.live for step in state.steps[:1])


def completeness(state: CampaignSummary) -> list[dict[str, Any]]:
    """Return rows of step, state and people. The rows of a step add up to its touches."""
    rows: list[dict[str, Any]] = []
    for step in state.steps:
        rows += [_row(step.name, str(name), n, step.touches) for name, n in step.counts.items() if n]
        rows.append(_row(step.name, "= touches", step.touches, step.touches))
    return rows


def where_to_look(state: CampaignSummary) -> str:
    """Return Markdown with the state of the campaign and links to other pages."""
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

* [State of every recipient]({artifact_url(f"completeness-{name}")}), step by step
* [Progress of delivery]({artifact_url(f"delivery-{name}")})
* [State of the queues]({artifact_url("queues")})
* [Deployments]({ui_url()}/deployments): run `dead-letters` to see by cause what could not be delivered
{stop}"""


def _outlook(state: CampaignSummary, rest: int) -> str:
    """Return a sentence on the messages without an outcome, of all steps."""
    if state.state is CampaignState.CANCELLED:
        wire = f" **{rest:,}** messages were on the wire, and finish." if rest else ""
        return f"The campaign is cancelled: {state.counts[TouchState.CANCELLED]:,} messages were not sent.{wire}"
    if not rest:
        return "Every message has an outcome."
    planned = state.counts[TouchState.PLANNED]
    later = f", **{planned:,}** of them planned for later" if planned else ""
    awaiting = state.counts[TouchState.AWAITING]
    later += f", **{awaiting:,}** waiting for the decision on their variants" if awaiting else ""
    if withheld := state.counts[TouchState.WITHHELD]:
        later += f", **{withheld:,}** of them withheld by the rollout"
    if state.state is CampaignState.PAUSED:
        return f"The campaign is paused. **{rest:,}** messages are not settled{later}."
    return (
        f"**{rest:,}** messages are still under way{later}: due later, or being retried. Delivery continues without "
        "this run, and this page is renewed every few minutes."
    )


async def publish_result(state: CampaignSummary) -> None:
    """Publish the table of states and the page with links."""
    await publish_table(f"completeness-{state.campaign}", completeness(state), _title(state))
    await publish_markdown(f"result-{state.campaign}", where_to_look(state), f"The result of {state.campaign}")


async def renew_result(state: CampaignSummary) -> None:
    """Update the artifacts of the campaign's run, if it has any."""
    name = state.campaign
    if not await renew_progress(f"delivery-{name}", ended(state), state.audience, delivery_title(name)):
        return
    await renew_table(f"completeness-{name}", completeness(state), _title(state))
    await renew_markdown(f"result-{name}", where_to_look(state), f"The result of {name}")


def delivery_title(campaign: str) -> str:
    """Return the description of the progress bar of a campaign's delivery."""
    return f"Messages of {campaign} that reached their end"


def _title(state: CampaignSummary) -> str:
    return f"States of the {state.audience:,} people of {state.campaign}, by step."


def _row(step: str, name: str, people: int, touches: int) -> dict[str, Any]:
    percent = 100.0 * people / touches if touches else 100.0
    return {"step": step, "state": name, "people": people, "percent": round(percent, 2)}

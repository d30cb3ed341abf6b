"""How campaigns are shown: colours of states, and the parts of an audience with their links."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from postroad.console.page_url import page_url
from postroad.read_model.campaigns import AudiencePart, CampaignParts
from postroad.store.campaign import CampaignState
from postroad.store.enrolment import EnrolmentState
from postroad.store.ledger import TouchState

TOUCH_TONES: Final[Mapping[TouchState, str]] = {
    TouchState.AWAITING: "wait",
    TouchState.WITHHELD: "wait",
    TouchState.PLANNED: "wait",
    TouchState.QUEUED: "wait",
    TouchState.SENDING: "info",
    TouchState.DEFERRED: "warn",
    TouchState.ACCEPTED: "good",
    TouchState.BOUNCED: "bad",
    TouchState.SUPPRESSED: "end",
    TouchState.CANCELLED: "end",
    TouchState.SKIPPED: "end",
    TouchState.EXPIRED: "end",
    TouchState.DEAD: "bad",
    TouchState.UNKNOWN: "warn",
}
ENROLMENT_TONES: Final[Mapping[EnrolmentState, str]] = {
    EnrolmentState.ACTIVE: "info",
    EnrolmentState.COMPLETED: "good",
    EnrolmentState.EXITED: "end",
}
CAMPAIGN_TONES: Final[Mapping[CampaignState, str]] = {
    CampaignState.DRAFT: "",
    CampaignState.RUNNING: "good",
    CampaignState.PAUSED: "warn",
    CampaignState.FINISHED: "info",
    CampaignState.CANCELLED: "bad",
}

BarPart = tuple[str, int, str, str]
"""Label, number, link to the rows, tone."""


def campaign_url(name: str, *path: str, **query: object) -> str:
    """Return the URL of a campaign's page, or of a page below it, with query parameters that are not None."""
    return page_url("campaigns", name, *path, **query)


def audience_bar(found: CampaignParts) -> list[BarPart]:
    """Return the parts of a campaign's audience, which sum to it. Each links to its rows."""
    return [_bar_part(found.summary.campaign, part, _first_step(found)) for part in found.parts]


def _first_step(found: CampaignParts) -> str | None:
    return found.summary.steps[0].name if found.summary.steps else None


def _bar_part(campaign: str, part: AudiencePart, first_step: str | None) -> BarPart:
    if part.touch is not None:
        href = campaign_url(campaign, "messages", state=part.touch, step=first_step)
        return part.touch.value, part.recipients, href, TOUCH_TONES[part.touch]
    state = part.enrolment or EnrolmentState.ACTIVE
    label = f"exited: {part.why}" if part.why is not None else state.value
    href = campaign_url(campaign, "recipients", state=state, why=part.why)
    return label, part.recipients, href, ENROLMENT_TONES[state]


def states_bar(campaign: str, touches: Mapping[TouchState, int]) -> list[BarPart]:
    """Return the messages of a campaign by state. Each part links to its rows."""
    return [
        (state.value, touches[state], campaign_url(campaign, "messages", state=state), TOUCH_TONES[state])
        for state in TouchState
        if touches.get(state)
    ]


def used_states(counts: Iterable[Mapping[TouchState, int]]) -> Sequence[TouchState]:
    """Return the states in which a step has messages, in their order. Accepted is always one of them."""
    rows = list(counts)
    return [state for state in TouchState if state is TouchState.ACCEPTED or any(row.get(state) for row in rows)]

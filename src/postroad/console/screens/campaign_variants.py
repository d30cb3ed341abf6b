"""The messages of one variant of a campaign's step: in a state, or with an outcome."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from postroad.console.authorise import CurrentVisit
from postroad.console.campaign_view import campaign_url
from postroad.console.screens.campaigns import Cursor, screen
from postroad.read_model.variants import outcome_touches, variant_touches
from postroad.settings import AccessRole
from postroad.store.ledger import TouchState
from postroad.store.variant import VariantOutcome

Name = Annotated[str, Query(max_length=200)]


@screen.get("/campaigns/{campaign}/variants/messages", role=AccessRole.VIEW)
async def variant_messages(
    visit: CurrentVisit,
    campaign: str,
    step: Name,
    variant: Name,
    state: TouchState = TouchState.ACCEPTED,
    outcome: VariantOutcome | None = None,
    after: Cursor = None,
) -> Response:
    """List the messages of one variant in one state, or with one outcome."""
    if outcome is not None:
        page = await visit.read(outcome_touches, campaign, step=step, variant=variant, outcome=outcome, after=after)
    else:
        page = await visit.read(variant_touches, campaign, step=step, variant=variant, state=state, after=after)
    return visit.page(
        "campaign_variant_messages.html",
        campaign=campaign,
        page=page,
        step=step,
        variant=variant,
        which=outcome.value if outcome is not None else state.value,
        first=after is None,
        url_of=campaign_url,
    )

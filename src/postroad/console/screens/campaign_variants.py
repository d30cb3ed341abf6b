"""The messages of one variant of a campaign's step."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from postroad.console.authorise import CurrentVisit
from postroad.console.campaign_view import campaign_url
from postroad.console.screens.campaigns import Cursor, screen
from postroad.read_model.variants import variant_touches
from postroad.settings import AccessRole
from postroad.store.ledger import TouchState

Name = Annotated[str, Query(max_length=200)]


@screen.get("/campaigns/{campaign}/variants/messages", role=AccessRole.VIEW)
async def variant_messages(
    visit: CurrentVisit,
    campaign: str,
    step: Name,
    variant: Name,
    state: TouchState = TouchState.ACCEPTED,
    after: Cursor = None,
) -> Response:
    """List the messages of one variant in one state."""
    page = await visit.read(variant_touches, campaign, step=step, variant=variant, state=state, after=after)
    return visit.page(
        "campaign_variant_messages.html",
        campaign=campaign,
        page=page,
        step=step,
        variant=variant,
        state=state,
        first=after is None,
        url_of=campaign_url,
    )

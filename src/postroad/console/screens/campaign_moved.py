"""The messages of a campaign that went to another sender because of the caps of its own."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from postroad.console.authorise import CurrentVisit
from postroad.console.campaign_view import TOUCH_TONES, campaign_url
from postroad.console.screens.campaigns import Cursor, screen
from postroad.read_model.overflow import NamedMove, moved_touches
from postroad.settings import AccessRole

MoveText = Annotated[str, Query(max_length=200)]


@screen.get("/campaigns/{campaign}/moved", role=AccessRole.VIEW)
async def moved_messages(
    visit: CurrentVisit,
    campaign: str,
    step: MoveText,
    from_sender: MoveText,
    sender: MoveText,
    why: MoveText,
    after: Cursor = None,
) -> Response:
    """List the messages of one step that went from one sender to another for one reason."""
    move = NamedMove(step, from_sender, sender, why)
    page = await visit.read(moved_touches, campaign, move, after=after)
    return visit.page(
        "campaign_moved.html",
        campaign=campaign,
        move=move,
        page=page,
        first=after is None,
        tones=TOUCH_TONES,
        url_of=campaign_url,
    )

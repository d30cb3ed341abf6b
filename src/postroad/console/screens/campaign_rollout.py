"""Lets the next share of a rollout go, after the page has shown how many recipients it has and what holds it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from postroad.app.rollouts import running_rollout, widen
from postroad.console.authorise import CurrentVisit
from postroad.console.campaign_view import campaign_url
from postroad.console.confirm import Confirmation, Extent
from postroad.console.screens.campaigns import screen
from postroad.errors import StateError
from postroad.senders.rollout import RolloutStatus
from postroad.settings import AccessRole
from postroad.store.rollout import RolloutShare

ShareNumber = Annotated[int, Query(ge=1, le=10)]


def _chosen(status: RolloutStatus, campaign: str, number: int) -> RolloutShare:
    """Return the share that is next. Raise StateError if the page showed another one."""
    if status.next is None or status.next.number != number:
        raise StateError(
            f"share {number} of campaign {campaign} is not the next one",
            remedy="Look at the rollout on the page of the campaign.",
        )
    return status.next


@screen.get("/campaigns/{campaign}/widen", role=AccessRole.OPERATE)
async def ask_widen(visit: CurrentVisit, campaign: str, share: ShareNumber) -> Response:
    """Show what the next share touches, and what holds it."""
    status = await running_rollout(visit.parts.context, campaign)
    coming = _chosen(status, campaign, share)
    held = f"It is not let go by itself: {coming.held_why}." if coming.held_why else ""
    return visit.confirm(
        Confirmation(
            title=f"Let share {share} of {len(status.shares)} of the campaign {campaign} go?",
            button="Let it go",
            action=campaign_url(campaign, "widen", share=share),
            back=campaign_url(campaign),
            extents=[Extent(count=coming.people, label="recipients get its first message")],
            effects=[
                *([held] if held else []),
                f"With the shares before it, that is {coming.percent} of the audience. This cannot be undone.",
            ],
            dangerous=True,
        )
    )


@screen.post("/campaigns/{campaign}/widen", role=AccessRole.OPERATE)
async def do_widen(visit: CurrentVisit, campaign: str, share: ShareNumber) -> Response:
    """Let a share go, and plan its messages."""
    coming = _chosen(await running_rollout(visit.parts.context, campaign), campaign, share)
    await visit.parts.queue()  # A page starts no server.
    async with visit.act("campaign.widen", f"{campaign}, share {share}", count=coming.people):
        await widen(visit.parts.context, campaign, share, by=f"{visit.user.user} in the console")
    return visit.redirect(campaign_url(campaign), f"Share {share} of {campaign} is let go.")

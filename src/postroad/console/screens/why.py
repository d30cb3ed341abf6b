"""Why not?: the story of one person or message. What waits, what holds it, where the time went, what happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import Path, Query, Response

from postroad.console.authorise import CurrentVisit
from postroad.console.campaign_view import TOUCH_TONES, BarPart, campaign_url
from postroad.console.confirm import Confirmation, Extent
from postroad.console.screen import NavSection, Screen
from postroad.errors import StateError, UsageError
from postroad.explain.charge import Charge
from postroad.explain.story import MessageStory, Story, tell_story
from postroad.operations.touches import cancel_touches
from postroad.settings import AccessRole
from postroad.store.ledger import TouchState
from postroad.store.touch_lookup import touch_by_id
from postroad.touch_search import queue_of_touch

screen = Screen(name="why", title="Why not?", path="/why", section=NavSection.MAIL)

OPEN_ENDED: Final = 5
"""Ended messages that are shown in full, the newest ones. The history has all."""
MAX_SUBJECT: Final = 1_000
CHARGE_TONES: Final = ("info", "warn", "end", "wait")

SubjectText = Annotated[str, Query(max_length=MAX_SUBJECT)]
TouchId = Annotated[int, Path(ge=1, lt=2**63)]


@screen.get("/why", role=AccessRole.VIEW)
async def why(
    visit: CurrentVisit,
    q: SubjectText = "",
    campaign: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Explain a person's mail, or one message, by an address, a Message-ID or the id of a message."""
    story: Story | None = None
    problem: StateError | UsageError | None = None
    subject = q.strip()
    if subject:
        try:
            story = await tell_story(visit.parts.context, subject, campaign=campaign)
        except (StateError, UsageError) as error:
            problem = error
    return visit.page(
        "why.html",
        q=subject,
        campaign=campaign,
        story=story,
        shown=_shown(story) if story is not None else (),
        problem=problem,
        tones=TOUCH_TONES,
        charges_of=charge_bar,
        url_of=campaign_url,
        status=200 if problem is None else 404,
    )


def _shown(story: Story) -> Sequence[MessageStory]:
    """Return the messages that are shown in full: those that wait or need a person first."""
    undecided = [message for message in story.messages if message.waits or message.undecided]
    ended = [message for message in story.messages if not (message.waits or message.undecided)]
    return [*undecided, *ended[:OPEN_ENDED]]


def charge_bar(charges: Sequence[Charge]) -> list[BarPart]:
    """Return the causes of a delay as parts of a bar, in seconds: they sum to the delay."""
    return [
        (charge.label, charge.ms // 1000, "", CHARGE_TONES[number % len(CHARGE_TONES)])
        for number, charge in enumerate(charges)
    ]


def _cancellation(touch: int, subject: str) -> Confirmation:
    return Confirmation(
        title=f"Cancel message {touch}?",
        button="Cancel it",
        action=f"/messages/{touch}/cancel",
        back=f"/why?{urlencode({'q': subject})}",
        extents=[Extent(count=1, label="message that will not be sent", href=f"/why?q={touch}")],
        effects=["This cannot be undone. If it is on the wire now, it finishes."],
        hidden={"q": subject},
        dangerous=True,
    )


@screen.get("/messages/{touch}/cancel", role=AccessRole.OPERATE)
async def ask_cancel(visit: CurrentVisit, touch: TouchId, q: SubjectText = "") -> Response:
    """Ask whether to cancel one message."""
    return visit.confirm(_cancellation(touch, q or str(touch)))


@screen.post("/messages/{touch}/cancel", role=AccessRole.OPERATE)
async def cancel(visit: CurrentVisit, touch: TouchId) -> Response:
    """Cancel one message that is not on the wire."""
    form = await visit.form()
    subject = form.text("q", max_characters=MAX_SUBJECT, required=False) or str(touch)
    found = await visit.read(touch_by_id, touch)
    if found is None:
        raise StateError(f"there is no message {touch}", remedy="Its retention may be over.")
    if found.state.ended or found.state is TouchState.SENDING:
        raise StateError(
            f"message {touch} is {found.state}, so it cannot be cancelled",
            remedy="Only a message that waits can be cancelled.",
        )
    queue = await visit.parts.queue(queue_of_touch(found))
    async with visit.act("message.cancel", str(touch), note=found.address) as act:
        act.count = await cancel_touches(visit.parts.engine, queue, [str(touch)], visit.parts.now())
    if not act.count:
        return visit.redirect(f"/why?{urlencode({'q': subject})}", f"Message {touch} left before it was cancelled.")
    return visit.redirect(f"/why?{urlencode({'q': subject})}", f"Message {touch} is cancelled.")

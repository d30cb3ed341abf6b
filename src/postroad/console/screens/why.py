"""Why not?: the story of one person or message. What waits, what holds it, where the time went, what happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import Query, Response

from postroad.console.authorise import CurrentVisit
from postroad.console.campaign_view import TOUCH_TONES, BarPart, campaign_url
from postroad.console.decisions import message_decisions
from postroad.console.screen import NavSection, Screen
from postroad.errors import StateError, UsageError
from postroad.explain.charge import Charge
from postroad.explain.story import MessageStory, Story, tell_story
from postroad.settings import AccessRole
from postroad.store.ledger import TouchState

screen = Screen(name="why", title="Why not?", path="/why", section=NavSection.MAIL)

OPEN_ENDED: Final = 5
"""Ended messages that are shown in full, the newest ones. The history has all."""
MAX_SUBJECT: Final = 1_000
CHARGE_TONES: Final = ("info", "warn", "end", "wait")

SubjectText = Annotated[str, Query(max_length=MAX_SUBJECT)]


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
        decisions_of=lambda message: message_decisions(message.touch, message.state, visit.here),
        reschedulable=(TouchState.QUEUED, TouchState.DEFERRED),
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

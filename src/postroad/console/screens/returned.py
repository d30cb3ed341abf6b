"""Returned mail: what was returned, by verdict and rule, and each mail as text, with the rule that decided."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

import sqlalchemy as sa
from fastapi import Query, Response

from postroad.app.suppressions import stored_keys
from postroad.bounce.classify import BounceClass
from postroad.console.authorise import CurrentVisit
from postroad.console.campaign_view import TOUCH_TONES, BarPart, campaign_url
from postroad.console.page_url import page_url
from postroad.console.screen import NavSection, Screen
from postroad.console.visit import Visit
from postroad.errors import StateError, UsageError
from postroad.explain.timeline import EFFECTS
from postroad.read_model.returned import (
    SHOWN_BYTES,
    ReturnedCount,
    ReturnedMailDetail,
    returned_counts,
    returned_mail,
    returned_mails,
)
from postroad.settings import AccessRole
from postroad.store.person_history import suppressions_with_keys
from postroad.store.suppression import Suppression

screen = Screen(name="returned", title="Returned mail", path="/returned", section=NavSection.DELIVERY)

DAYS: Final = (1, 7, 30)
DEFAULT_DAYS: Final = 7
VERDICTS: Final = {
    BounceClass.HARD: ("bad", "the mailbox or its domain does not exist"),
    BounceClass.SOFT: ("warn", "the mailbox exists, and did not take the message"),
    BounceClass.BLOCK: ("bad", "the sender was refused, not the recipient"),
    BounceClass.COMPLAINT: ("bad", "the recipient reported the message as spam"),
    BounceClass.UNSUBSCRIBE: ("info", "the recipient wants no more mail"),
    BounceClass.AUTO_REPLY: ("good", "an automatic reply: the message arrived"),
    BounceClass.CHALLENGE: ("wait", "the receiver asks for proof that a person wrote it"),
    BounceClass.UNRELATED: ("end", "no failure of a message: a reply, a receipt, other mail"),
    BounceClass.UNREADABLE: ("end", "not classified, because it exceeds a limit of the parser"),
}
"""Tone and meaning of each verdict."""

Days = Annotated[int, Query(ge=1, le=366)]
ShortText = Annotated[str, Query(max_length=200)]
Cursor = Annotated[str | None, Query(max_length=300)]


def mails_url(verdict: str, days: int, rule: str | None = None) -> str:
    """Return the URL of the list of the mails of a verdict, or of a verdict and a rule."""
    return page_url("returned", "mails", verdict=verdict, days=days, rule=rule)


@screen.get("/returned", role=AccessRole.VIEW)
async def returned(visit: CurrentVisit, days: Days = DEFAULT_DAYS) -> Response:
    """Show the returned mail of some days by verdict and rule."""
    counts = await visit.read(returned_counts, visit.parts.now() - timedelta(days=days))
    return visit.page(
        "returned.html",
        counts=counts,
        parts=verdict_bar(counts, days),
        days=days,
        periods=sorted({*DAYS, days}),
        meanings={verdict.value: meaning for verdict, (_, meaning) in VERDICTS.items()},
        tones={verdict.value: tone for verdict, (tone, _) in VERDICTS.items()},
        url_of=mails_url,
    )


def verdict_bar(counts: list[ReturnedCount], days: int) -> list[BarPart]:
    """Return the verdicts as parts of a bar, which sum to all mails. Each links to its rows."""
    sums: dict[str, int] = {}
    for count in counts:
        sums[count.verdict] = sums.get(count.verdict, 0) + count.mails
    tones = {verdict.value: tone for verdict, (tone, _) in VERDICTS.items()}
    return [(verdict, mails, mails_url(verdict, days), tones.get(verdict, "end")) for verdict, mails in sums.items()]


@screen.get("/returned/mails", role=AccessRole.VIEW)
async def mails(
    visit: CurrentVisit,
    verdict: ShortText = BounceClass.HARD.value,
    rule: Annotated[str | None, Query(max_length=200)] = None,
    days: Days = DEFAULT_DAYS,
    after: Cursor = None,
) -> Response:
    """List the mails of a verdict, or of a verdict and a rule, the newest first."""
    if verdict not in list(BounceClass):
        raise UsageError(f"{verdict!r} is not a verdict", remedy=f"The verdicts are {', '.join(BounceClass)}.")
    now = visit.parts.now()
    page = await visit.read(
        returned_mails, now, verdict=verdict, rule=rule, since=now - timedelta(days=days), after=after
    )
    return visit.page(
        "returned_mails.html",
        page=page,
        verdict=verdict,
        meaning=VERDICTS[BounceClass(verdict)][1],
        rule=rule,
        days=days,
        first=after is None,
        url_of=campaign_url,
    )


@screen.get("/returned/mails/{digest}", role=AccessRole.VIEW)
async def mail(visit: CurrentVisit, digest: str) -> Response:
    """Show one mail: how it was classified, what it changed, and its text."""
    found = await visit.read(returned_mail, digest[:64])
    if found is None:
        raise StateError("there is no such mail", remedy="Its retention may be over.")
    verdict = BounceClass(found.verdict) if found.verdict in list(BounceClass) else None
    return visit.page(
        "returned_mail.html",
        mail=found,
        text=(found.text or "").replace("\r\n", "\n"),
        shown_bytes=SHOWN_BYTES,
        meaning=VERDICTS[verdict][1] if verdict is not None else "",
        tone=VERDICTS[verdict][0] if verdict is not None else "",
        effects=EFFECTS,
        suppressions=await _suppressions(visit, found),
        touch_tones=TOUCH_TONES,
        url_of=campaign_url,
        act_url=lambda act, address: page_url("people", "suppressions", act, address=address, back=visit.here),
    )


async def _suppressions(visit: Visit, found: ReturnedMailDetail) -> list[Suppression]:
    """Return the suppressions of the recipient of the mail's message."""

    def look(connection: sa.Connection) -> list[Suppression]:
        if found.touch is None:
            return []
        return suppressions_with_keys(connection, stored_keys(visit.parts.context, [found.touch.address]))[0]

    return await visit.read(look)

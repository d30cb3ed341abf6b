"""Returned mail by verdict and rule, the mails of each number, and one mail with its effects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from msgspec import Struct

from postroad.read_model.page import DEFAULT_LIMIT, Page, checked_limit, decode_cursor, to_page
from postroad.store.bounce import BounceEffectKind, effects_of, head_of, mail_of
from postroad.store.returned_page import ReturnedRow, count_returned, returned_page
from postroad.store.touch_lookup import FoundTouch, touch_by_id

SHOWN_BYTES: Final = 65_536
"""Bytes of a mail that are shown."""
_LATEST: Final = timedelta(days=1)


class ReturnedCount(Struct, frozen=True, kw_only=True):
    """Number of mails with one verdict by one rule."""

    verdict: str
    rule: str
    mails: int


class MailEffect(Struct, frozen=True, kw_only=True):
    """One change that a mail caused."""

    effect: BounceEffectKind
    touch_id: int
    detail: str


class ReturnedMailDetail(Struct, frozen=True, kw_only=True):
    """One returned mail.

    ``text``: its bytes as text, up to `SHOWN_BYTES`; None: their retention is over. ``octets``: how many it has.
    ``touch``: the message that it is about; None: it was not found, or was deleted.
    """

    digest: str
    received_at: datetime
    processed_at: datetime | None
    source: str
    mail_from: str | None
    recipient: str | None
    kind: str | None
    verdict: str | None
    rule: str | None
    matched_by: str | None
    touch: FoundTouch | None
    effects: Sequence[MailEffect]
    text: str | None
    octets: int


def returned_counts(connection: sa.Connection, since: datetime) -> list[ReturnedCount]:
    """Return the number of processed mails that were received since a time, by verdict and rule, the largest first."""
    counts = [
        ReturnedCount(verdict=verdict, rule=rule, mails=mails)
        for verdict, rule, mails in count_returned(connection, since)
    ]
    return sorted(counts, key=lambda count: (-count.mails, count.verdict, count.rule))


def returned_mails(
    connection: sa.Connection,
    now: datetime,
    *,
    verdict: str,
    since: datetime,
    rule: str | None = None,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[ReturnedRow]:
    """Return the mails of a number of `returned_counts`, the newest first.

    Args:
        connection: A connection in a transaction.
        now: The time.
        verdict: Their verdict.
        since: Only mails received since then.
        rule: Their rule; None: any.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    before, digest = decode_cursor(after, tuple[datetime, str], (now + _LATEST, ""))
    rows = returned_page(
        connection, verdict=verdict, rule=rule, since=since, before=before, before_digest=digest, limit=limit + 1
    )
    return to_page(rows, limit, lambda row: (row.received_at, row.digest))


def returned_mail(connection: sa.Connection, digest: str) -> ReturnedMailDetail | None:
    """Return one mail; None: it is not stored, or was deleted for its age."""
    mail = mail_of(connection, digest)
    if mail is None:
        return None
    head, octets = head_of(connection, digest, SHOWN_BYTES) or (None, 0)
    return ReturnedMailDetail(
        digest=mail.digest,
        received_at=mail.received_at,
        processed_at=mail.processed_at,
        source=mail.source,
        mail_from=mail.mail_from,
        recipient=mail.recipient,
        kind=mail.kind,
        verdict=mail.verdict,
        rule=mail.rule,
        matched_by=mail.matched_by,
        touch=touch_by_id(connection, mail.touch_id) if mail.touch_id is not None else None,
        effects=[
            MailEffect(effect=kind, touch_id=touch_id, detail=detail)
            for kind, touch_id, detail in effects_of(connection, digest)
        ],
        text=None if head is None else head.decode("utf-8", "replace"),
        octets=octets,
    )

"""Counts returned mails by verdict and rule, and reads them a page at a time, the newest first."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from postroad.store.keyset import keyset_sql
from postroad.store.types import UtcDateTime

# Not grouped by the columns themselves: SQLite would read the whole index that has their order.
_COUNTS = sa.text(
    "SELECT verdict || '' AS of_verdict, COALESCE(rule, '') AS of_rule, count(*) AS n FROM bounce_mail "
    "WHERE received_at >= :since AND verdict || '' <> '' GROUP BY of_verdict, of_rule"
).bindparams(sa.bindparam("since", type_=UtcDateTime()))


class ReturnedRow(NamedTuple):
    """One processed mail. ``address`` and ``campaign``: of its touch; None: no touch was found."""

    digest: str
    received_at: datetime
    source: str
    kind: str | None
    verdict: str
    rule: str
    matched_by: str | None
    touch_id: int | None
    address: str | None
    campaign: str | None


_COLUMNS: tuple[sa.ColumnClause[Any], ...] = (
    sa.column("digest", sa.Text()),
    sa.column("received_at", UtcDateTime()),
    *(sa.column(name, sa.Text()) for name in ("source", "kind", "verdict", "rule", "matched_by")),
    sa.column("touch_id", sa.Integer()),
    *(sa.column(name, sa.Text()) for name in ("address", "campaign")),
)


def count_returned(connection: sa.Connection, since: datetime) -> list[tuple[str, str, int]]:
    """Return verdict, rule and number of the processed mails that were received since a time."""
    return [(row.of_verdict, row.of_rule, int(row.n)) for row in connection.execute(_COUNTS, {"since": since})]


def returned_page(
    connection: sa.Connection,
    *,
    verdict: str,
    rule: str | None,
    since: datetime,
    before: datetime,
    before_digest: str,
    limit: int,
) -> list[ReturnedRow]:
    """Return mails of a verdict that were received before a time, the newest first.

    Args:
        connection: A connection in a transaction.
        verdict: Their verdict.
        rule: Their rule, empty: none. None: any.
        since: Only mails received since then.
        before: The time of the last row of the page before.
        before_digest: The digest of that row; empty: only mails before this time.
        limit: Rows of the page.
    """
    equal = ("verdict", "rule") if rule else ("verdict",)
    where, order_by = keyset_sql(connection, equal=equal, key=("received_at", "digest"), descending=True, bound="since")
    of_rule = " AND (rule IS NULL OR rule = '')" if rule == "" else ""
    statement = sa.text(
        "SELECT mail.digest, mail.received_at, mail.source, mail.kind, mail.verdict, COALESCE(mail.rule, '') AS rule, "
        "mail.matched_by, mail.touch_id, recipient.address, campaign.name AS campaign FROM "
        "(SELECT digest, received_at, source, kind, verdict, rule, matched_by, touch_id FROM bounce_mail "
        f"WHERE {where}{of_rule} ORDER BY {order_by} LIMIT :limit) "
        "AS mail LEFT JOIN touch ON touch.id = mail.touch_id LEFT JOIN campaign ON campaign.id = touch.campaign_id "
        "LEFT JOIN recipient ON recipient.id = touch.recipient_id ORDER BY mail.received_at DESC, mail.digest DESC"
    ).bindparams(*(sa.bindparam(name, type_=UtcDateTime()) for name in ("since", "after_received_at")))
    values: dict[str, object] = {
        "verdict": verdict,
        "since": since,
        "after_received_at": before,
        "after_digest": before_digest,
        "limit": limit,
    }
    rows = connection.execute(statement.columns(*_COLUMNS), values | ({"rule": rule} if rule else {}))
    return [ReturnedRow(*row) for row in rows]

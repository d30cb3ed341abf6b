"""Reads the outcomes of one sender at one mailbox provider, a page at a time, the newest first.

Each page follows an index in its order, so it costs the same in any ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from postroad.store.bulk import id_rows
from postroad.store.keyset import LAST_ID, keyset_sql
from postroad.store.types import UtcDateTime


class OutcomeRow(NamedTuple):
    """An outcome of a message: an event of the ledger, or a complaint.

    ``id``: of the event, and of the touch for a complaint. ``digest``: of the mail, for a complaint.
    """

    id: int
    at: datetime
    touch_id: int
    address: str
    campaign: str
    step: str
    outcome: str
    attempt: int
    reply_code: int | None
    enhanced_code: str | None
    reply: str | None
    cause: str | None
    digest: str | None = None


class ReceiverOutcome(NamedTuple):
    """What a page lists: outcomes of one kind, from one sender to one mailbox provider, since a time."""

    sender_id: int
    provider: str
    outcome: str
    since: datetime


_TIMES = (sa.bindparam("since", type_=UtcDateTime()), sa.bindparam("after_at", type_=UtcDateTime()))
_COMPLAINT_COLUMNS = (
    sa.column("digest", sa.Text()),
    sa.column("received_at", UtcDateTime()),
    sa.column("touch_id", sa.Integer()),
    sa.column("sender_id", sa.Integer()),
    sa.column("provider", sa.Text()),
)
_COLUMNS: tuple[sa.ColumnClause[Any], ...] = (
    sa.column("id", sa.Integer()),
    sa.column("at", UtcDateTime()),
    sa.column("touch_id", sa.Integer()),
    *(sa.column(name, sa.Text()) for name in ("address", "campaign", "step", "outcome")),
    sa.column("attempt", sa.Integer()),
    sa.column("reply_code", sa.Integer()),
    *(sa.column(name, sa.Text()) for name in ("enhanced_code", "reply", "cause")),
)
_NAMES = (
    "JOIN campaign ON campaign.id = touch.campaign_id JOIN step ON step.id = touch.step_id "
    "JOIN recipient ON recipient.id = touch.recipient_id"
)


def outcome_page(
    connection: sa.Connection, what: ReceiverOutcome, *, before: datetime, before_id: int = LAST_ID, limit: int
) -> list[OutcomeRow]:
    """Return outcomes before a time, the newest first.

    Args:
        connection: A connection in a transaction.
        what: The outcomes; not complaints.
        before: The time of the last row of the page before.
        before_id: The id of that row. `LAST_ID`: also events at this time.
        limit: Rows of the page.
    """
    page = _page_sql(connection, "id")
    values = _page_values(what, before, before_id, limit)
    return outcomes_by_ids(connection, list(connection.execute(sa.text(page).bindparams(*_TIMES), values).scalars()))


def _page_sql(connection: sa.Connection, columns: str) -> str:
    where, order_by = keyset_sql(
        connection, equal=("sender_id", "provider", "state"), key=("at", "id"), descending=True, bound="since"
    )
    # The index is partial: the condition says that it has the row.
    return (
        f"SELECT {columns} FROM delivery_event WHERE sender_id IS NOT NULL AND {where} ORDER BY {order_by} LIMIT :limit"
    )


def _page_values(what: ReceiverOutcome, before: datetime, before_id: int, limit: int) -> dict[str, object]:
    return {
        "sender_id": what.sender_id,
        "provider": what.provider,
        "state": what.outcome,
        "since": what.since,
        "after_at": before,
        "after_id": before_id,
        "limit": limit,
    }


class ReplyRow(NamedTuple):
    """The reply of an outcome, and to whom. ``id``: of the event."""

    id: int
    address: str
    reply_code: int | None
    enhanced_code: str | None
    reply: str | None
    cause: str | None


def newest_replies(connection: sa.Connection, what: ReceiverOutcome, *, before: datetime, limit: int) -> list[ReplyRow]:
    """Return the replies of the newest outcomes at or before a time, the newest first. ``what``: not complaints."""
    page = _page_sql(connection, "id, at, touch_id, reply_code, enhanced_code, reply, cause")
    # CROSS JOIN: SQLite begins with the page.
    statement = sa.text(
        "SELECT event.id, recipient.address, event.reply_code, event.enhanced_code, event.reply, event.cause "
        f"FROM ({page}) AS event CROSS JOIN touch CROSS JOIN recipient "
        "WHERE touch.id = event.touch_id AND recipient.id = touch.recipient_id ORDER BY event.at DESC, event.id DESC"
    ).bindparams(*_TIMES)
    values = _page_values(what, before, LAST_ID, limit)
    return [ReplyRow(*row) for row in connection.execute(statement, values)]


def outcomes_by_ids(connection: sa.Connection, ids: Sequence[int]) -> list[OutcomeRow]:
    """Return these events, the newest first."""
    if not ids:
        return []
    item, parameters = id_rows(connection, ids)
    # CROSS JOIN: SQLite begins with the ids.
    statement = sa.text(
        "SELECT event.id, event.at, event.touch_id, recipient.address, campaign.name AS campaign, step.name AS step, "
        "event.state AS outcome, event.attempt, event.reply_code, event.enhanced_code, event.reply, event.cause "
        f"FROM {item} CROSS JOIN delivery_event AS event CROSS JOIN touch {_NAMES} "
        "WHERE event.id = batch.id AND touch.id = event.touch_id"
    )
    rows = [OutcomeRow(*row) for row in connection.execute(statement.columns(*_COLUMNS), parameters)]
    return sorted(rows, key=lambda row: (row.at, row.id), reverse=True)


class Complaint(NamedTuple):
    """A processed complaint. ``sender_id``, ``provider``: of its touch; None: no touch was found."""

    digest: str
    received_at: datetime
    touch_id: int | None
    sender_id: int | None
    provider: str | None


def complaint_page(
    connection: sa.Connection, *, since: datetime, before: datetime, before_digest: str, limit: int
) -> list[Complaint]:
    """Return complaints before a time, of all senders, the newest first. ``before_digest``: of the last row before."""
    where, order_by = keyset_sql(
        connection, equal=("verdict",), key=("received_at", "digest"), descending=True, bound="since"
    )
    statement = sa.text(
        "SELECT digest, received_at, touch_id, sender_id, provider FROM bounce_mail "
        f"WHERE {where} ORDER BY {order_by} LIMIT :limit"
    ).bindparams(*(sa.bindparam(name, type_=UtcDateTime()) for name in ("since", "after_received_at")))
    values = {
        "verdict": "complaint",
        "since": since,
        "after_received_at": before,
        "after_digest": before_digest,
        "limit": limit,
    }
    return [Complaint(*row) for row in connection.execute(statement.columns(*_COMPLAINT_COLUMNS), values)]


def complaint_rows(connection: sa.Connection, complaints: Sequence[Complaint]) -> list[OutcomeRow]:
    """Return complaints that have a touch as outcomes, in their order."""
    touches = {one.touch_id for one in complaints if one.touch_id is not None}
    item, parameters = id_rows(connection, sorted(touches))
    statement = sa.text(
        "SELECT touch.id, recipient.address, campaign.name AS campaign, step.name AS step "
        f"FROM {item} CROSS JOIN touch {_NAMES} WHERE touch.id = batch.id"
    )
    found = {row.id: row for row in connection.execute(statement, parameters)} if touches else {}
    return [
        OutcomeRow(
            id=row.id,
            at=one.received_at,
            touch_id=row.id,
            address=row.address,
            campaign=row.campaign,
            step=row.step,
            outcome="complained",
            attempt=0,
            reply_code=None,
            enhanced_code=None,
            reply=None,
            cause=None,
            digest=one.digest,
        )
        for one in complaints
        if one.touch_id is not None and (row := found.get(one.touch_id)) is not None
    ]

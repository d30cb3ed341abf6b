"""Reads what the database has of touches: attempts, returned mail, overflow, pauses of what they passed.

Every statement follows an index from the touches, whatever the size of the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine
from sqlmodel import Session, col, select

from postroad.settings.frequency import IGNORE
from postroad.store.bulk import id_rows
from postroad.store.cohort import CohortPause
from postroad.store.dns_report import SenderHold
from postroad.store.ledger import TouchState
from postroad.store.shaping import ShapingChange
from postroad.store.touches.transitions import states_sql
from postroad.store.types import UtcDateTime

MAX_CHANGES = 1_000
"""Changes of one sender's limits that are read, the newest ones."""


class TouchEventRow(NamedTuple):
    """One row of ``delivery_event``."""

    touch_id: int
    state: TouchState
    at: datetime
    attempt: int
    reply_code: int | None
    enhanced_code: str | None
    reply: str | None
    cause: str | None
    blame: str | None
    next_at: datetime | None
    id: int = 0


class ReturnedMail(NamedTuple):
    """One returned mail about a touch. ``matched_by``: how its touch was found."""

    touch_id: int
    received_at: datetime
    source: str
    kind: str | None
    verdict: str | None
    rule: str | None
    matched_by: str | None


class ReturnedEffect(NamedTuple):
    """One change that a returned mail caused."""

    touch_id: int
    at: datetime
    effect: str
    detail: str


class SenderMove(NamedTuple):
    """A touch that overflow gave to another sender."""

    touch_id: int
    at: datetime
    from_sender: str
    sender: str
    why: str


class CountedMessage(NamedTuple):
    """A message that counts against the frequency cap of its recipient from ``settled_at`` on."""

    recipient_id: int
    settled_at: datetime
    touch_id: int


def _rows_by_id(
    connection: sa.Connection, select_of: str, columns: Mapping[str, TypeEngine[Any]], ids: Sequence[int]
) -> list[sa.Row[Any]]:
    """Return the rows of a table that belong to touches or recipients, in order of time.

    On PostgreSQL each one is looked up by itself: before the first ANALYZE, a join of all reads the whole table.

    Args:
        connection: A connection in a transaction.
        select_of: A SELECT up to ``WHERE touch_id``, with the columns in their order.
        columns: The columns and their types. The first two are the id and the time, the last one breaks ties.
        ids: The touches or recipients.
    """
    item, parameters = id_rows(connection, ids)
    if connection.dialect.name == "sqlite":
        query = f"{select_of} IN (SELECT batch.id FROM {item})"
    else:
        query = f"SELECT found.* FROM {item} CROSS JOIN LATERAL ({select_of} = batch.id OFFSET 0) AS found"
    typed = [sa.column(name, kind) for name, kind in columns.items()]
    rows = connection.execute(sa.text(query).columns(*typed), parameters).all()
    return sorted(rows, key=lambda row: (row[1], row[-1]))


_ID, _TEXT, _TIME = sa.Integer(), sa.Text(), UtcDateTime()


def events_of_touches(connection: sa.Connection, touch_ids: Sequence[int]) -> list[TouchEventRow]:
    """Return what happened to these touches, in order of time."""
    columns: dict[str, TypeEngine[Any]] = {
        "touch_id": _ID, "at": _TIME, "state": _TEXT, "attempt": _ID, "reply_code": _ID, "enhanced_code": _TEXT,
        "reply": _TEXT, "cause": _TEXT, "blame": _TEXT, "next_at": _TIME, "id": _ID,
    }  # fmt: skip
    select_of = f"SELECT {', '.join(columns)} FROM delivery_event WHERE touch_id"
    rows = _rows_by_id(connection, select_of, columns, touch_ids)
    return [TouchEventRow(**{**row._mapping, "state": TouchState(row.state)}) for row in rows]


def returned_mails(connection: sa.Connection, touch_ids: Sequence[int]) -> list[ReturnedMail]:
    """Return the processed mails about these touches, in order of time."""
    texts = ("source", "kind", "verdict", "rule", "matched_by", "digest")
    columns: dict[str, TypeEngine[Any]] = {"touch_id": _ID, "received_at": _TIME, **dict.fromkeys(texts, _TEXT)}
    select_of = f"SELECT {', '.join(columns)} FROM bounce_mail WHERE processed_at IS NOT NULL AND touch_id"
    return [ReturnedMail(*row[:-1]) for row in _rows_by_id(connection, select_of, columns, touch_ids)]


def returned_effects(connection: sa.Connection, touch_ids: Sequence[int]) -> list[ReturnedEffect]:
    """Return what returned mails changed of these touches, in order of time."""
    columns: dict[str, TypeEngine[Any]] = {
        "touch_id": _ID, "at": _TIME, "effect": _TEXT, "detail": _TEXT, "id": _ID,
    }  # fmt: skip
    select_of = f"SELECT {', '.join(columns)} FROM bounce_effect WHERE touch_id"
    return [ReturnedEffect(*row[:-1]) for row in _rows_by_id(connection, select_of, columns, touch_ids)]


def sender_moves(connection: sa.Connection, touch_ids: Sequence[int]) -> list[SenderMove]:
    """Return which of these touches overflow gave to other senders, in order of time."""
    columns: dict[str, TypeEngine[Any]] = {
        "touch_id": _ID, "at": _TIME, "from_sender": _TEXT, "sender": _TEXT, "why": _TEXT, "id": _ID,
    }  # fmt: skip
    select_of = (
        "SELECT overflow.touch_id, overflow.at, given_by.name AS from_sender, given_to.name AS sender, overflow.why, "
        "overflow.id FROM overflow JOIN sender AS given_by ON given_by.id = overflow.from_sender_id "
        "JOIN sender AS given_to ON given_to.id = overflow.sender_id WHERE overflow.touch_id"
    )
    return [SenderMove(*row[:-1]) for row in _rows_by_id(connection, select_of, columns, touch_ids)]


def messages_under_caps(connection: sa.Connection, recipient_ids: Sequence[int]) -> list[CountedMessage]:
    """Return the messages to these recipients that count against frequency caps, in order of time.

    Messages on the wire are left out: they have no time yet.
    """
    columns: dict[str, TypeEngine[Any]] = {"recipient_id": _ID, "settled_at": _TIME, "id": _ID}
    select_of = (
        "SELECT other.recipient_id, other.settled_at, other.id FROM touch AS other "
        "JOIN campaign AS its ON its.id = other.campaign_id WHERE other.settled_at IS NOT NULL "
        f"AND other.state {states_sql((TouchState.ACCEPTED, TouchState.UNKNOWN))} "
        f"AND (its.frequency IS NULL OR its.frequency <> '{IGNORE}') AND other.recipient_id"
    )
    return [CountedMessage(*row) for row in _rows_by_id(connection, select_of, columns, recipient_ids)]


def changes_of_sender(connection: sa.Connection, sender: str, until: datetime) -> list[ShapingChange]:
    """Return the last pauses and changes of a sender's limits that began up to a time, the newest first."""
    session = Session(connection)
    statement = (
        select(ShapingChange)
        .where(col(ShapingChange.sender) == sender, col(ShapingChange.at) <= until)
        .order_by(col(ShapingChange.at).desc())
        .limit(MAX_CHANGES)
    )
    found = list(session.exec(statement))
    session.expunge_all()
    return found


def held_periods(connection: sa.Connection, sender: str) -> list[SenderHold]:
    """Return the last periods in which a sender was held, the newest first."""
    session = Session(connection)
    statement = (
        select(SenderHold)
        .where(col(SenderHold.sender) == sender, col(SenderHold.held_at).is_not(None))
        .order_by(col(SenderHold.id).desc())
        .limit(MAX_CHANGES)
    )
    found = list(session.exec(statement))
    session.expunge_all()
    return found


def cohort_pauses_of_steps(connection: sa.Connection, step_ids: Sequence[int]) -> list[CohortPause]:
    """Return every pause of a cohort of these steps, also lifted ones."""
    session = Session(connection)
    found = list(session.exec(select(CohortPause).where(col(CohortPause.step_id).in_(step_ids))))
    session.expunge_all()
    return found


def recipient_range(connection: sa.Connection, campaign_id: int, step_id: int) -> tuple[int, int]:
    """Return the smallest and the largest id of a recipient who has a touch of a step; zeros without touches."""
    # Two statements: each reads one end of the unique index.
    of_step = "FROM touch WHERE campaign_id = :campaign_id AND step_id = :step_id"
    values = {"campaign_id": campaign_id, "step_id": step_id}
    first = connection.execute(sa.text(f"SELECT recipient_id {of_step} ORDER BY recipient_id LIMIT 1"), values).scalar()
    last = connection.execute(
        sa.text(f"SELECT recipient_id {of_step} ORDER BY recipient_id DESC LIMIT 1"), values
    ).scalar()
    return int(first or 0), int(last or 0)

"""Finds recipients who may enter a journey: who joined its audience, did something, or whose turn in a scan it is."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from postroad.store.enrolments.pending import MEMBER_COLUMNS, member_sql
from postroad.store.planning import Member
from postroad.store.types import UtcDateTime

LATE_IDS = 5_000
"""At most so many events with a smaller id than the last one read may be committed after it."""

LATE_COMMIT = timedelta(hours=1)
"""A member is committed at most so long after the time of joining that it records, except by a running import."""

LONGEST_IMPORT = timedelta(days=1)


class Candidate(NamedTuple):
    """A member of the audience who may enter. ``key``: the member's place in the order of reading."""

    at: datetime
    key: int
    member: Member


_COLUMNS: tuple[sa.ColumnClause[Any], ...] = (
    sa.column("at", UtcDateTime()),
    sa.column("key", sa.Integer()),
    *MEMBER_COLUMNS,
)


def _candidates(
    connection: sa.Connection, found: str, values: dict[str, Any], joins: str = "", where: str = "true"
) -> list[Candidate]:
    statement = sa.text(
        f"SELECT found.at, found.key, {member_sql(connection)} FROM ({found}) AS found CROSS JOIN recipient {joins} "
        f"WHERE recipient.id = found.recipient_id AND {where} ORDER BY found.at, found.key"
    ).bindparams(*([sa.bindparam("at", type_=UtcDateTime())] if "at" in values else []))
    rows = connection.execute(statement.columns(*_COLUMNS), values)
    return [Candidate(row[0], row[1], Member(*row[2:])) for row in rows]


class Joined(NamedTuple):
    """A place in the order of joining an audience."""

    at: datetime
    recipient_id: int


def settled_until(connection: sa.Connection, audience_id: int, now: datetime) -> datetime:
    """Return the time before which no member who joined is committed any more."""
    statement = sa.text(
        "SELECT min(started_at) AS at FROM audience_import WHERE audience_id = :audience_id "
        "AND started_at > :since AND (finished_at IS NULL OR finished_at > :late)"
    ).bindparams(*(sa.bindparam(name, type_=UtcDateTime()) for name in ("since", "late")))
    values = {"audience_id": audience_id, "since": now - LONGEST_IMPORT, "late": now - LATE_COMMIT}
    started = connection.execute(statement.columns(sa.column("at", UtcDateTime())), values).scalar()
    return min(now - LATE_COMMIT, started or now)


def joined_members(connection: sa.Connection, audience_id: int, after: Joined, limit: int) -> list[Candidate]:
    """Return members who joined an audience after a place, in the order of joining."""
    found = (
        "SELECT recipient_id, joined_at AS at, recipient_id AS key FROM audience_member "
        "WHERE audience_id = :audience_id AND joined_at IS NOT NULL AND (joined_at, recipient_id) > (:at, :after) "
        "ORDER BY joined_at, recipient_id LIMIT :limit"
    )
    values: dict[str, Any] = {
        "audience_id": audience_id,
        "at": after.at,
        "after": after.recipient_id,
        "limit": limit,
    }
    return _candidates(connection, found, values)


class EventWhere(NamedTuple):
    """SQL of a condition on the rows ``recipient`` and ``recipient_event``, and its parameters."""

    sql: str
    parameters: dict[str, Any]


class EventPage(NamedTuple):
    """Events after an id. ``members``: those of members of the audience; ``last``: the last id; None: no event."""

    members: list[Candidate]
    last: int | None


def events_of_members(
    connection: sa.Connection, audience_id: int, name: str, where: EventWhere, after: int, limit: int
) -> EventPage:
    """Return the next events of a name, and those of them that members of an audience did and that meet a condition."""
    events = (
        "SELECT id AS key, recipient_id, at FROM recipient_event WHERE name = :name AND id > :after "
        "ORDER BY id LIMIT :limit"
    )
    values: dict[str, Any] = {
        "audience_id": audience_id,
        "name": name,
        "after": after,
        "limit": limit,
    }
    last = connection.execute(sa.text(f"SELECT max(key) FROM ({events}) AS page"), values).scalar()
    joins = (
        "JOIN audience_member ON audience_member.audience_id = :audience_id "
        "AND audience_member.recipient_id = found.recipient_id JOIN recipient_event ON recipient_event.id = found.key"
    )
    members = _candidates(connection, events, {**values, **where.parameters}, joins, where.sql)
    return EventPage(members, last)


def last_event(connection: sa.Connection) -> int:
    """Return the id of the newest event; 0 without events."""
    return int(connection.execute(sa.text("SELECT COALESCE(max(id), 0) FROM recipient_event")).scalar_one())

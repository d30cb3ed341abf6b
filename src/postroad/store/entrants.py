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
    ).bindparams(*_times(values))
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


def running_import(connection: sa.Connection, audience_id: int, at: datetime) -> datetime | None:
    """Return when the first import of an audience began that was running at a time. None: none was."""
    statement = sa.text(
        "SELECT min(started_at) AS at FROM audience_import WHERE audience_id = :audience_id "
        "AND started_at > :since AND started_at <= :at AND (finished_at IS NULL OR finished_at > :at)"
    ).bindparams(*(sa.bindparam(name, type_=UtcDateTime()) for name in ("since", "at")))
    values = {"audience_id": audience_id, "since": at - LONGEST_IMPORT, "at": at}
    return connection.execute(statement.columns(sa.column("at", UtcDateTime())), values).scalar()


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


class EntryEvents(NamedTuple):
    """The events that enter a campaign: those of a name that members of its audience did and that meet a condition."""

    audience_id: int
    name: str
    where: EventWhere


class EventPlace(NamedTuple):
    """A place in the order of the times of events."""

    at: datetime
    id: int


class EventPage(NamedTuple):
    """A page of events of a name. ``members``: those that enter; ``last``: the last event; None: no event."""

    members: list[Candidate]
    last: EventPlace | None


def recorded_events(connection: sa.Connection, events: EntryEvents, after: int, limit: int) -> EventPage:
    """Return the next events after an id, in the order of their ids."""
    page = (
        "SELECT id AS key, recipient_id, at FROM recipient_event WHERE name = :name AND id > :after "
        "ORDER BY id LIMIT :limit"
    )
    return _event_page(connection, events, page, "key", {"after": after, "limit": limit})


def events_that_came(
    connection: sa.Connection, events: EntryEvents, after: EventPlace, until: datetime, known: int, limit: int
) -> EventPage:
    """Return the next events whose time came, in the order of their times.

    Args:
        connection: A connection in a transaction.
        events: The events.
        after: The place of the last one before.
        until: The time.
        known: Id of the last one that was recorded: a later one is not returned.
        limit: Events of a page.

    Returns:
        The page.
    """
    page = (
        "SELECT id AS key, recipient_id, at FROM recipient_event WHERE at >= :at AND (at, id) > (:at, :after) "
        "AND at <= :until AND name = :name AND id <= :known ORDER BY at, id LIMIT :limit"
    )
    values = {"at": after.at, "after": after.id, "until": until, "known": known, "limit": limit}
    return _event_page(connection, events, page, "at, key", values)


def _event_page(
    connection: sa.Connection, events: EntryEvents, page: str, order: str, values: dict[str, Any]
) -> EventPage:
    values = {**values, "audience_id": events.audience_id, "name": events.name}
    latest = ", ".join(f"{name} DESC" for name in order.split(", "))
    statement = sa.text(f"SELECT at, key FROM ({page}) AS page ORDER BY {latest} LIMIT 1").bindparams(*_times(values))
    columns = sa.column("at", UtcDateTime()), sa.column("key", sa.Integer())
    last = connection.execute(statement.columns(*columns), values).one_or_none()
    joins = (
        "JOIN audience_member ON audience_member.audience_id = :audience_id "
        "AND audience_member.recipient_id = found.recipient_id JOIN recipient_event ON recipient_event.id = found.key"
    )
    members = _candidates(connection, page, {**values, **events.where.parameters}, joins, events.where.sql)
    return EventPage(members, EventPlace(*last) if last is not None else None)


def _times(values: dict[str, Any]) -> list[sa.BindParameter[datetime]]:
    return [sa.bindparam(name, type_=UtcDateTime()) for name in ("at", "until") if name in values]


def last_event(connection: sa.Connection) -> int:
    """Return the id of the newest event; 0 without events."""
    return int(connection.execute(sa.text("SELECT COALESCE(max(id), 0) FROM recipient_event")).scalar_one())

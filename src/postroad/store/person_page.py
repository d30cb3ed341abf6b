"""Reads audiences, members and events of recipients in pages, by keys."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from postroad.store.bulk import any_of
from postroad.store.recipient import find_audience
from postroad.store.types import JSON_OBJECT, UtcDateTime


class AudienceRow(NamedTuple):
    """One audience."""

    id: int
    name: str
    created_at: datetime


class MemberRow(NamedTuple):
    """One member of an audience. ``id``: of the recipient."""

    id: int
    address: str
    time_zone: str | None
    attributes: dict[str, Any]
    joined_at: datetime | None


class EventRow(NamedTuple):
    """One event of a recipient."""

    id: int
    name: str
    at: datetime
    key: str | None
    fields: dict[str, Any]


def audience_page(connection: sa.Connection, *, after: str, limit: int) -> list[AudienceRow]:
    """Return the audiences whose names come after a name."""
    statement = sa.text(
        "SELECT id, name, created_at FROM audience WHERE name > :after ORDER BY name LIMIT :limit"
    ).columns(sa.column("id", sa.Integer()), sa.column("name", sa.Text()), sa.column("created_at", UtcDateTime()))
    return [AudienceRow(*row) for row in connection.execute(statement, {"after": after, "limit": limit})]


def member_page(connection: sa.Connection, audience: str, *, after: int, limit: int) -> list[MemberRow]:
    """Return the members of an audience whose ids are greater. Raises StateError if there is no such audience."""
    audience_id = find_audience(connection, audience)
    ids = (
        "SELECT recipient_id FROM audience_member WHERE audience_id = :audience_id AND recipient_id > :after "
        "ORDER BY recipient_id LIMIT :limit"
    )
    statement = sa.text(
        "SELECT recipient.id, recipient.address, recipient.time_zone, recipient.attributes, "
        "(SELECT joined_at FROM audience_member WHERE audience_id = :audience_id AND recipient_id = recipient.id) "
        f"AS joined_at FROM recipient WHERE recipient.id {any_of(connection, ids)} ORDER BY recipient.id"
    ).columns(
        sa.column("id", sa.Integer()),
        sa.column("address", sa.Text()),
        sa.column("time_zone", sa.Text()),
        sa.column("attributes", JSON_OBJECT),
        sa.column("joined_at", UtcDateTime()),
    )
    values = {"audience_id": audience_id, "after": after, "limit": limit}
    return [MemberRow(*row) for row in connection.execute(statement, values)]


def event_page(connection: sa.Connection, recipient_id: int, *, before: int | None, limit: int) -> list[EventRow]:
    """Return events of a recipient, those recorded last first. ``before``: id of the last one of the page before."""
    statement = sa.text(
        "SELECT id, name, at, key, fields FROM recipient_event WHERE recipient_id = :id "
        "AND (:before IS NULL OR id < :before) ORDER BY id DESC LIMIT :limit"
    ).bindparams(sa.bindparam("before", type_=sa.BigInteger()))
    columns = (
        sa.column("id", sa.Integer()),
        sa.column("name", sa.Text()),
        sa.column("at", UtcDateTime()),
        sa.column("key", sa.Text()),
        sa.column("fields", JSON_OBJECT),
    )
    values = {"id": recipient_id, "before": before, "limit": limit}
    return [EventRow(*row) for row in connection.execute(statement.columns(*columns), values)]

"""What recipients did: signed up, paid, logged in. Conditions depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlmodel import Field

from postroad.errors import StateError
from postroad.store.bulk import any_of, json_rows
from postroad.store.types import BIG_ID, JSON_OBJECT, PartialIndex, StoredRow, UtcDateTime, sql_time


class RecipientEvent(StoredRow, table=True):
    """One thing that a recipient did at a time."""

    __tablename__ = "recipient_event"
    __table_args__ = (
        sa.Index("ix_recipient_event_recipient", "recipient_id", "name", "at"),
        sa.Index("ix_recipient_event_name", "name", "id"),
        sa.Index("ix_recipient_event_at", "at"),
        PartialIndex(
            "ix_recipient_event_key",
            "recipient_id",
            "name",
            "key",
            unique=True,
            where="key IS NOT NULL",
        ),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    recipient_id: int = Field(foreign_key="recipient.id", sa_type=BIG_ID)
    name: str = Field(sa_type=sa.String(64))
    at: datetime = Field(sa_type=UtcDateTime)
    fields: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_OBJECT, nullable=False)
    key: str | None = Field(default=None, sa_type=sa.String(200), description="recorded once per recipient and name")


class NewEvent(NamedTuple):
    """An event to record. ``fields``: a JSON object of texts."""

    address: str
    name: str
    at: datetime
    fields: str = "{}"
    key: str | None = None


class RecordedEvents(NamedTuple):
    """Result of recording events. ``unknown``: addresses that no recipient has. The rest were recorded before."""

    recorded: int
    unknown: frozenset[str]


def record_events(connection: sa.Connection, events: Sequence[NewEvent]) -> RecordedEvents:
    """Record events of known recipients. An event whose key was recorded for its recipient and name is skipped.

    Args:
        connection: A connection in a transaction that writes.
        events: The events, with normalised addresses.

    Returns:
        How many are new, and the addresses that are not known.
    """
    if not events:
        return RecordedEvents(0, frozenset())
    addresses = {event.address for event in events}
    asked = [{"address": address} for address in addresses]
    item, parameters = json_rows(connection, "asked", {"address": sa.Text()}, asked)
    known = sa.text(
        f"SELECT address, id FROM recipient WHERE address {any_of(connection, f'SELECT asked.address FROM {item}')}"
    )
    ids = {row.address: row.id for row in connection.execute(known, parameters)}
    dialect = connection.dialect.name
    columns: dict[str, sa.types.TypeEngine[Any]] = {
        "recipient_id": sa.BigInteger(),
        "name": sa.Text(),
        "at": UtcDateTime(),
        "fields": JSON_OBJECT,
        "key": sa.Text(),
    }
    rows = [
        {
            "recipient_id": ids[event.address],
            "name": event.name,
            "at": sql_time(event.at, dialect),
            "fields": msgspec.Raw(event.fields),
            "key": event.key,
        }
        for event in events
        if event.address in ids
    ]
    new, parameters = json_rows(connection, "new", columns, rows)
    # In a fixed order, so that two imports with the same keys do not deadlock.
    statement = sa.text(
        "INSERT INTO recipient_event (recipient_id, name, at, fields, key) "
        f"SELECT new.recipient_id, new.name, new.at, new.fields, new.key FROM {new} "
        "WHERE true ORDER BY new.recipient_id, new.name, new.key "
        "ON CONFLICT (recipient_id, name, key) WHERE key IS NOT NULL DO NOTHING"
    )
    recorded = connection.execute(statement, parameters).rowcount if rows else 0
    return RecordedEvents(recorded, frozenset(addresses - ids.keys()))


class KnownEvent(NamedTuple):
    """An event of a recipient, for display."""

    name: str
    at: datetime
    key: str | None
    fields: dict[str, Any]


def events_of(connection: sa.Connection, address: str, limit: int) -> list[KnownEvent]:
    """Return the events of a recipient, the newest first. Raises StateError if no recipient has this address."""
    recipient_id = connection.execute(
        sa.text("SELECT id FROM recipient WHERE address = :address"), {"address": address}
    ).scalar()
    if recipient_id is None:
        raise StateError(
            f"no recipient has the address {address}",
            remedy="Import the recipient first: `postroad audience import NAME FILE`.",
        )
    statement = sa.text(
        "SELECT name, at, key, fields FROM recipient_event WHERE recipient_id = :id "
        "ORDER BY at DESC, id DESC LIMIT :limit"
    ).columns(
        sa.column("name", sa.Text()),
        sa.column("at", UtcDateTime()),
        sa.column("key", sa.Text()),
        sa.column("fields", JSON_OBJECT),
    )
    return [KnownEvent(*row) for row in connection.execute(statement, {"id": recipient_id, "limit": limit})]

"""Messages that a program requests, one at a time: the idempotency key, the merge fields and the files of each.

The key of a request is unique. It belongs to the key of its touch (`Touch.request_id`), so a repetition finds the touch
of the first request, and one recipient may get many messages of one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlmodel import Field

from postroad.store.bulk import id_rows
from postroad.store.ledger import TouchState
from postroad.store.types import BIG_ID, JSON_OBJECT, PartialIndex, StoredRow, StrEnumType, UtcDateTime


class MessageRequest(StoredRow, table=True):
    """One requested message."""

    __tablename__ = "message_request"
    __table_args__ = (PartialIndex("ix_message_request_files", "created_at", "id", where="files <> '[]'"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    key: str = Field(sa_type=sa.String(200), unique=True, description="idempotency key")
    digest: str = Field(sa_type=sa.String(64), description="SHA-256 of what was requested, in hexadecimal")
    touch_id: int | None = Field(default=None, foreign_key="touch.id", sa_type=BIG_ID, unique=True)
    state: TouchState = Field(sa_type=StrEnumType(TouchState), description="state of the touch when it was inserted")
    transactional: bool = Field(
        default=False, description="sent also to a recipient who unsubscribed, as a receipt must be"
    )
    fields: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_OBJECT, nullable=False)
    files: list[Any] = Field(default_factory=list, sa_type=JSON_OBJECT, nullable=False)
    requested_by: str = Field(sa_type=sa.String(100), description="name of the API key")
    created_at: datetime = Field(sa_type=UtcDateTime)


class NewRequest(NamedTuple):
    """A request to insert. ``fields`` and ``files``: as JSON."""

    key: str
    digest: str
    transactional: bool
    fields: str
    files: str
    requested_by: str


class StoredRequest(NamedTuple):
    """A request that was made. ``state``: that of its touch when it was inserted."""

    id: int
    digest: str
    touch_id: int
    state: TouchState
    created_at: datetime


_INSERT = (
    "INSERT INTO message_request (key, digest, state, transactional, fields, files, requested_by, created_at) "
    f"VALUES (:key, :digest, '{TouchState.PLANNED}', :transactional, {{fields}}, {{files}}, :requested_by, :now) "
    "ON CONFLICT (key) DO NOTHING RETURNING id"
)


def insert_request(connection: sa.Connection, request: NewRequest, now: datetime) -> int | None:
    """Insert a request.

    A concurrent request with the same key waits here until the first one is committed or rolled back.

    Returns:
        Its id; None if there is a request with the same key.
    """
    json = ":{name}" if connection.dialect.name == "sqlite" else "CAST(:{name} AS jsonb)"
    statement = sa.text(_INSERT.format(fields=json.format(name="fields"), files=json.format(name="files")))
    values = {**request._asdict(), "now": now}
    inserted = connection.execute(statement.bindparams(sa.bindparam("now", type_=UtcDateTime())), values)
    id_: int | None = inserted.scalar()
    return id_


def find_request(connection: sa.Connection, key: str) -> StoredRequest | None:
    """Return the request with a key; None if no committed request has it."""
    statement = sa.text("SELECT id, digest, touch_id, state, created_at FROM message_request WHERE key = :key").columns(
        sa.column("id", sa.Integer()),
        sa.column("digest", sa.Text()),
        sa.column("touch_id", sa.Integer()),
        sa.column("state", sa.Text()),
        sa.column("created_at", UtcDateTime()),
    )
    row = connection.execute(statement, {"key": key}).one_or_none()
    return None if row is None else StoredRequest(row.id, row.digest, row.touch_id, TouchState(row.state), row[4])


def lock_campaign(connection: sa.Connection, name: str) -> None:
    """Keep a campaign from ending until the transaction does. Other requests do not wait. SQLite has one writer."""
    if connection.dialect.name != "sqlite":
        connection.execute(sa.text("SELECT 1 FROM campaign WHERE name = :name FOR SHARE"), {"name": name}).all()


def planned_among(connection: sa.Connection, touch_ids: Sequence[int]) -> list[int]:
    """Return those of these touches that are planned."""
    item, parameters = id_rows(connection, touch_ids)
    statement = sa.text(
        f"SELECT touch.id FROM {item} JOIN touch ON touch.id = batch.id "
        f"WHERE touch.state || '' = '{TouchState.PLANNED}'"
    )
    return list(connection.execute(statement, parameters).scalars())


class RequestOfTouch(NamedTuple):
    """The request of a touch, for display."""

    touch_id: int
    key: str
    transactional: bool
    requested_by: str
    created_at: datetime


def requests_of_touches(connection: sa.Connection, touch_ids: Sequence[int]) -> dict[int, RequestOfTouch]:
    """Return the requests of these touches, by their ids. Touches that a campaign planned are missing."""
    if not touch_ids:
        return {}
    statement = (
        sa.text(
            "SELECT touch_id, key, transactional, requested_by, created_at FROM message_request WHERE touch_id IN :ids"
        )
        .bindparams(sa.bindparam("ids", list(touch_ids), expanding=True, type_=sa.BigInteger()))
        .columns(
            sa.column("touch_id", sa.Integer()),
            sa.column("key", sa.Text()),
            sa.column("transactional", sa.Boolean()),
            sa.column("requested_by", sa.Text()),
            sa.column("created_at", UtcDateTime()),
        )
    )
    return {row.touch_id: RequestOfTouch(*row) for row in connection.execute(statement)}


def json_text(value: object) -> str:
    """Return a value as JSON, with the keys of its objects in order, so that equal values have equal texts."""
    return msgspec.json.encode(value, order="sorted").decode()

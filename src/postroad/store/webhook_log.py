"""The log of webhooks: one row for each request to an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine
from sqlmodel import Field

from postroad.store.bulk import any_of, id_rows, json_rows
from postroad.store.engine import read, write
from postroad.store.text import storable_text
from postroad.store.types import BIG_ID, StoredRow, UtcDateTime, sql_time

STEP: Final = 1_000
"""Rows that one transaction deletes."""


class WebhookAttempt(StoredRow, table=True):
    """One request to an endpoint. The log of webhooks."""

    __tablename__ = "webhook_attempt"
    __table_args__ = (
        sa.Index("ix_webhook_attempt_endpoint", "endpoint", "id"),
        sa.Index("ix_webhook_attempt_message", "message_id", "id"),
        sa.Index("ix_webhook_attempt_at", "at"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    endpoint: str = Field(sa_type=sa.String(50))
    message_id: str = Field(sa_type=sa.String(40))
    type: str = Field(sa_type=sa.String(40))
    attempt: int
    at: datetime = Field(sa_type=UtcDateTime)
    duration_ms: int
    outcome: str = Field(sa_type=sa.String(24))
    status: int | None = Field(default=None, description="HTTP status; NULL: there was no response")
    error: str | None = Field(default=None, sa_type=sa.String(300))


class LoggedAttempt(NamedTuple):
    """One attempt, for the log. ``status`` None: there was no response."""

    endpoint: str
    message_id: str
    type: str
    attempt: int
    at: datetime
    duration_ms: int
    outcome: str
    status: int | None
    error: str | None


_ATTEMPT: Final[dict[str, TypeEngine[Any]]] = {
    "endpoint": sa.Text(),
    "message_id": sa.Text(),
    "type": sa.Text(),
    "attempt": sa.Integer(),
    "at": UtcDateTime(),
    "duration_ms": sa.Integer(),
    "outcome": sa.Text(),
    "status": sa.Integer(),
    "error": sa.Text(),
}


def log_attempts(connection: sa.Connection, attempts: Sequence[LoggedAttempt]) -> None:
    """Append attempts to the log."""
    if not attempts:
        return
    dialect = connection.dialect.name
    rows = [
        {
            **attempt._asdict(),
            "at": sql_time(attempt.at, dialect),
            "error": attempt.error and storable_text(attempt.error, 300),
        }
        for attempt in attempts
    ]
    names = ", ".join(_ATTEMPT)
    item, parameters = json_rows(connection, "new", _ATTEMPT, rows)
    picks = ", ".join(f"new.{name}" for name in _ATTEMPT)
    connection.execute(sa.text(f"INSERT INTO webhook_attempt ({names}) SELECT {picks} FROM {item}"), parameters)


_NAMES: Final = f"id, {', '.join(_ATTEMPT)}"
_COLUMNS: Final[tuple[sa.ColumnClause[Any], ...]] = (
    sa.column("id", sa.BigInteger()),
    *(sa.column(name, kind) for name, kind in _ATTEMPT.items()),
)


class LogRow(NamedTuple):
    """One row of the log."""

    id: int
    endpoint: str
    message_id: str
    type: str
    attempt: int
    at: datetime
    duration_ms: int
    outcome: str
    status: int | None
    error: str | None


def log_page(
    connection: sa.Connection, *, endpoint: str | None, message_id: str | None, before: int | None, limit: int
) -> list[LogRow]:
    """Return attempts, the newest first.

    Args:
        connection: A connection in a transaction.
        endpoint: Only attempts of this endpoint. None: of all.
        message_id: Only attempts with this message id. None: with any.
        before: Only attempts before this id: the last one of the page before. None: the first page.
        limit: Maximum number of rows.
    """
    given = {"endpoint": endpoint, "message_id": message_id}
    values: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    conditions = [f"{name} = :{name}" for name in values]
    if before is not None:
        conditions.append("id < :before")
        values["before"] = before
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    statement = sa.text(f"SELECT {_NAMES} FROM webhook_attempt {where}ORDER BY id DESC LIMIT :limit")
    rows = connection.execute(statement.columns(*_COLUMNS), {**values, "limit": limit})
    return [LogRow(*row) for row in rows]


def last_attempts(connection: sa.Connection, endpoint: str, message_ids: Sequence[str]) -> dict[str, LogRow]:
    """Return the newest attempt of each of these events at an endpoint, by message id."""
    newest = (
        "SELECT max(id) FROM webhook_attempt WHERE endpoint = :endpoint AND message_id IN :message_ids "
        "GROUP BY message_id"
    )
    statement = sa.text(f"SELECT {_NAMES} FROM webhook_attempt WHERE id IN ({newest})").bindparams(
        sa.bindparam("message_ids", list(message_ids), type_=sa.Text(), expanding=True)
    )
    rows = [LogRow(*row) for row in connection.execute(statement.columns(*_COLUMNS), {"endpoint": endpoint})]
    return {row.message_id: row for row in rows}


_OLD: Final = {
    "webhook_attempt": "SELECT id FROM webhook_attempt WHERE at < :before ORDER BY at LIMIT :limit",
    "webhook_delivery": (
        "SELECT id FROM webhook_delivery WHERE created_at < :before AND state <> 'waiting' "
        "ORDER BY created_at LIMIT :limit"
    ),
}


def delete_old_log(engine: sa.Engine, before: datetime, *, steps: int = 50) -> int:
    """Delete attempts and settled deliveries from before a time, a thousand rows in a transaction.

    Args:
        engine: The database.
        before: The time.
        steps: Maximum number of steps for each kind. The next call continues.

    Returns:
        The number of deleted rows.

    Raises:
        UnavailableError: The database does not answer.
    """
    deleted = 0
    for table, old in _OLD.items():
        statement = sa.text(old).bindparams(sa.bindparam("before", type_=UtcDateTime()))
        for _ in range(steps):
            with read(engine) as connection:
                ids = list(connection.execute(statement, {"before": before, "limit": STEP}).scalars())
            if not ids:
                break
            with write(engine) as connection:
                item, parameters = id_rows(connection, ids)
                old_ids = any_of(connection, f"SELECT batch.id FROM {item}")
                deleted += connection.execute(sa.text(f"DELETE FROM {table} WHERE id {old_ids}"), parameters).rowcount
    return deleted

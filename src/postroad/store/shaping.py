"""Changes that slow a sender down at a mailbox provider, and the replies that count towards the next change.

A gate has at most one open change of a rule, so several workers that see the same reply open one change.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from postroad.store.types import BIG_ID, PartialIndex, StoredRow, UtcDateTime, upsert_into

_LOCK_KEY = 0x73686170  # key of PostgreSQL's advisory lock: a number that no other user of this database takes
COUNTED = timedelta(hours=1)
"""How long a reply counts towards a rule that acts after several replies."""


class ShapingChange(StoredRow, table=True):
    """One change of the limits of a sender, with the reply that caused it and the time when it was undone."""

    __tablename__ = "shaping_change"
    __table_args__ = (
        PartialIndex(
            "ux_shaping_change_open",
            "gate",
            "rule",
            unique=True,
            where="restored_at IS NULL",
        ),
        sa.Index("ix_shaping_change_sender", "sender", "at"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    gate: str = Field(sa_type=sa.String(1000))
    rule: str = Field(sa_type=sa.String(100))
    sender: str = Field(sa_type=sa.String(320))
    provider: str | None = Field(default=None, sa_type=sa.String(100), description="NULL: the sender everywhere")
    reply: str = Field(sa_type=sa.String(500), description="reply that caused it")
    at: datetime = Field(sa_type=UtcDateTime)
    ends_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="NULL: until it is undone")
    suspended: bool = Field(default=False)
    rate_count: float | None = Field(default=None)
    rate_per_ms: int | None = Field(default=None, sa_type=sa.BigInteger)
    connections: int | None = Field(default=None)
    share: float | None = Field(default=None, description="adaptive rate: share of the limits, 0 to 1")
    moved_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="adaptive rate: when the share last changed"
    )
    restored_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    restored_by: str | None = Field(default=None, sa_type=sa.String(100))


class ShapingReply(StoredRow, table=True):
    """One reply that counts towards a rule. It is stored for an hour."""

    __tablename__ = "shaping_reply"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    gate: str = Field(sa_type=sa.String(1000))
    rule: str = Field(sa_type=sa.String(100))
    at: datetime = Field(sa_type=UtcDateTime, index=True)


def acquire_lock(connection: sa.Connection) -> None:
    """Lock the changes of all gates until the transaction ends. On SQLite only one transaction writes at a time."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})


def count_reply(connection: sa.Connection, gate: str, rule: str, at: datetime, times: int) -> int:
    """Count a reply ``times`` times. Returns its number within the hour, these included."""
    connection.execute(sa.delete(ShapingReply).where(col(ShapingReply.at) <= at - COUNTED))
    row = {"gate": gate, "rule": rule, "at": at}
    connection.execute(sa.insert(ShapingReply), [row] * times)
    counted = sa.select(sa.func.count()).where(col(ShapingReply.gate) == gate, col(ShapingReply.rule) == rule)
    return connection.execute(counted).scalar_one()


def open_changes(connection: sa.Connection) -> list[ShapingChange]:
    """Return the changes that are not undone, also those that have expired, in the order of their ids."""
    session = Session(connection)
    # Sorted here: for an ORDER BY, SQLite reads every change that there ever was in the order of its key.
    found = list(session.exec(select(ShapingChange).where(col(ShapingChange.restored_at).is_(None))))
    session.expunge_all()
    return sorted(found, key=lambda change: change.id or 0)


def newest_changes(
    connection: sa.Connection, sender: str | None, limit: int, *, before: int | None = None
) -> list[ShapingChange]:
    """Return the newest changes first, of one sender or of all. ``before``: only those with a smaller id."""
    session = Session(connection)
    statement = select(ShapingChange).order_by(col(ShapingChange.id).desc()).limit(limit)
    if sender is not None:
        statement = statement.where(ShapingChange.sender == sender)
    if before is not None:
        statement = statement.where(col(ShapingChange.id) < before)
    found = list(session.exec(statement))
    session.expunge_all()
    return found


def add_change(connection: sa.Connection, change: ShapingChange) -> bool:
    """Open a change. Returns False, and changes nothing, if the gate has an open change of the same rule."""
    values = change.model_dump(exclude={"id"})
    kept = (
        upsert_into(connection, ShapingChange)
        .values(**values)
        .on_conflict_do_nothing(index_elements=["gate", "rule"], index_where=sa.text("restored_at IS NULL"))
        .returning(col(ShapingChange.id))  # On PostgreSQL, SQLAlchemy counts no inserted row.
    )
    return connection.execute(kept).first() is not None


def restore(connection: sa.Connection, ids: Sequence[int], at: datetime, by: str) -> int:
    """Close open changes. Returns the number closed."""
    statement = (
        sa.update(ShapingChange)
        .where(col(ShapingChange.id).in_(ids), col(ShapingChange.restored_at).is_(None))
        .values(restored_at=at, restored_by=by)
    )
    return connection.execute(statement).rowcount


def restore_gate(connection: sa.Connection, gate: str, at: datetime, by: str) -> list[ShapingChange]:
    """Close every open change of a gate. Returns the changes."""
    acquire_lock(connection)
    found = [change for change in open_changes(connection) if change.gate == gate]
    restore(connection, [change.id for change in found if change.id is not None], at, by)
    return found


def move_pace(connection: sa.Connection, change: ShapingChange, since: datetime) -> bool:
    """Update the rate of an open change, unless it was updated after ``since``. Returns whether it was updated."""
    statement = (
        sa.update(ShapingChange)
        .where(
            col(ShapingChange.id) == change.id,
            col(ShapingChange.restored_at).is_(None),
            col(ShapingChange.moved_at) == since,
        )
        .values(
            share=change.share,
            moved_at=change.moved_at,
            rate_count=change.rate_count,
            rate_per_ms=change.rate_per_ms,
            connections=change.connections,
        )
    )
    return connection.execute(statement).rowcount == 1

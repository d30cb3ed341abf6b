"""What slowed a sender down at a mailbox provider: one row for each change, and the replies counted towards the next.

At most one change of a rule is open at a gate, so workers that see the same reply at once make one of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Field, Session, SQLModel, col, select

from postroad.store.types import BIG_ID, UtcDateTime

_LOCK_KEY = 0x73686170  # of PostgreSQL's advisory lock: any number that nobody else of this database takes
COUNTED = timedelta(hours=1)
"""How long a reply counts towards a rule that acts at so many of them."""


class ShapingChange(SQLModel, table=True):
    """One change of how fast a sender may go, from the reply that caused it to the moment when it was undone."""

    __tablename__ = "shaping_change"
    __table_args__ = (
        sa.Index(
            "ux_shaping_change_open",
            "gate",
            "rule",
            unique=True,
            sqlite_where=sa.text("restored_at IS NULL"),
            postgresql_where=sa.text("restored_at IS NULL"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    gate: str = Field(sa_type=sa.String(1000))
    rule: str = Field(sa_type=sa.String(100))
    sender: str = Field(sa_type=sa.String(320))
    provider: str | None = Field(default=None, sa_type=sa.String(100), description="none: the sender everywhere")
    reply: str = Field(sa_type=sa.String(500), description="what was said, and caused it")
    at: datetime = Field(sa_type=UtcDateTime)
    ends_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="none: until it is undone")
    suspended: bool = Field(default=False)
    rate_count: float | None = Field(default=None)
    rate_per_ms: int | None = Field(default=None, sa_type=sa.BigInteger)
    connections: int | None = Field(default=None)
    share: float | None = Field(default=None, description="of the pace: of the limits, 0 to 1")
    moved_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="of the pace: when it last did")
    restored_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    restored_by: str | None = Field(default=None, sa_type=sa.String(100))


class ShapingReply(SQLModel, table=True):
    """One reply that counts towards a rule. Kept for an hour."""

    __tablename__ = "shaping_reply"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    gate: str = Field(sa_type=sa.String(1000))
    rule: str = Field(sa_type=sa.String(100))
    at: datetime = Field(sa_type=UtcDateTime, index=True)


def one_at_a_time(connection: sa.Connection) -> None:
    """Wait for whoever else changes the shaping, until their transaction ends. On SQLite only one writes anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})


def count_reply(connection: sa.Connection, gate: str, rule: str, at: datetime, times: int) -> int:
    """Count a reply ``times`` times. Returns how often it was said within the hour, these included."""
    connection.execute(sa.delete(ShapingReply).where(col(ShapingReply.at) <= at - COUNTED))
    row = {"gate": gate, "rule": rule, "at": at}
    connection.execute(sa.insert(ShapingReply), [row] * times)
    counted = sa.select(sa.func.count()).where(col(ShapingReply.gate) == gate, col(ShapingReply.rule) == rule)
    return connection.execute(counted).scalar_one()


def open_changes(connection: sa.Connection) -> list[ShapingChange]:
    """Return what is not undone yet, also where its end has come."""
    session = Session(connection)
    found = list(
        session.exec(select(ShapingChange).where(col(ShapingChange.restored_at).is_(None)).order_by(ShapingChange.id))  # type: ignore[arg-type]
    )
    session.expunge_all()
    return found


def newest_changes(connection: sa.Connection, sender: str | None, limit: int) -> list[ShapingChange]:
    """Return the newest changes first, of one sender or of all."""
    session = Session(connection)
    statement = select(ShapingChange).order_by(col(ShapingChange.id).desc()).limit(limit)
    if sender is not None:
        statement = statement.where(ShapingChange.sender == sender)
    found = list(session.exec(statement))
    session.expunge_all()
    return found


def add_change(connection: sa.Connection, change: ShapingChange) -> bool:
    """Open a change. False: one of this rule is open at this gate, and stays as it is."""
    values = change.model_dump(exclude={"id"})
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    kept = (
        insert(ShapingChange)
        .values(**values)
        .on_conflict_do_nothing(index_elements=["gate", "rule"], index_where=sa.text("restored_at IS NULL"))
        .returning(col(ShapingChange.id))  # On PostgreSQL, SQLAlchemy counts no inserted row.
    )
    return connection.execute(kept).first() is not None


def restore(connection: sa.Connection, ids: Sequence[int], at: datetime, by: str) -> int:
    """Close changes that are open. Returns how many."""
    statement = (
        sa.update(ShapingChange)
        .where(col(ShapingChange.id).in_(ids), col(ShapingChange.restored_at).is_(None))
        .values(restored_at=at, restored_by=by)
    )
    return connection.execute(statement).rowcount


def restore_gate(connection: sa.Connection, gate: str, at: datetime, by: str) -> list[ShapingChange]:
    """Close every open change of a gate. Returns which."""
    one_at_a_time(connection)
    found = [change for change in open_changes(connection) if change.gate == gate]
    restore(connection, [change.id for change in found if change.id is not None], at, by)
    return found


def move_pace(connection: sa.Connection, change: ShapingChange, since: datetime) -> bool:
    """Let the pace of an open change grow to what the row says, unless somebody moved it since. False: somebody did."""
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

"""The audit log: who did what, when, from where, to what, and how many it touched.

A record is in the transaction of the act. `record_act` writes one into a transaction of the caller. `audited` adds one
to the transactions that functions of other packages begin: the first one that commits inserts it, later ones update
its count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field

from postroad.store.engine import commit_hook, write
from postroad.store.types import BIG_ID, StoredRow, UtcDateTime

MAX_TARGET_CHARACTERS = 320


class AuditRecord(StoredRow, table=True):
    """One act of a user."""

    __tablename__ = "audit_record"
    __table_args__ = (
        sa.Index("ix_audit_record_actor", "actor", "id"),
        sa.Index("ix_audit_record_action", "action", "id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    actor: str = Field(sa_type=sa.String(200), description="name of the user, or of the key")
    origin: str = Field(sa_type=sa.String(100), description="client address, or the machine of the command line")
    action: str = Field(sa_type=sa.String(100), description="such as campaign.pause")
    target: str = Field(sa_type=sa.String(MAX_TARGET_CHARACTERS), description="what it was done to")
    count: int | None = Field(default=None, sa_type=sa.BigInteger, description="number of things it touched")
    note: str = Field(default="", sa_type=sa.Text, description="the reason that the user gave")


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who acts, and from where."""

    name: str
    origin: str


@dataclass(kw_only=True)
class AuditedAct:
    """An act that is being done. Set ``count`` as soon as it is known.

    Attributes:
        actor: Who acts.
        action: What is done, such as ``campaign.pause``.
        target: What it is done to.
        at: When.
        count: Number of things it touches. None: not counted.
        note: The reason that the user gave.
    """

    actor: Actor
    action: str
    target: str
    at: datetime
    count: int | None = None
    note: str = ""
    _record_id: int | None = field(default=None, init=False)
    _recorded_count: int | None = field(default=None, init=False)

    def save(self, connection: sa.Connection) -> None:
        """Insert the record, or update its count, in the transaction of the connection."""
        if self._record_id is not None and self._update(connection):
            return
        self._record_id = record_act(
            connection, self.actor, self.action, self.target, self.count, at=self.at, note=self.note
        )
        self._recorded_count = self.count

    @property
    def is_saved(self) -> bool:
        """Whether the record is in the database as it is here."""
        return self._record_id is not None and self._recorded_count == self.count

    def _update(self, connection: sa.Connection) -> bool:
        """Update the count. Returns False if the record is missing, because its transaction was rolled back."""
        statement = sa.text("UPDATE audit_record SET count = :count WHERE id = :id")
        self._recorded_count = self.count
        return connection.execute(statement, {"count": self.count, "id": self._record_id}).rowcount == 1


def record_act(
    connection: sa.Connection,
    actor: Actor,
    action: str,
    target: str,
    count: int | None,
    *,
    at: datetime,
    note: str = "",
) -> int:
    """Record an act in the transaction of the connection.

    Args:
        connection: Within the transaction of the act.
        actor: Who acts.
        action: What is done, such as ``campaign.pause``.
        target: What it is done to.
        count: Number of things it touches. None: not counted.
        at: When.
        note: The reason that the user gave.

    Returns:
        The id of the record.
    """
    values = {
        "at": at,
        "actor": actor.name[:200],
        "origin": actor.origin[:100],
        "action": action,
        "target": target[:MAX_TARGET_CHARACTERS],
        "count": count,
        "note": note,
    }
    statement = sa.text(
        "INSERT INTO audit_record (at, actor, origin, action, target, count, note) "
        "VALUES (:at, :actor, :origin, :action, :target, :count, :note) RETURNING id"
    ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
    return int(connection.execute(statement, values).scalar_one())


@contextmanager
def audited(engine: sa.Engine, act: AuditedAct, *, first: bool = False) -> Iterator[AuditedAct]:
    """Record an act in the first transaction of this engine that commits within the block.

    It covers the threads that `asyncio.to_thread` starts within the block. If the block ends without a transaction,
    the record gets one of its own. If the block raises before the first commit, there is no record.

    Args:
        engine: The database.
        act: The act.
        first: Commit the record before the block, for an act outside the database, such as on the queue.

    Yields:
        The act, whose count the block may set.
    """

    def hook(connection: sa.Connection) -> None:
        if connection.engine is engine or connection.engine.url == engine.url:
            act.save(connection)

    token = commit_hook.set(hook)
    try:
        if first:
            save_act(engine, act)
        yield act
        if not act.is_saved:
            save_act(engine, act)
    finally:
        commit_hook.reset(token)


def save_act(engine: sa.Engine, act: AuditedAct) -> None:
    """Save the record of an act in a transaction of its own."""
    with write(engine) as connection:
        if not act.is_saved:
            act.save(connection)


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Which records to list. None: all."""

    actor: str | None = None
    action: str | None = None


def audit_records(
    connection: sa.Connection, limit: int, *, before: int | None = None, only: AuditFilter | None = None
) -> Sequence[AuditRecord]:
    """Return records, the newest first.

    Args:
        connection: A connection.
        limit: Largest number of records.
        before: Only records with a smaller id: the id of the last one of the page before.
        only: Which records. None: all.

    Returns:
        The records.
    """
    table = AuditRecord.__table__  # type: ignore[attr-defined]
    only = only or AuditFilter()
    statement = sa.select(table).order_by(table.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(table.c.id < before)
    if only.actor is not None:
        statement = statement.where(table.c.actor == only.actor)
    if only.action is not None:
        statement = statement.where(table.c.action == only.action)
    return [AuditRecord(**row._mapping) for row in connection.execute(statement)]

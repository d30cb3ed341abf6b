"""Pauses of gates and campaigns by operators: who paused what, when and until when, and who resumed it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from postroad.store.types import BIG_ID, PartialIndex, StoredRow, UtcDateTime

MAX_PAUSES = 1_000
"""Pauses of the gates of some touches that are read, the newest ones."""

_OPEN = "resumed_at IS NULL"


class OperatorPause(StoredRow, table=True):
    """One pause. A gate of a queue has at most one that was not resumed."""

    __tablename__ = "operator_pause"
    __table_args__ = (
        sa.Index("ix_operator_pause_gate", "gate", "at"),
        PartialIndex(
            "ux_operator_pause_open",
            "queue",
            "gate",
            unique=True,
            where=_OPEN,
        ),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    queue: str = Field(sa_type=sa.String(100))
    gate: str = Field(sa_type=sa.String(1000), description="name of the gate; of a campaign: that of its gate")
    at: datetime = Field(sa_type=UtcDateTime)
    by: str = Field(sa_type=sa.Text)
    ends_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="NULL: until it is resumed")
    resumed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    resumed_by: str | None = Field(default=None, sa_type=sa.Text)

    @property
    def ended_at(self) -> datetime | None:
        """When it ended, or will end; None: when it is resumed."""
        return min((at for at in (self.ends_at, self.resumed_at) if at is not None), default=None)


def record_operator_pause(
    connection: sa.Connection, queue: str, gate: str, *, by: str, now: datetime, until: datetime | None = None
) -> None:
    """Record that an operator paused a gate. A pause that has not ended continues, with the new end.

    Args:
        connection: A connection in a transaction that writes.
        queue: The queue.
        gate: The gate.
        by: Who pauses it.
        now: The time.
        until: When the pause ends by itself; None: when it is resumed.
    """
    of_gate = (
        col(OperatorPause.queue) == queue,
        col(OperatorPause.gate) == gate,
        col(OperatorPause.resumed_at).is_(None),
    )
    over = sa.update(OperatorPause).where(*of_gate, col(OperatorPause.ends_at) <= now)
    connection.execute(over.values(resumed_at=col(OperatorPause.ends_at)))
    if not connection.execute(sa.update(OperatorPause).where(*of_gate).values(ends_at=until)).rowcount:
        row = {"queue": queue, "gate": gate, "at": now, "by": by, "ends_at": until}
        connection.execute(sa.insert(OperatorPause).values(**row))


def record_operator_resume(connection: sa.Connection, queue: str, gate: str, *, by: str, now: datetime) -> None:
    """Record that an operator resumed a gate. Without a recorded pause it has no effect."""
    statement = sa.update(OperatorPause).where(
        col(OperatorPause.queue) == queue, col(OperatorPause.gate) == gate, col(OperatorPause.resumed_at).is_(None)
    )
    connection.execute(statement.values(resumed_at=now, resumed_by=by))


def operator_pauses(
    connection: sa.Connection, gates: Collection[str], since: datetime, until: datetime
) -> list[OperatorPause]:
    """Return the pauses of these gates that were in force between two times, the newest first."""
    if not gates:
        return []
    session = Session(connection)
    statement = (
        select(OperatorPause)
        .where(
            col(OperatorPause.gate).in_(sorted(gates)),
            col(OperatorPause.at) <= until,
            sa.or_(col(OperatorPause.ends_at).is_(None), col(OperatorPause.ends_at) > since),
            sa.or_(col(OperatorPause.resumed_at).is_(None), col(OperatorPause.resumed_at) > since),
        )
        .order_by(col(OperatorPause.at).desc())
        .limit(MAX_PAUSES)
    )
    found = list(session.exec(statement))
    session.expunge_all()
    return found

"""Stores when recurring work last succeeded, so that a metric and a check can show its age."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, col

from postroad.store.types import StoredRow, UtcDateTime

ADVANCE = "advance"
"""One pass over all running campaigns: plan, submit, finish."""


class Heartbeat(StoredRow, table=True):
    """A kind of recurring work, and when it last succeeded."""

    __tablename__ = "heartbeat"

    name: str = Field(primary_key=True, sa_type=sa.String(100))
    at: datetime = Field(sa_type=UtcDateTime)


def record_heartbeat(connection: sa.Connection, name: str, now: datetime) -> None:
    """Record that this work succeeded now."""
    statement = sa.text(
        "INSERT INTO heartbeat (name, at) VALUES (:name, :at) ON CONFLICT (name) DO UPDATE SET at = excluded.at"
    ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
    connection.execute(statement, {"name": name, "at": now})


def last_heartbeat(connection: sa.Connection, name: str) -> datetime | None:
    """Return when this work last succeeded. None: it never did on this database."""
    return connection.execute(sa.select(col(Heartbeat.at)).where(col(Heartbeat.name) == name)).scalar_one_or_none()

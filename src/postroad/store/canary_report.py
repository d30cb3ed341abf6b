"""Reports about the canaries of senders: what a receiver made of each."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from postroad.store.types import BIG_ID, JSON_OBJECT, StoredRow, UtcDateTime

KEPT = 60
"""Reports that are stored of one sender: two weeks, with one every six hours."""


class StoredCanary(StoredRow, table=True):
    """The findings about one canary of a sender."""

    __tablename__ = "canary_report"
    __table_args__ = (sa.Index("ix_canary_report_sender", "sender", "id"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    sender: str = Field(sa_type=sa.String(320), description="From address")
    verdict: str = Field(sa_type=sa.String(16))
    findings: list[dict[str, Any]] = Field(sa_type=JSON_OBJECT, nullable=False)
    ended_at: datetime = Field(sa_type=UtcDateTime, description="when it arrived, or was given up")


def newest_canaries(connection: sa.Connection, sender: str, limit: int) -> list[StoredCanary]:
    """Return the newest reports of a sender, the newest first."""
    session = Session(connection)
    statement = select(StoredCanary).where(StoredCanary.sender == sender).order_by(col(StoredCanary.id).desc())
    reports = list(session.exec(statement.limit(limit)))
    session.expunge_all()
    return reports


def save_canary(connection: sa.Connection, report: StoredCanary) -> None:
    """Save a report, and delete the oldest ones of the same sender."""
    session = Session(connection)
    session.add(report)
    session.flush()
    session.expunge_all()
    newest = select(StoredCanary.id).where(StoredCanary.sender == report.sender).order_by(col(StoredCanary.id).desc())
    oldest_kept = newest.limit(1).offset(KEPT - 1).scalar_subquery()
    old = sa.delete(StoredCanary).where(col(StoredCanary.sender) == report.sender, col(StoredCanary.id) < oldest_kept)
    connection.execute(old)

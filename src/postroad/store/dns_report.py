"""Reports about the DNS of senders, and the holds that follow from them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from postroad.store.types import BIG_ID, JSON_OBJECT, PartialIndex, StoredRow, UtcDateTime

KEPT = 60
"""Reports that are stored of one sender: two weeks, with one every six hours."""


class DnsReport(StoredRow, table=True):
    """One check of a sender's domain and addresses."""

    __tablename__ = "dns_report"
    __table_args__ = (sa.Index("ix_dns_report_sender", "sender", "id"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    sender: str = Field(sa_type=sa.String(320), description="From address")
    domain: str = Field(sa_type=sa.String(255))
    verdict: str = Field(sa_type=sa.String(16))
    findings: list[dict[str, Any]] = Field(sa_type=JSON_OBJECT, nullable=False)
    checked_at: datetime = Field(sa_type=UtcDateTime)


_OPEN = "ended_at IS NULL"


class SenderHold(StoredRow, table=True):
    """A period in which a sender's domain failed: its begin, the begin of the hold, and how it ended."""

    __tablename__ = "sender_hold"
    __table_args__ = (
        PartialIndex("ix_sender_hold_open", "sender", unique=True, where=_OPEN),
        sa.Index("ix_sender_hold_sender", "sender", "id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    sender: str = Field(sa_type=sa.String(320), description="From address")
    reason: str = Field(sa_type=sa.Text, description="what fails, from the last report")
    failing_since: datetime = Field(sa_type=UtcDateTime)
    held_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="empty: within its grace period")
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_why: str | None = Field(default=None, sa_type=sa.Text)


_LOCK_KEY = 0x686F6C64  # the first of the two keys of PostgreSQL's advisory lock; the other is the sender's


def lock_sender(connection: sa.Connection, sender: str) -> None:
    """Lock the reports of a sender until the transaction ends. On SQLite only one transaction writes at a time."""
    if connection.dialect.name == "postgresql":
        statement = sa.text("SELECT pg_advisory_xact_lock(:key, hashtext(:sender))")
        connection.execute(statement, {"key": _LOCK_KEY, "sender": sender})


def last_report(connection: sa.Connection, sender: str) -> DnsReport | None:
    """Return the newest report of a sender."""
    return next(iter(newest_reports(connection, sender, 1)), None)


def newest_reports(connection: sa.Connection, sender: str, limit: int) -> list[DnsReport]:
    """Return the newest reports of a sender, the newest first."""
    session = Session(connection)
    statement = select(DnsReport).where(DnsReport.sender == sender).order_by(col(DnsReport.id).desc()).limit(limit)
    reports = list(session.exec(statement))
    session.expunge_all()
    return reports


def save_dns_report(connection: sa.Connection, report: DnsReport) -> None:
    """Save a report, and delete the oldest ones of the same sender."""
    session = Session(connection)
    session.add(report)
    session.flush()
    session.expunge_all()
    newest = select(DnsReport.id).where(DnsReport.sender == report.sender).order_by(col(DnsReport.id).desc())
    oldest_kept = newest.limit(1).offset(KEPT - 1).scalar_subquery()
    connection.execute(
        sa.delete(DnsReport).where(col(DnsReport.sender) == report.sender, col(DnsReport.id) < oldest_kept)
    )


def open_holds(connection: sa.Connection) -> dict[str, SenderHold]:
    """Return the failing senders: held ones, and ones within their grace period."""
    session = Session(connection)
    holds = session.exec(select(SenderHold).where(col(SenderHold.ended_at).is_(None)).order_by(SenderHold.sender)).all()
    session.expunge_all()
    return {hold.sender: hold for hold in holds}


def holds_of(connection: sa.Connection, sender: str, limit: int = 20) -> list[SenderHold]:
    """Return the periods in which a sender's domain failed, the latest first."""
    session = Session(connection)
    statement = select(SenderHold).where(SenderHold.sender == sender).order_by(col(SenderHold.id).desc()).limit(limit)
    holds = list(session.exec(statement))
    session.expunge_all()
    return holds


def save_hold(connection: sa.Connection, hold: SenderHold) -> None:
    """Insert or update a hold."""
    session = Session(connection)
    session.merge(hold)
    session.flush()
    session.expunge_all()

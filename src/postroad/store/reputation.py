"""Daily reputation of domains and addresses, imported from the pages of mailbox providers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from postroad.store.types import StoredRow, StrEnumType, UtcDateTime, upsert_into


class ReputationSource(StrEnum):
    """The provider's service that reports."""

    POSTMASTER = "postmaster"  # Google Postmaster Tools, of domains
    SNDS = "snds"  # Microsoft Smart Network Data Services, of addresses


class ReputationDay(StoredRow, table=True):
    """One day of one domain or address, as its provider reports it."""

    __tablename__ = "reputation_day"

    source: ReputationSource = Field(primary_key=True, sa_type=StrEnumType(ReputationSource))
    subject: str = Field(primary_key=True, sa_type=sa.String(255), description="domain or address, in its usual form")
    day: date = Field(primary_key=True, description="by the provider's clock")
    provider: str = Field(sa_type=sa.String(100))
    spam_rate: float | None = Field(default=None, sa_type=sa.Double, description="share of messages reported as spam")
    messages: int | None = Field(default=None, sa_type=sa.BigInteger)
    trap_hits: int | None = Field(default=None, sa_type=sa.BigInteger)
    verdict: str | None = Field(default=None, sa_type=sa.String(16), description="the provider's overall verdict")
    imported_at: datetime = Field(sa_type=UtcDateTime)


_SAID = ("provider", "spam_rate", "messages", "trap_hits", "verdict")


def save_reputation(connection: sa.Connection, rows: Sequence[ReputationDay]) -> int:
    """Insert or replace days. No two rows may have the same source, subject and day.

    Returns:
        The number of rows that are new or differ.
    """
    if not rows:
        return 0
    known = {
        (row.source, row.subject, row.day): row for row in reputation_of(connection, _subjects(rows), _first(rows))
    }
    news = [row for row in rows if _differs(known.get((row.source, row.subject, row.day)), row)]
    if news:
        statement = upsert_into(connection, ReputationDay)
        statement = statement.on_conflict_do_update(
            index_elements=["source", "subject", "day"],
            set_={name: statement.excluded[name] for name in (*_SAID, "imported_at")},
        )
        connection.execute(statement, [row.model_dump() for row in news])
    return len(news)


def _subjects(rows: Sequence[ReputationDay]) -> list[str]:
    return sorted({row.subject for row in rows})


def _first(rows: Sequence[ReputationDay]) -> date:
    return min(row.day for row in rows)


def _differs(before: ReputationDay | None, row: ReputationDay) -> bool:
    return before is None or any(getattr(before, name) != getattr(row, name) for name in _SAID)


_AT_ONCE = 500  # subjects in one statement: SQLite takes 32,766 parameters, PostgreSQL 65,535


def reputation_of(connection: sa.Connection, subjects: Sequence[str], since: date) -> list[ReputationDay]:
    """Return the rows of these domains and addresses from a day on, by subject, source and day."""
    found: list[ReputationDay] = []
    with Session(connection) as session:
        for start in range(0, len(subjects), _AT_ONCE):
            statement = (
                select(ReputationDay)
                .where(
                    col(ReputationDay.subject).in_(subjects[start : start + _AT_ONCE]), col(ReputationDay.day) >= since
                )
                .order_by(col(ReputationDay.subject), col(ReputationDay.source), col(ReputationDay.day))
            )
            found += session.exec(statement)
        session.expunge_all()
    return found

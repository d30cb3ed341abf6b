"""Reports of receivers about our mail (DMARC), and of senders about TLS to our mail hosts (TLS-RPT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Protocol

import sqlalchemy as sa
from sqlmodel import Field, SQLModel, col

from postroad.store.text import storable_text
from postroad.store.types import BIG_ID, StoredRow, StrEnumType, UtcDateTime

CHUNK = 1_000
MAX_REPORTS_A_DAY = 1_000
MAX_ROWS_A_DAY = 10_000
"""Limits for one domain of ours, with its parent and child domains. A domain that sends to every large receiver gets
some 300 reports a day."""


class ReportKind(StrEnum):
    """The standard that a report follows."""

    DMARC = "dmarc"
    TLS = "tls"


class MailReport(StoredRow, table=True):
    """One report, identified by its author and its id."""

    __tablename__ = "mail_report"
    __table_args__ = (sa.UniqueConstraint("kind", "organisation", "report_id", "domain"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    kind: ReportKind = Field(sa_type=StrEnumType(ReportKind))
    organisation: str = Field(sa_type=sa.String(255))
    report_id: str = Field(sa_type=sa.String(255))
    domain: str = Field(sa_type=sa.String(255))
    begins_at: datetime = Field(sa_type=UtcDateTime)
    ends_at: datetime = Field(sa_type=UtcDateTime, index=True)
    received_at: datetime = Field(sa_type=UtcDateTime, index=True)
    row_count: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    left_out: int = Field(default=0, sa_column_kwargs={"server_default": "0"}, description="rows that were not stored")


class DmarcReportRow(StoredRow, table=True):
    """Messages of one source in one report."""

    __tablename__ = "dmarc_report_row"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    mail_report_id: int = Field(foreign_key="mail_report.id", sa_type=BIG_ID, index=True)
    source_ip: str = Field(sa_type=sa.String(45))
    count: int = Field(sa_type=sa.BigInteger)
    disposition: str = Field(sa_type=sa.String(16))
    dkim: bool
    spf: bool
    header_from: str = Field(sa_type=sa.String(255))
    envelope_from: str = Field(sa_type=sa.String(255))


class TlsReportRow(StoredRow, table=True):
    """Sessions with one result in one report."""

    __tablename__ = "tls_report_row"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    mail_report_id: int = Field(foreign_key="mail_report.id", sa_type=BIG_ID, index=True)
    domain: str = Field(sa_type=sa.String(255))
    policy: str = Field(sa_type=sa.String(255))
    result: str = Field(sa_type=sa.String(255))
    count: int = Field(sa_type=sa.BigInteger)
    source: str = Field(sa_type=sa.String(255))
    mail_host: str = Field(sa_type=sa.String(255))


_TABLES: dict[ReportKind, type[SQLModel]] = {ReportKind.DMARC: DmarcReportRow, ReportKind.TLS: TlsReportRow}


@dataclass(frozen=True, kw_only=True)
class KeptOf:
    """Number of stored reports of a domain, and of their rows."""

    reports: int
    rows: int


def kept_since(connection: sa.Connection, domain: str, since: datetime) -> KeptOf:
    """Return how much was stored about a domain, its parents and its children since a time."""
    labels = domain.split(".")
    lineage = [".".join(labels[start:]) for start in range(len(labels))]
    statement = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(col(MailReport.row_count)), 0)).where(
        col(MailReport.received_at) > since,
        col(MailReport.domain).in_(lineage) | col(MailReport.domain).endswith(f".{domain}", autoescape=True),
    )
    row = connection.execute(statement).one()
    return KeptOf(reports=int(row[0]), rows=int(row[1]))


def forget_mail_report(connection: sa.Connection, before: datetime) -> bool:
    """Delete CHUNK rows of the oldest report received before a time, or the report. Returns False without one."""
    oldest = (
        sa.select(col(MailReport.id), col(MailReport.kind))
        .where(col(MailReport.received_at) < before)
        .order_by(col(MailReport.received_at))
        .limit(1)
    )
    found = connection.execute(oldest).one_or_none()
    if found is None:
        return False
    table = _TABLES[found.kind].__table__  # type: ignore[attr-defined]
    some = sa.select(table.c.id).where(table.c.mail_report_id == found.id).limit(CHUNK)
    if connection.execute(sa.delete(table).where(table.c.id.in_(some))).rowcount < CHUNK:
        connection.execute(sa.delete(MailReport).where(col(MailReport.id) == found.id))
    return True


def insert_mail_report(connection: sa.Connection, report: MailReport, rows: Sequence[dict[str, Any]]) -> bool:
    """Save a report and its rows. Returns False, and changes nothing, if it is known."""
    known = sa.select(sa.literal(1)).where(
        col(MailReport.kind) == report.kind,
        col(MailReport.organisation) == report.organisation,
        col(MailReport.report_id) == report.report_id,
        col(MailReport.domain) == report.domain,
    )
    if connection.execute(known).first() is not None:
        return False
    values = report.model_dump(exclude={"id"})
    try:
        with connection.begin_nested():
            result = connection.execute(sa.insert(MailReport).values(**values))
    except sa.exc.IntegrityError:
        return False  # Another process was first.
    assert result.inserted_primary_key is not None  # noqa: S101  (one row was inserted)
    report_id = result.inserted_primary_key[0]
    table = _TABLES[report.kind]
    for start in range(0, len(rows), CHUNK):
        connection.execute(
            sa.insert(table), [row | {"mail_report_id": report_id} for row in rows[start : start + CHUNK]]
        )
    return True


class ReceivedReport(Protocol):
    """What is stored of a parsed report, whichever standard it follows."""

    kind: ClassVar[str]
    """A value of ReportKind."""

    @property
    def organisation(self) -> str: ...
    @property
    def report_id(self) -> str: ...
    @property
    def domain(self) -> str: ...
    @property
    def begins_at(self) -> datetime | None: ...
    @property
    def ends_at(self) -> datetime | None: ...
    @property
    def rows(self) -> Sequence[Any]:
        """Return dataclasses with the columns of the kind's table."""

    @property
    def left_out(self) -> int: ...


class Kept(StrEnum):
    """What was done with a report."""

    NEW = "kept"
    KNOWN = "known already"
    TOO_MANY = "not kept: its domain has the most that a day may bring"


def save_report(connection: sa.Connection, report: ReceivedReport, now: datetime, *, owner: str | None) -> Kept:
    """Store a report and its rows, unless it is known or its domain has reached the limits of a day.

    Args:
        connection: A connection in a transaction that writes.
        report: The report, condensed to few rows before.
        now: When it was received.
        owner: The domain of ours that it is about. At most MAX_REPORTS_A_DAY reports and MAX_ROWS_A_DAY rows about it
            are stored within 24 hours, whatever names below it they are on. None: no limit applies.

    Returns:
        What was done with the report.
    """
    rows = [
        {name: storable_text(value, 255) if isinstance(value, str) else value for name, value in row.items()}
        for row in map(asdict, report.rows)
    ]
    row = MailReport(
        kind=ReportKind(report.kind),
        organisation=storable_text(report.organisation, 255),
        report_id=storable_text(report.report_id, 255),
        domain=storable_text(report.domain, 255),
        begins_at=report.begins_at or now,
        ends_at=report.ends_at or now,
        received_at=now,
        row_count=len(rows),
        left_out=report.left_out,
    )
    if owner is not None:
        today = kept_since(connection, owner, now - timedelta(days=1))
        if today.reports >= MAX_REPORTS_A_DAY or today.rows + len(rows) > MAX_ROWS_A_DAY:
            return Kept.TOO_MANY
    return Kept.NEW if insert_mail_report(connection, row, rows) else Kept.KNOWN


def dmarc_sources(connection: sa.Connection, *, since: datetime, domain: str | None, limit: int) -> list[sa.Row[Any]]:
    """Return the number of messages and of passes for each From domain and source, the largest number first."""
    passed = sa.case((sa.or_(col(DmarcReportRow.dkim), col(DmarcReportRow.spf)), col(DmarcReportRow.count)), else_=0)
    total = sa.func.sum(col(DmarcReportRow.count))
    statement = (
        sa.select(
            col(DmarcReportRow.header_from),
            col(DmarcReportRow.source_ip),
            total.label("mails"),
            sa.func.sum(passed).label("passed"),
            sa.func.sum(sa.case((col(DmarcReportRow.dkim), col(DmarcReportRow.count)), else_=0)).label("by_dkim"),
            sa.func.sum(sa.case((col(DmarcReportRow.spf), col(DmarcReportRow.count)), else_=0)).label("by_spf"),
            sa.func.count(sa.distinct(col(MailReport.organisation))).label("reporters"),
            sa.func.max(col(MailReport.ends_at)).label("last_at"),
        )
        .join_from(DmarcReportRow, MailReport, col(MailReport.id) == col(DmarcReportRow.mail_report_id))
        .where(col(MailReport.ends_at) >= since)
        .group_by(col(DmarcReportRow.header_from), col(DmarcReportRow.source_ip))
        .order_by(total.desc(), col(DmarcReportRow.source_ip))
        .limit(limit)
    )
    if domain is not None:
        statement = statement.where(col(DmarcReportRow.header_from) == domain)
    return list(connection.execute(statement))


def tls_results(connection: sa.Connection, *, since: datetime, domain: str | None, limit: int) -> list[sa.Row[Any]]:
    """Return the number of TLS sessions by domain, policy, mail host and result, the largest number first."""
    total = sa.func.sum(col(TlsReportRow.count))
    keys = (
        col(TlsReportRow.domain),
        col(TlsReportRow.policy),
        col(TlsReportRow.mail_host),
        col(TlsReportRow.result),
    )
    statement = (
        sa.select(*keys, total.label("sessions"), sa.func.max(col(MailReport.ends_at)).label("last_at"))
        .join_from(TlsReportRow, MailReport, col(MailReport.id) == col(TlsReportRow.mail_report_id))
        .where(col(MailReport.ends_at) >= since)
        .group_by(*keys)
        .order_by(total.desc())
        .limit(limit)
    )
    if domain is not None:
        statement = statement.where(col(TlsReportRow.domain) == domain)
    return list(connection.execute(statement))

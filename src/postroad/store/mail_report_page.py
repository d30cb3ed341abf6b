"""Pages of what receivers and senders reported: sums of DMARC sources and TLS results, and the rows of each sum."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlmodel import col

from postroad.store.mail_report import DmarcReportRow, MailReport, TlsReportRow


class DmarcSource(NamedTuple):
    """Messages in the name of one From domain from one address. ``passed``: with DKIM or SPF that is aligned."""

    header_from: str
    source_ip: str
    mails: int
    passed: int
    by_dkim: int
    by_spf: int
    reporters: int
    last_at: datetime


class DmarcLine(NamedTuple):
    """One row of a DMARC report."""

    id: int
    organisation: str
    begins_at: datetime
    ends_at: datetime
    mails: int
    disposition: str
    dkim: bool
    spf: bool
    envelope_from: str


class TlsResult(NamedTuple):
    """Sessions to one of our mail hosts with one result."""

    domain: str
    policy: str
    mail_host: str
    result: str
    sessions: int
    reporters: int
    last_at: datetime


class TlsLine(NamedTuple):
    """One row of a TLS report. ``source``: the sending host's address."""

    id: int
    organisation: str
    begins_at: datetime
    ends_at: datetime
    sessions: int
    source: str


def dmarc_source_page(
    connection: sa.Connection, *, since: datetime, domain: str | None, before: tuple[int, str, str], limit: int
) -> list[DmarcSource]:
    """Return the sums of DMARC sources, the largest first.

    Args:
        connection: A connection in a transaction.
        since: Only reports that end since then.
        domain: Only this From domain; None: all.
        before: Messages, From domain and address of the last row of the page before.
        limit: Rows of the page.
    """
    count, dkim, spf = col(DmarcReportRow.count), col(DmarcReportRow.dkim), col(DmarcReportRow.spf)
    keys = (col(DmarcReportRow.header_from), col(DmarcReportRow.source_ip))
    statement = _of_reports(
        DmarcReportRow,
        since,
        *keys,
        _sum(count, "total"),
        _sum(sa.case((sa.or_(dkim, spf), count), else_=0), "passed"),
        _sum(sa.case((dkim, count), else_=0), "by_dkim"),
        _sum(sa.case((spf, count), else_=0), "by_spf"),
    )
    if domain is not None:
        statement = statement.where(keys[0] == domain)
    return [DmarcSource(*row) for row in connection.execute(_after(statement.group_by(*keys), keys, before, limit))]


def dmarc_lines(
    connection: sa.Connection, *, since: datetime, header_from: str, source_ip: str, before_id: int, limit: int
) -> list[DmarcLine]:
    """Return the rows of one sum of `dmarc_source_page`, the newest first. ``before_id``: of the last row before."""
    row = DmarcReportRow
    columns = (col(row.disposition), col(row.dkim), col(row.spf), col(row.envelope_from))
    statement = _lines(row, since, before_id, limit, *columns)
    statement = statement.where(col(row.header_from) == header_from, col(row.source_ip) == source_ip)
    return [DmarcLine(*line) for line in connection.execute(statement)]


def tls_result_page(
    connection: sa.Connection,
    *,
    since: datetime,
    domain: str | None,
    before: tuple[int, str, str, str, str],
    limit: int,
) -> list[TlsResult]:
    """Return the sums of TLS results, the largest first.

    Args:
        connection: A connection in a transaction.
        since: Only reports that end since then.
        domain: Only this domain of ours; None: all.
        before: Sessions, domain, policy, mail host and result of the last row of the page before.
        limit: Rows of the page.
    """
    row = TlsReportRow
    keys = (col(row.domain), col(row.policy), col(row.mail_host), col(row.result))
    statement = _of_reports(row, since, *keys, _sum(col(row.count), "total"))
    if domain is not None:
        statement = statement.where(keys[0] == domain)
    return [TlsResult(*found) for found in connection.execute(_after(statement.group_by(*keys), keys, before, limit))]


def tls_lines(
    connection: sa.Connection, *, since: datetime, of: tuple[str, str, str, str], before_id: int, limit: int
) -> list[TlsLine]:
    """Return the rows of one sum of `tls_result_page`, the newest first.

    Args:
        connection: A connection in a transaction.
        since: Only reports that end since then.
        of: Domain, policy, mail host and result.
        before_id: Id of the last row of the page before.
        limit: Rows of the page.
    """
    row = TlsReportRow
    keys = (col(row.domain), col(row.policy), col(row.mail_host), col(row.result))
    statement = _lines(row, since, before_id, limit, col(row.source))
    statement = statement.where(*(key == value for key, value in zip(keys, of, strict=True)))
    return [TlsLine(*line) for line in connection.execute(statement)]


def _sum(what: Any, name: str) -> Any:
    # PostgreSQL sums 64-bit integers as numeric.
    return sa.cast(sa.func.sum(what), sa.BigInteger).label(name)


def _of_reports(table: Any, since: datetime, *columns: Any) -> sa.Select[Any]:
    reporters = sa.func.count(sa.distinct(col(MailReport.organisation))).label("reporters")
    return (
        sa.select(*columns, reporters, sa.func.max(col(MailReport.ends_at)).label("last_at"))
        .join_from(table, MailReport, col(MailReport.id) == table.mail_report_id)
        .where(col(MailReport.ends_at) >= since)
    )


def _after(statement: sa.Select[Any], keys: tuple[Any, ...], before: tuple[Any, ...], limit: int) -> sa.Select[Any]:
    """Return the page of sums after a row: those with fewer, then those with later keys."""
    sums = statement.subquery()
    columns = [sums.c[key.name] for key in keys]
    number, *after = before
    same = sa.and_(sums.c.total == number, sa.tuple_(*columns) > sa.tuple_(*after))
    return (
        sa.select(sums).where(sa.or_(sums.c.total < number, same)).order_by(sums.c.total.desc(), *columns).limit(limit)
    )


def _lines(table: Any, since: datetime, before_id: int, limit: int, *columns: Any) -> sa.Select[Any]:
    report = MailReport
    return (
        sa.select(
            table.id, col(report.organisation), col(report.begins_at), col(report.ends_at), col(table.count), *columns
        )
        .join_from(table, report, col(report.id) == table.mail_report_id)
        .where(col(report.ends_at) >= since, table.id < before_id)
        .order_by(table.id.desc())
        .limit(limit)
    )

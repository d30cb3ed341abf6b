"""Reports of receivers, written down."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa

from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.tls import TlsReport
from postroad.store.mail_report import MailReport, ReportKind, keep_mail_report, kept_since
from postroad.store.text import storable_text

MAX_REPORTS_A_DAY = 1_000
MAX_ROWS_A_DAY = 10_000
"""Of one domain of ours, with those below and above it. One with mail to every large receiver gets some 300 reports a
day."""


class Kept(StrEnum):
    """What became of a report."""

    NEW = "kept"
    KNOWN = "known already"
    TOO_MANY = "not kept: its domain has the most that a day may bring"


def keep_report(
    connection: sa.Connection, report: DmarcReport | TlsReport, now: datetime, *, owner: str | None
) -> Kept:
    """Keep a report, condensed before: at most `condense.MAX_KEPT_ROWS` rows.

    ``owner``: our domain that it is about, of which at most MAX_REPORTS_A_DAY and MAX_ROWS_A_DAY are kept within 24
    hours, whatever names below it the reports are on. None: without a limit.
    """
    rows = [
        {name: storable_text(value, 255) if isinstance(value, str) else value for name, value in row.items()}
        for row in map(asdict, report.rows)
    ]
    row = MailReport(
        kind=ReportKind.DMARC if isinstance(report, DmarcReport) else ReportKind.TLS,
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
    return Kept.NEW if keep_mail_report(connection, row, rows) else Kept.KNOWN

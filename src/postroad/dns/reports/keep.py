"""Reports of receivers, written down."""

from __future__ import annotations

from dataclasses import asdict

import sqlalchemy as sa

from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.tls import TlsReport
from postroad.store.mail_report import MailReport, ReportKind, keep_mail_report


def keep_report(connection: sa.Connection, report: DmarcReport | TlsReport) -> bool:
    """Keep a report. False: it is known already, and nothing is changed."""
    row = MailReport(
        kind=ReportKind.DMARC if isinstance(report, DmarcReport) else ReportKind.TLS,
        organisation=report.organisation,
        report_id=report.report_id,
        domain=report.domain,
        begins_at=report.begins_at,
        ends_at=report.ends_at,
    )
    return keep_mail_report(connection, row, [asdict(each) for each in report.rows])

"""Reports of receivers, from their files into the store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import sqlalchemy as sa

from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.read import read_report
from postroad.dns.reports.tls import TlsReport
from postroad.dns.reports.unpack import MAX_PACKED_BYTES
from postroad.errors import DataError
from postroad.store.engine import write
from postroad.store.mail_report import MailReport, ReportKind, keep_mail_report


def keep(engine: sa.Engine, report: DmarcReport | TlsReport) -> bool:
    """Keep a report. False: it is known already. Raises UnavailableError."""
    row = MailReport(
        kind=ReportKind.DMARC if isinstance(report, DmarcReport) else ReportKind.TLS,
        organisation=report.organisation,
        report_id=report.report_id,
        domain=report.domain,
        begins_at=report.begins_at,
        ends_at=report.ends_at,
    )
    with write(engine) as connection:
        return keep_mail_report(connection, row, [asdict(each) for each in report.rows])


def keep_file(engine: sa.Engine, path: Path) -> dict[str, object]:
    """Keep the report in a file. Returns what became of it, in one sentence; a file that is no report is `refused`."""
    try:
        with path.open("rb") as file:
            report = read_report(file.read(MAX_PACKED_BYTES + 1))
    except (DataError, OSError) as error:
        why = error.message if isinstance(error, DataError) else error.strerror
        return {"file": str(path), "refused": True, "outcome": f"refused: {why}"}
    new = keep(engine, report)
    what = f"{report.organisation} on {report.domain}, {len(report.rows):,} rows"
    return {"file": str(path), "refused": False, "new": new, "outcome": what if new else f"{what}: known already"}

"""Imports DMARC and TLS reports of receivers from files into the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from postroad.dns.reports.condense import condense
from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.read import parse_report_file
from postroad.dns.reports.tls import TlsReport
from postroad.dns.reports.unpack import MAX_PACKED_BYTES
from postroad.errors import DataError
from postroad.printable import counted
from postroad.store.engine import write
from postroad.store.mail_report import Kept, save_report

MAX_FILE_BYTES = 3 * MAX_PACKED_BYTES
"""Maximum number of bytes read of a file. A larger file is refused, whatever it contains."""


def save(engine: sa.Engine, report: DmarcReport | TlsReport, now: datetime) -> Kept:
    """Store a report of any domain, since an operator chose the file.

    Returns:
        Whether it is new.

    Raises:
        UnavailableError: The database is unavailable.
    """
    condensed = condense(report, None) or report
    with write(engine) as connection:
        return save_report(connection, condensed, now, owner=None)


@dataclass(frozen=True, kw_only=True)
class FileOutcome:
    """The result of importing a file.

    ``refused``: it contains no readable report. ``new``: number of reports that were not stored before. ``problems``:
    errors in its reports.
    """

    file: str
    refused: bool
    new: int
    outcome: str
    problems: tuple[str, ...] = ()


def import_reports(engine: sa.Engine, path: Path, now: datetime) -> FileOutcome:
    """Store the reports in a file.

    Args:
        engine: The database.
        path: A report, packed or not, or a mail with reports attached.
        now: The time.

    Returns:
        The result, also for a file that cannot be read.

    Raises:
        UnavailableError: The database is unavailable.
    """
    problems: list[str] = []
    try:
        with path.open("rb") as file:
            reports = parse_report_file(file.read(MAX_FILE_BYTES), path.name, problems)
    except (DataError, OSError) as error:
        why = error.message if isinstance(error, DataError) else error.strerror
        return FileOutcome(file=str(path), refused=True, new=0, outcome=f"refused: {why}")
    saved = [(report, save(engine, report, now)) for report in reports]
    outcomes = [
        f"{report.organisation} on {report.domain or 'no domain'}, {counted(len(report.rows), 'row')}"
        f"{'' if result is Kept.NEW else f': {result}'}"
        for report, result in saved
    ]
    new = sum(result is Kept.NEW for _, result in saved)
    problems += [problem for report in reports for problem in report.problems]
    return FileOutcome(file=str(path), refused=False, new=new, outcome="; ".join(outcomes), problems=tuple(problems))

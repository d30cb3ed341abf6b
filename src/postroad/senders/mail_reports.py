"""Reports of receivers, from their files into the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from postroad.dns.reports.condense import condense
from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.read import reports_of
from postroad.dns.reports.tls import TlsReport
from postroad.dns.reports.unpack import MAX_PACKED_BYTES
from postroad.errors import DataError
from postroad.printable import counted
from postroad.store.engine import write
from postroad.store.mail_report import Kept, save_report

MAX_FILE_BYTES = 3 * MAX_PACKED_BYTES
"""More than this is refused whatever it is: the rest of the file is not read."""


def keep(engine: sa.Engine, report: DmarcReport | TlsReport, now: datetime) -> Kept:
    """Keep a report of whatever domain: somebody chose the file. Raises UnavailableError."""
    condensed = condense(report, None) or report
    with write(engine) as connection:
        return save_report(connection, condensed, now, owner=None)


@dataclass(frozen=True, kw_only=True)
class FileOutcome:
    """What became of a file.

    ``refused``: not one report of it can be read. ``new``: reports of it that were not known before. ``problems``: what
    of it could not be read.
    """

    file: str
    refused: bool
    new: int
    outcome: str
    problems: tuple[str, ...] = ()


def keep_file(engine: sa.Engine, path: Path, now: datetime) -> FileOutcome:
    """Keep the reports in a file, which may be a mail with reports attached. Raises UnavailableError."""
    problems: list[str] = []
    try:
        with path.open("rb") as file:
            reports = reports_of(file.read(MAX_FILE_BYTES), path.name, problems)
    except (DataError, OSError) as error:
        why = error.message if isinstance(error, DataError) else error.strerror
        return FileOutcome(file=str(path), refused=True, new=0, outcome=f"refused: {why}")
    kept = [(report, keep(engine, report, now)) for report in reports]
    said = [
        f"{report.organisation} on {report.domain or 'no domain'}, {counted(len(report.rows), 'row')}"
        f"{'' if how is Kept.NEW else f': {how}'}"
        for report, how in kept
    ]
    new = sum(how is Kept.NEW for _, how in kept)
    problems += [problem for report in reports for problem in report.problems]
    return FileOutcome(file=str(path), refused=False, new=new, outcome="; ".join(said), problems=tuple(problems))

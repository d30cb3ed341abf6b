"""DMARC and TLS reports among what came back: where they are asked for at an address that bounces go to as well."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from postroad.bounce.reading import ReadReports
from postroad.dns.reports.condense import policy_owner_of
from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.tls import TlsReport
from postroad.printable import counted
from postroad.store.bounce import finish_reports, raw_of
from postroad.store.engine import read, write
from postroad.store.mail_report import Kept, forget_mail_report, save_report

log = logging.getLogger(__name__)

KIND: Final = "reports"
"""Kind of a mail that waits for its reports to be read. Nothing else is to be done with it."""
MAX_STEPS = 200
"""Transactions of one turn that forgets."""


@dataclass(frozen=True, kw_only=True)
class ReportRules:
    """Which reports are kept. ``domains``: of senders, in lower case and A-labels."""

    read: ReadReports
    domains: Sequence[str]


def keep_reports(engine: sa.Engine, digest: str, rules: ReportRules, now: datetime) -> int:
    """Keep the reports in a mail that came back, and drop its octets. Returns how many are new.

    Each report is a short transaction of its own; one that is known changes nothing. Raises UnavailableError: the next
    try keeps what is missing.
    """
    with read(engine) as connection:
        raw = raw_of(connection, digest)
    new = 0
    reports = rules.read(raw or b"", tuple(rules.domains))
    received: tuple[DmarcReport | TlsReport, ...] = (*reports.dmarc, *reports.tls)
    for report in received:
        # What the child reads and is about no domain of ours has a limit of its own.
        owner = policy_owner_of(report.domain, rules.domains) or report.domain
        with write(engine) as connection:
            kept = save_report(connection, report, now, owner=owner)
        new += kept is Kept.NEW
        note = f"; {counted(report.left_out, 'row')} left out" if report.left_out else ""
        level = logging.WARNING if kept is Kept.TOO_MANY else logging.INFO
        log.log(level, "mail %s: %s on %s: %s%s", digest[:16], report.organisation, report.domain, kept, note)
        for problem in report.problems if kept is Kept.NEW else ():
            log.warning("mail %s: %s on %s: %s", digest[:16], report.organisation, report.domain, problem)
    for why in reports.refused:
        log.warning("mail %s: a report is not kept: %s", digest[:16], why)
    with write(engine) as connection:
        finish_reports(connection, digest, now)
    return new


def forget_reports(engine: sa.Engine, before: datetime) -> int:
    """Delete reports that came before a time, in short transactions. Returns how many it took; there may be more."""
    for step in range(MAX_STEPS):
        with write(engine) as connection:
            if not forget_mail_report(connection, before):
                return step
    return MAX_STEPS

"""Stores the DMARC and TLS reports attached to inbound mail, for domains whose reports go to a bounce address."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from postroad.bounce.readers import ReadReports
from postroad.dns.reports.condense import policy_owner_of
from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.tls import TlsReport
from postroad.printable import counted
from postroad.store.bounce import finish_reports, raw_of
from postroad.store.engine import read, write
from postroad.store.mail_report import Kept, forget_mail_report, save_report

log = logging.getLogger(__name__)

KIND: Final = "reports"
"""Kind of a mail whose attached reports are still to be read. It is otherwise processed."""
MAX_STEPS = 200
"""Maximum transactions of one `forget_reports`."""


@dataclass(frozen=True, kw_only=True)
class ReportRules:
    """Selects the reports to store. ``domains``: domains of senders, as A-labels in lower case."""

    read: ReadReports
    domains: Sequence[str]


def keep_reports(engine: sa.Engine, digest: str, rules: ReportRules, now: datetime) -> int:
    """Store the reports attached to a mail, and delete the mail's octets. Idempotent. Raises UnavailableError.

    Each report is stored in a short transaction of its own. A retry stores the missing reports.

    Args:
        engine: The ledger's database.
        digest: Digest of the mail.
        rules: Selects the reports.
        now: Time of receipt.

    Returns:
        The number of new reports.
    """
    with read(engine) as connection:
        raw = raw_of(connection, digest)
    new = 0
    reports = rules.read(raw or b"", tuple(rules.domains))
    received: tuple[DmarcReport | TlsReport, ...] = (*reports.dmarc, *reports.tls)
    for report in received:
        # A report on a domain without a sender has a limit of its own.
        owner = policy_owner_of(report.domain, rules.domains) or report.domain
        with write(engine) as connection:
            result = save_report(connection, report, now, owner=owner)
        new += result is Kept.NEW
        note = f"; {counted(report.left_out, 'row')} left out" if report.left_out else ""
        level = logging.WARNING if result is Kept.TOO_MANY else logging.INFO
        log.log(level, "mail %s: %s on %s: %s%s", digest[:16], report.organisation, report.domain, result, note)
        for problem in report.problems if result is Kept.NEW else ():
            log.warning("mail %s: %s on %s: %s", digest[:16], report.organisation, report.domain, problem)
    for reason in reports.refused:
        log.warning("mail %s: a report is not stored: %s", digest[:16], reason)
    with write(engine) as connection:
        finish_reports(connection, digest, now)
    return new


def forget_reports(engine: sa.Engine, before: datetime) -> int:
    """Delete reports received before a time, in short transactions.

    Returns:
        The number of transactions that deleted reports. If it is MAX_STEPS, more reports may remain.
    """
    for step in range(MAX_STEPS):
        with write(engine) as connection:
            if not forget_mail_report(connection, before):
                return step
    return MAX_STEPS

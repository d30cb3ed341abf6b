"""Reports of receivers, on both databases: kept once, and summed up by source."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa

from postroad.dns.reports.dmarc import DmarcReport, DmarcRow
from postroad.dns.reports.tls import TlsReport, TlsRow
from postroad.senders import mail_reports
from postroad.store.engine import read
from postroad.store.mail_report import Kept, dmarc_sources, tls_results
from tests.store.rows import NOW

ROW = DmarcRow(
    source_ip="198.51.100.7",
    count=10,
    disposition="none",
    dkim=True,
    spf=True,
    header_from="acme.dev",
    envelope_from="b.acme.dev",
)
REPORT = DmarcReport(
    organisation="mail.test",
    report_id="1",
    domain="acme.dev",
    policy="reject",
    begins_at=NOW - timedelta(days=1),
    ends_at=NOW,
    rows=(
        ROW,
        replace(ROW, count=5, spf=False),
        replace(ROW, source_ip="203.0.113.9", count=99, dkim=False, spf=False),
    ),
)


def sources(engine: sa.Engine, domain: str | None = None, days: int = 30) -> list[tuple[object, ...]]:
    with read(engine) as connection:
        rows = dmarc_sources(connection, since=NOW - timedelta(days=days), domain=domain, limit=10)
    return [(row.source_ip, row.mails, row.passed, row.by_dkim, row.by_spf, row.reporters) for row in rows]


def keep(engine: sa.Engine, report: DmarcReport | TlsReport) -> bool:
    return mail_reports.save(engine, report, NOW) is Kept.NEW


def test_mail_is_summed_by_source_and_a_report_counts_once(engine: sa.Engine) -> None:
    assert keep(engine, REPORT)
    assert not keep(engine, REPORT)
    assert keep(engine, replace(REPORT, organisation="other.test", rows=(ROW,)))
    assert sources(engine) == [("203.0.113.9", 99, 0, 0, 0, 1), ("198.51.100.7", 25, 25, 25, 20, 2)]


def test_only_what_is_asked_for_is_summed(engine: sa.Engine) -> None:
    keep(engine, REPORT)
    keep(engine, replace(REPORT, report_id="old", begins_at=NOW - timedelta(days=99), ends_at=NOW - timedelta(days=98)))
    keep(engine, replace(REPORT, report_id="other", rows=(replace(ROW, header_from="other.dev", count=1),)))
    assert sources(engine, "other.dev") == [("198.51.100.7", 1, 1, 1, 1, 1)]
    assert sources(engine, "acme.dev", days=100)[0][1] == 198


def test_sessions_are_summed_by_result(engine: sa.Engine) -> None:
    row = TlsRow(domain="acme.dev", policy="sts", result="success", count=3)
    report = TlsReport(
        organisation="mail.test", report_id="1", domain="acme.dev", begins_at=NOW, ends_at=NOW, rows=(row, row)
    )
    assert keep(engine, report)
    assert keep(engine, REPORT)  # the same id of the other kind is another report
    with read(engine) as connection:
        [found] = tls_results(connection, since=NOW, domain=None, limit=10)
    assert (found.domain, found.result, found.sessions) == ("acme.dev", "success", 6)

"""Reports of receivers: sums in pages, and rows that sum to each number."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.errors import UsageError
from postroad.read_model.mail_reports import ReportWindow, dmarc_rows, dmarc_sources, tls_results, tls_rows
from postroad.read_model.page import decode_cursor, encode_cursor
from postroad.store.engine import read, write
from postroad.store.mail_report import MailReport, ReportKind, insert_mail_report
from tests.read_model.world import all_rows
from tests.store.rows import NOW


def add_reports(engine: sa.Engine) -> None:
    """Add reports of five days: sources with equal and different numbers, TLS results with empty hosts."""
    with write(engine) as connection:
        for days in range(5):
            ends = NOW - timedelta(days=10 * days)
            for kind, rows in ((ReportKind.DMARC, dmarc(days)), (ReportKind.TLS, tls(days))):
                report = MailReport(
                    kind=kind,
                    organisation=f"receiver{days % 2}.example",
                    report_id=str(days),
                    domain="acme.dev",
                    begins_at=ends - timedelta(days=1),
                    ends_at=ends,
                    received_at=ends,
                )
                assert insert_mail_report(connection, report, rows)


def dmarc(days: int) -> list[dict[str, object]]:
    return [
        {
            "source_ip": f"198.51.100.{number}",
            "count": number // 3 + 1,
            "disposition": "none",
            "dkim": number % 2 == 0,
            "spf": number % 3 == 0,
            "header_from": f"d{number % 2}.dev",
            "envelope_from": "b.dev",
        }
        for number in range(12 + days)
    ]


def tls(days: int) -> list[dict[str, object]]:
    names = ("domain", "policy", "mail_host", "result")
    results = (("acme.dev", "sts", "", "success"), ("acme.dev", "sts", "mx1", "expired"), ("b.dev", "", "", "success"))
    return [dict(zip(names, result, strict=True)) | {"count": 7, "source": f"192.0.2.{days}"} for result in results]


def test_every_source_has_rows_that_sum_to_it(engine: sa.Engine) -> None:
    add_reports(engine)
    since = NOW - ReportWindow.MONTH.length
    with read(engine) as connection:
        found = all_rows(lambda after: dmarc_sources(connection, since, after=after, limit=4))
        assert len({(one.header_from, one.source_ip) for one in found}) == len(found) == 15
        assert [one.mails for one in found] == sorted((one.mails for one in found), reverse=True)
        for one in found:
            of = {"header_from": one.header_from, "source_ip": one.source_ip}
            rows = all_rows(lambda after, of=of: dmarc_rows(connection, since, **of, after=after, limit=1))  # type: ignore[misc]
            assert sum(row.mails for row in rows) == one.mails
            assert sum(row.mails for row in rows if row.dkim or row.spf) == one.passed
            assert sum(row.mails for row in rows if row.dkim) == one.by_dkim
            assert sum(row.mails for row in rows if row.spf) == one.by_spf
            assert len({row.organisation for row in rows}) == one.reporters
            assert [row.id for row in rows] == sorted((row.id for row in rows), reverse=True)
        ours = all_rows(lambda after: dmarc_sources(connection, since, domain="d1.dev", after=after, limit=4))
        assert ours == [one for one in found if one.header_from == "d1.dev"]


def test_every_tls_result_has_rows_that_sum_to_it(engine: sa.Engine) -> None:
    add_reports(engine)
    since = NOW - ReportWindow.QUARTER.length
    with read(engine) as connection:
        found = all_rows(lambda after: tls_results(connection, since, after=after, limit=1))
        assert [(one.sessions, one.reporters) for one in found] == [(35, 2)] * 3
        for one in found:
            of = (one.domain, one.policy, one.mail_host, one.result)
            rows = all_rows(lambda after, of=of: tls_rows(connection, since, of=of, after=after, limit=2))  # type: ignore[misc]
            assert sum(row.sessions for row in rows) == one.sessions
        assert [one.domain for one in tls_results(connection, since, domain="b.dev").rows] == ["b.dev"]


def test_only_reports_of_the_window_count(engine: sa.Engine) -> None:
    add_reports(engine)
    with read(engine) as connection:
        week = tls_results(connection, NOW - ReportWindow.WEEK.length).rows
        assert [one.sessions for one in week] == [7, 7, 7]
        assert tls_results(connection, NOW + timedelta(days=1)).rows == []
        assert dmarc_sources(connection, NOW + timedelta(days=1)).rows == []


@pytest.mark.parametrize("key", [2**63, "text"])
def test_a_cursor_that_no_row_can_have_is_refused(key: object) -> None:
    with pytest.raises(UsageError, match="is not one of this list"):
        decode_cursor(encode_cursor(key), int, 0)


def test_a_cursor_with_nul_is_refused() -> None:
    with pytest.raises(UsageError, match="is not one of this list"):
        decode_cursor(encode_cursor((1, "a\0")), tuple[int, str], (0, ""))
    assert decode_cursor(encode_cursor((1, "a")), tuple[int, str], (0, "")) == (1, "a")

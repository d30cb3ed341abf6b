"""State and history of senders' DNS: the last check, what differs from the one before, and holds."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import sqlalchemy as sa

from postroad.dns.finding import Code, Finding, RecordVerdict, make_finding, worst
from postroad.read_model.domains import DomainHistory, DomainState, domain_history, domain_states
from postroad.store.dns_report import KEPT, DnsReport, SenderHold, save_dns_report, save_hold
from postroad.store.engine import read, write
from tests.store.rows import NOW

GOOD = make_finding(Code.SPF_OK, "acme.dev", "fine")
MISSING = make_finding(Code.DMARC_MISSING, "acme.dev", "no record")
SILENT = make_finding(Code.DMARC_UNKNOWN, "acme.dev", "timed out")


def check(engine: sa.Engine, hours: float, *findings: Finding, sender: str = "a@acme.dev") -> None:
    report = DnsReport(
        sender=sender,
        domain="acme.dev",
        verdict=worst(finding.verdict for finding in findings),
        findings=[msgspec.to_builtins(finding) for finding in findings],
        checked_at=NOW + timedelta(hours=hours),
    )
    with write(engine) as connection:
        save_dns_report(connection, report)


def state(engine: sa.Engine, sender: str = "a@acme.dev") -> DomainState:
    with read(engine) as connection:
        [found] = domain_states(connection, [sender])
        return found


def history(engine: sa.Engine) -> DomainHistory:
    with read(engine) as connection:
        return domain_history(connection, "a@acme.dev")


def test_a_sender_without_a_check_has_its_domain_and_no_verdict(engine: sa.Engine) -> None:
    found = state(engine)
    assert (found.domain, found.verdict, found.checked_at, list(found.findings)) == ("acme.dev", None, None, [])
    assert history(engine).checks == 0
    with read(engine) as connection:
        assert domain_states(connection, []) == []


def test_the_last_check_is_compared_with_the_one_before(engine: sa.Engine) -> None:
    check(engine, 0, GOOD)
    first = state(engine)
    assert (first.verdict, first.appeared, first.disappeared) == (RecordVerdict.PASS, (), ())
    check(engine, 6, MISSING)
    check(engine, 6, GOOD, sender="b@acme.dev")
    found = state(engine)
    assert (found.verdict, found.checked_at) == (RecordVerdict.FAIL, NOW + timedelta(hours=6))
    assert found.checked_before_at == NOW
    assert (list(found.appeared), list(found.disappeared)) == ([MISSING], [GOOD])
    check(engine, 12, MISSING)
    assert (list(state(engine).appeared), list(state(engine).disappeared)) == ([], [])


def test_a_query_without_an_answer_is_no_change(engine: sa.Engine) -> None:
    for hours, finding in ((0, MISSING), (6, SILENT), (12, MISSING)):
        check(engine, hours, GOOD, finding)
    assert history(engine).changes == []


def test_the_history_has_each_change_and_each_period_of_failure(engine: sa.Engine) -> None:
    for hours, findings in ((0, [GOOD]), (6, [GOOD, MISSING]), (12, [GOOD, MISSING]), (18, [GOOD])):
        check(engine, hours, *findings)
    with write(engine) as connection:
        for days in (3, 1):
            since = NOW - timedelta(days=days)
            ended = since + timedelta(hours=1) if days == 3 else None
            save_hold(connection, SenderHold(sender="a@acme.dev", reason="x", failing_since=since, ended_at=ended))
    found = history(engine)
    assert (found.checks, found.since) == (4, NOW)
    assert [(change.at, list(change.appeared), list(change.disappeared)) for change in found.changes] == [
        (NOW + timedelta(hours=18), [], [MISSING]),
        (NOW + timedelta(hours=6), [MISSING], []),
    ]
    assert [hold.ended_at is None for hold in found.holds] == [True, False]
    hold = state(engine).hold
    assert hold is not None
    assert hold.failing_since == NOW - timedelta(days=1)


def test_the_history_reads_no_more_checks_than_are_stored(engine: sa.Engine) -> None:
    for number in range(KEPT + 5):
        check(engine, number, MISSING if number % 2 else GOOD)
    found = history(engine)
    assert found.checks == KEPT
    assert len(found.changes) == KEPT - 1

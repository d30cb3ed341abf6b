"""DMARC and TLS reports from strangers: what is kept of them is bounded, and no archive raises what is not expected."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from postroad.bounce.intake import Intake
from postroad.bounce.readers import ReportReader
from postroad.bounce.report import Envelope
from postroad.bounce.report_mail import ReportRules, forget_reports
from postroad.bounce.report_worker import parse_reports
from postroad.clock import SystemClock
from postroad.dns.reports.condense import MAX_KEPT_ROWS, owner_of, policy_owner_of
from postroad.queue import Queue
from postroad.store import mail_report
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from tests.attacks.reports import OURS, attached, count, dmarc
from tests.bounce import mails
from tests.bounce.conftest import *  # noqa: F403 - its fixtures
from tests.bounce.ledger import LedgerFixture
from tests.bounce.test_handler import handler, work_off
from tests.dns.reports import RECORD, TLS, XML
from tests.dns.reports import mail as mail_with
from tests.store.rows import NOW


@pytest.fixture(scope="module")
def reader() -> Iterator[ReportReader]:
    with ReportReader() as reader:
        yield reader


def test_a_report_of_many_rows_is_cut_to_the_largest(ledger: LedgerFixture) -> None:
    ledger.process(attached(dmarc(3_000)))
    assert count(ledger.engine, "dmarc_report_row") == MAX_KEPT_ROWS
    with read(ledger.engine) as connection:
        row = connection.execute(sa.text("SELECT row_count, left_out FROM mail_report")).one()
        least = connection.execute(sa.text("SELECT min(count) FROM dmarc_report_row")).scalar_one()
    assert (row.row_count, row.left_out, least) == (MAX_KEPT_ROWS, 2_500, 2_501)


def test_equal_rows_are_added_up(ledger: LedgerFixture) -> None:
    ledger.process(attached(XML.replace(RECORD, RECORD * 1_000).encode()))
    with read(ledger.engine) as connection:
        assert connection.execute(sa.text("SELECT count FROM dmarc_report_row")).scalars().all() == [12_000]


def test_reports_on_other_domains_are_not_kept(ledger: LedgerFixture, caplog: pytest.LogCaptureFixture) -> None:
    ledger.process(attached(dmarc(1, domain="stranger.example")))
    assert count(ledger.engine, "mail_report") == 0
    assert "not a domain of a sender" in caplog.text


def test_rows_about_other_domains_are_not_kept() -> None:
    xml = XML.replace(RECORD, RECORD + RECORD.replace("Acme.dev", "stranger.example"))
    [report] = parse_reports(attached(xml.encode()), OURS).dmarc
    assert [row.header_from for row in report.rows] == ["acme.dev"]


@pytest.mark.parametrize(
    ("domain", "ours"),
    [
        *(("acme.dev", True), ("ACME.dev.", True), ("news.acme.dev", True)),
        *(("dev", False), ("notacme.dev", False), ("", False), ("stranger.example", False)),
    ],
)
def test_a_domain_is_ours_with_those_below(domain: str, ours: bool) -> None:
    assert (owner_of(domain, OURS) is not None) is ours


def test_the_policy_of_the_organisational_domain_is_kept_and_that_of_a_public_suffix_is_not() -> None:
    assert policy_owner_of("acme.dev", ("news.acme.dev",)) == "news.acme.dev"
    ours = dmarc(1).replace(b"<header_from>Acme.dev", b"<header_from>news.acme.dev")
    [report] = parse_reports(attached(ours), ("news.acme.dev",)).dmarc
    assert (report.domain, len(report.rows)) == ("acme.dev", 1)
    assert parse_reports(attached(dmarc(1, domain="co.uk").replace(b"Acme.dev", b"co.uk")), ("acme.co.uk",)).dmarc == ()


def test_new_names_below_and_above_ours_have_one_limit_together(
    ledger: LedgerFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_report, "MAX_ROWS_A_DAY", 50)
    ledger = replace(ledger, reports=replace(ledger.reports, domains=("news.acme.dev",)))
    above = dmarc(20).replace(b"<header_from>Acme.dev", b"<header_from>news.acme.dev")
    ledger.process(attached(above))
    for number in range(4):
        ledger.process(attached(dmarc(20, domain=f"X{number}.News.acme.dev").replace(b"Acme.dev", b"news.acme.dev")))
    ledger.process(attached(dmarc(20, domain=f"{'x.' * 130}news.acme.dev")))  # Longer than its column.
    assert (count(ledger.engine, "mail_report"), count(ledger.engine, "dmarc_report_row")) == (2, 40)


def test_a_day_brings_a_domain_no_more_than_its_most(ledger: LedgerFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_report, "MAX_ROWS_A_DAY", 50)
    monkeypatch.setattr(mail_report, "MAX_REPORTS_A_DAY", 4)
    for number in range(4):
        ledger.process(attached(dmarc(20, f"large-{number}")))
    assert (count(ledger.engine, "mail_report"), count(ledger.engine, "dmarc_report_row")) == (2, 40)
    for number in range(4):
        ledger.process(attached(dmarc(1, f"small-{number}")))
    assert count(ledger.engine, "mail_report") == 4
    ledger.process(attached(dmarc(20, "next-day")), now=NOW + timedelta(days=1, seconds=1))
    assert count(ledger.engine, "mail_report") == 5


def test_reports_are_forgotten_in_short_transactions(ledger: LedgerFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_report, "CHUNK", 100)
    ledger.process(attached(dmarc(250, "old")))
    ledger.process(attached(dmarc(10, "new")), now=NOW + timedelta(days=2))
    assert forget_reports(ledger.engine, NOW + timedelta(days=1)) == 3
    assert (count(ledger.engine, "mail_report"), count(ledger.engine, "dmarc_report_row")) == (1, 10)


def test_a_report_that_claims_to_be_of_the_future_is_forgotten_too(ledger: LedgerFixture) -> None:
    ledger.process(attached(XML.replace("1790086399", "9999999999").encode()))
    assert count(ledger.engine, "mail_report") == 1
    forget_reports(ledger.engine, NOW + timedelta(days=1))
    assert count(ledger.engine, "mail_report") == 0


def test_the_octets_of_a_report_mail_are_dropped_once_it_is_read(ledger: LedgerFixture) -> None:
    ledger.process(attached(dmarc(1)))
    with read(ledger.engine) as connection:
        row = connection.execute(sa.text("SELECT raw, processed_at FROM bounce_mail")).one()
    assert row.raw is None
    assert row.processed_at is not None


async def test_reports_wait_while_bounces_are_judged(ledger: LedgerFixture, bounces: Queue, mail: Queue) -> None:
    intake = Intake(engine=ledger.engine, queue=bounces, clock=SystemClock())
    order: list[str] = []

    def slowly(raw: bytes, domains: tuple[str, ...] | None) -> Any:
        order.append("report")
        return parse_reports(raw, domains)

    ledger = replace(ledger, reports=ReportRules(read=slowly, domains=OURS))
    touches = [ledger.touch(ledger.recipient()) for _ in range(3)]
    for number, touch in enumerate(touches):
        await intake.submit(attached(dmarc(1, f"r{number}")), Envelope())
        await intake.submit(mails.dsn(to=ledger.return_path(touch)), Envelope())
    # Six mails, and a job for each of three reports.
    await work_off(bounces, handler(ledger, bounces, mail), 9)
    assert {ledger.state(touch) for touch in touches} == {TouchState.BOUNCED}
    assert len(order) == 3
    assert count(ledger.engine, "mail_report") == 3
    assert await intake.resume() == 0


async def test_a_lost_queue_gets_waiting_reports_from_the_store(
    ledger: LedgerFixture, bounces: Queue, mail: Queue
) -> None:
    intake = Intake(engine=ledger.engine, queue=bounces, clock=SystemClock())
    broken = replace(ledger, reports=ReportRules(read=lambda *_: pytest.fail("too early"), domains=OURS))
    from postroad.bounce.process import BounceRules, process

    digest = broken.keep(attached(dmarc(1)))
    [one] = process(
        ledger.engine,
        [digest],
        rules=BounceRules(signer=ledger.signer, settings=ledger.settings),
        read=ledger.read,
        now=NOW,
    )
    assert one is not None
    assert one.reports
    assert await intake.resume() == 1
    await work_off(bounces, handler(ledger, bounces, mail), 1)
    assert count(ledger.engine, "mail_report") == 1


def test_names_that_no_column_takes_are_cut(ledger: LedgerFixture) -> None:
    long = "İ" * 250 + ".acme.dev"  # In lower case each is two characters.
    xml = XML.replace("198.51.100.7", "fe80::1%" + "a" * 500).replace("<envelope_from>b", f"<envelope_from>{long}")
    ledger.process(attached(xml.encode()))
    tls = TLS | {"organization-name": "İ" * 255}
    ledger.process(mail_with(("application/tlsrpt+gzip", "r", gzip.compress(json.dumps(tls).encode()))))
    assert count(ledger.engine, "mail_report") == 2

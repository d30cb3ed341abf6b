"""DMARC and TLS reports that come to where bounces come: kept once, attacks refused, and no touch is moved by them."""

from __future__ import annotations

import gzip
import json
from random import Random

import pytest
import sqlalchemy as sa

from postroad.bounce.mime import MAX_MESSAGE_BYTES
from postroad.bounce.readers import AttachedReports
from postroad.bounce.report_mail import keep_reports
from postroad.bounce.report_worker import parse_reports
from postroad.bounce.truncation import MAX_REPORT_MAIL_BYTES, truncate
from postroad.dns.reports import unpack
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from tests.bounce import mails
from tests.bounce.ledger import LedgerFixture
from tests.dns.reports import LAUGHS, RECORD, TLS, XML, mail, zipped
from tests.store.rows import NOW

DMARC_MAIL = mail(("application/gzip", "mail.test!acme.dev!1!2.xml.gz", gzip.compress(XML.encode())))


def random_octets(size: int) -> bytes:
    return Random(1).randbytes(size)


# As those of a large receiver for a large sender are: packed they have more than a megabyte.
_NOISE = random_octets(MAX_MESSAGE_BYTES).hex()
LARGE_MAIL = mail(
    ("application/gzip", "mail.test!acme.dev!1!2.xml.gz", gzip.compress(f"{XML}<!-- {_NOISE} -->".encode(), 1))
)


def known(engine: sa.Engine) -> list[tuple[str, str]]:
    with read(engine) as connection:
        rows = connection.execute(sa.text("SELECT kind, domain FROM mail_report ORDER BY id")).all()
    return [(kind, domain) for kind, domain in rows]


def test_a_report_among_bounces_is_kept_once(ledger: LedgerFixture) -> None:
    first = ledger.process(DMARC_MAIL)
    again = ledger.process(b"X-Copy: 1\n" + DMARC_MAIL)
    assert (first.touch_id, again.touch_id) == (None, None)
    assert known(ledger.engine) == [("dmarc", "acme.dev")]
    assert ledger.suppressed() == {}


def test_reports_of_both_kinds_are_kept_however_they_are_attached(ledger: LedgerFixture) -> None:
    tls = mail(("application/tlsrpt+gzip", "r", gzip.compress(json.dumps(TLS).encode())))
    as_report = tls.replace(b"multipart/mixed", b'multipart/report; report-type="tlsrpt"')
    ledger.process(b"Return-Path: <>\nAuto-Submitted: auto-generated\n" + as_report)
    named_only = mail(("application/octet-stream", "mail.test!acme.dev!1!2.zip", zipped(("r.xml", XML.encode()))))
    ledger.process(named_only)
    assert known(ledger.engine) == [("tls", "acme.dev"), ("dmarc", "acme.dev")]


def test_what_a_worker_left_when_it_died_is_kept_by_the_next_try(ledger: LedgerFixture) -> None:
    digest = ledger.keep(DMARC_MAIL)
    assert keep_reports(ledger.engine, digest, ledger.reports, NOW) == 1
    again = ledger.keep(b"X-Copy: 1\n" + DMARC_MAIL)
    assert keep_reports(ledger.engine, again, ledger.reports, NOW) == 0
    assert keep_reports(ledger.engine, "0" * 64, ledger.reports, NOW) == 0


def test_a_mail_about_a_message_of_ours_brings_no_report(ledger: LedgerFixture) -> None:
    touch = ledger.touch(ledger.recipient())
    ledger.process(mails.dsn(to=ledger.return_path(touch)))
    assert ledger.state(touch) is TouchState.BOUNCED
    assert known(ledger.engine) == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (gzip.compress(b"<feedback>" + b" " * (unpack.MAX_BYTES + 1)), "decompressed, it has more than"),
        (zipped(("r.xml", b" " * (unpack.MAX_BYTES + 1))), "decompressed, it has more than"),
        ((LAUGHS + "]><feedback>&i;</feedback>").encode(), "DTD"),
        (gzip.compress(XML.encode())[:-20], "ends too early"),
    ],
)
def test_bombs_are_refused_and_the_mail_is_done(
    ledger: LedgerFixture, caplog: pytest.LogCaptureFixture, data: bytes, says: str
) -> None:
    good = ("application/gzip", "good.xml.gz", gzip.compress(XML.encode()))
    ledger.process(mail(("application/gzip", "r.gz", data), good))
    assert says in caplog.text
    assert known(ledger.engine) == [("dmarc", "acme.dev")]  # One that is bad does not keep the others.


def test_a_report_of_more_than_a_megabyte_is_kept_whole_and_read(ledger: LedgerFixture) -> None:
    [report] = parse_reports(truncate(LARGE_MAIL), ("acme.dev",)).dmarc
    assert report.domain == "acme.dev"
    assert truncate(LARGE_MAIL) == LARGE_MAIL
    ledger.process(truncate(LARGE_MAIL))
    assert known(ledger.engine) == [("dmarc", "acme.dev")]


def test_of_any_other_mail_and_beyond_the_size_of_reports_nothing_more_is_kept() -> None:
    large = mail(("image/png", "photo.png", random_octets(MAX_MESSAGE_BYTES)))
    assert len(truncate(large)) == MAX_MESSAGE_BYTES
    bomb = LARGE_MAIL + b"x" * MAX_REPORT_MAIL_BYTES
    assert len(truncate(bomb)) == MAX_REPORT_MAIL_BYTES
    # A report that begins after the parsed part is not recognized.
    late = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"x" * MAX_MESSAGE_BYTES + b"\n--b\n" + DMARC_MAIL
    assert len(truncate(late)) == MAX_MESSAGE_BYTES


def test_a_mail_is_read_up_to_a_size_and_however_deep_it_is_nested() -> None:
    assert parse_reports(b"Subject: x\n\n" + b"x" * MAX_REPORT_MAIL_BYTES, ("acme.dev",)) == AttachedReports()
    deep = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(5_000))
    assert parse_reports(deep + DMARC_MAIL, ("acme.dev",)) == AttachedReports()


BARE = {"policy": {"policy-type": "no-policy-found"}, "summary": {"total-successful-session-count": 4}}


def test_what_of_a_report_cannot_be_read_is_named_and_the_rest_is_kept(
    ledger: LedgerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    bad = XML.replace(RECORD, RECORD + RECORD.replace("198.51.100.7", "me"))
    ledger.process(
        mail(
            ("application/zip", "logo.zip", b"PK\x03\x04"),
            ("application/gzip", "mail.test!acme.dev!1!2.xml.gz", gzip.compress(bad.encode())),
            ("application/json", "mail.test!acme.dev!1!2!1.json", json.dumps(TLS | {"policies": [BARE]}).encode()),
        )
    )
    assert known(ledger.engine) == [("dmarc", "acme.dev"), ("tls", "acme.dev")]
    for said in ("logo.zip: its zip is broken", "record 2: source_ip 'me'", "policy 1: policy-domain"):
        assert said in caplog.text
    with read(ledger.engine) as connection:
        assert connection.execute(sa.text("SELECT left_out FROM mail_report ORDER BY id")).scalars().all() == [1, 0]


def test_a_report_that_names_no_domain_is_not_kept(ledger: LedgerFixture, caplog: pytest.LogCaptureFixture) -> None:
    message = mail(("application/json", "r.json", json.dumps(TLS | {"policies": [BARE]}).encode()))
    ledger.process(message.replace(b"Report Domain: acme.dev", b"Hello"))
    assert known(ledger.engine) == []
    assert "r.json: it is about no domain" in caplog.text


def test_base64_without_padding_is_read(ledger: LedgerFixture) -> None:
    data = XML.encode() + b" " * ((1 - len(XML.encode())) % 3)
    padded = mail(("application/xml", "r.xml", data))
    assert padded.count(b"IA==\n") == 1
    ledger.process(padded.replace(b"IA==\n", b"IA\n"))
    assert known(ledger.engine) == [("dmarc", "acme.dev")]


def test_reports_times_and_ids_that_are_missing_do_not_keep_the_rest(ledger: LedgerFixture) -> None:
    xml = XML.replace("1790000000", "").replace("1790086399", "").replace("<report_id>r-1</report_id>", "")
    for copy in (b"1", b"2"):
        ledger.process(b"X-Copy: " + copy + b"\n" + mail(("application/xml", "r.xml", xml.encode())))
    with read(ledger.engine) as connection:
        [row] = connection.execute(sa.text("SELECT ends_at, received_at FROM mail_report")).all()
    assert row.ends_at == row.received_at

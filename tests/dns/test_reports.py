"""Reports of receivers: valid ones are parsed, and attacks are rejected before they do harm."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest

from postroad.dns.reports import dmarc, unpack
from postroad.dns.reports.dmarc import DmarcReport, DmarcRow
from postroad.dns.reports.read import parse_report, parse_report_file
from postroad.dns.reports.tls import TlsReport, TlsRow
from postroad.errors import DataError
from tests.dns.reports import LAUGHS, RECORD, TLS, XML, mail, zipped


@pytest.mark.parametrize(
    "data",
    [
        XML.encode(),
        b"\xef\xbb\xbf" + XML.encode(),
        XML.replace("UTF-8", "UTF-16").encode("utf-16"),
        gzip.compress(XML.encode()),
        gzip.compress(XML[:100].encode()) + gzip.compress(XML[100:].encode()),
        zipped(("mail.test!acme.dev!1!2.xml", XML.encode())),
        XML.replace(' xmlns="urn:ietf:params:xml:ns:dmarc-2.0"', "").encode(),
    ],
    ids=["bare", "bom", "utf-16", "gzip", "gzip-of-two-members", "zip", "rfc-7489"],
)
def test_dmarc_reports_are_read_however_they_come(data: bytes) -> None:
    assert parse_report(data) == DmarcReport(
        organisation="mail.test",
        report_id="r-1",
        domain="acme.dev",
        policy="reject",
        begins_at=datetime.fromtimestamp(1_790_000_000, UTC),
        ends_at=datetime.fromtimestamp(1_790_086_399, UTC),
        rows=(
            DmarcRow(
                source_ip="198.51.100.7",
                count=12,
                disposition="none",
                dkim=True,
                spf=False,
                header_from="acme.dev",
                envelope_from="b.acme.dev",
            ),
        ),
    )


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda data: zipped(("r.json", data))])
def test_tls_failures_without_details_are_counted(pack: Any) -> None:
    report = parse_report(pack(json.dumps(TLS).encode()))
    assert isinstance(report, TlsReport)
    assert report.rows == (
        TlsRow(domain="acme.dev", policy="sts", result="success", count=90),
        TlsRow(
            domain="acme.dev",
            policy="sts",
            result="certificate-expired",
            count=7,
            source="203.0.113.9",
            mail_host="mx.acme.dev",
        ),
        TlsRow(domain="acme.dev", policy="sts", result="failure", count=3),
    )


def test_reports_attached_to_a_mail_are_read() -> None:
    found = parse_report_file(
        mail(
            ("application/gzip", "mail.test!acme.dev!1!2.xml.gz", gzip.compress(XML.encode())),
            ("image/png", "logo.png", b"png"),
            ("application/tlsrpt+gzip", "r", gzip.compress(json.dumps(TLS).encode())),
        )
    )
    assert [type(report) for report in found] == [DmarcReport, TlsReport]
    assert parse_report_file(XML.encode()) == [parse_report(XML.encode())]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (mail(), "without a report"),
        (mail(*[("application/xml", "r.xml", b"<feedback/>")] * 21), "21 reports"),
        (mail(("application/zip", "r.zip", b"PK\x03\x04garbage")), "zip is broken"),
        (b"Subject: x\n\n" + b"x" * 2 * unpack.MAX_PACKED_BYTES, "it is a mail of"),
    ],
)
def test_mails_that_hold_no_report_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        parse_report_file(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ((LAUGHS + "]><feedback>&i;</feedback>").encode(), "DTD"),
        (b'<!DOCTYPE f [<!ENTITY x SYSTEM "file:///etc/passwd">]><feedback>&x;</feedback>', "DTD"),
        (b'<!DOCTYPE feedback SYSTEM "http://127.0.0.1/x.dtd"><feedback/>', "DTD"),
        (gzip.compress(b"<feedback>" + b" " * (unpack.MAX_BYTES + 1)), "more than"),
        (zipped(("r.xml", b" " * (unpack.MAX_BYTES + 1))), "more than"),
        (zipped(("a.xml", b"x"), ("b.xml", b"x")), "2 files"),
        (zipped(("r.xml", zipped(("r.xml", XML.encode())))), "neither"),
        (b"<feedback>" + b"<a>" * 1_000, "nested too deeply"),
        (b"<feedback><record>" + b"<a/>" * 3_000, "too many elements"),
        (gzip.compress(XML.encode())[:-20], "ends too early"),
        (b"\x1f\x8bgarbage", "gzip is broken"),
        (b"PK\x03\x04garbage", "zip is broken"),
        (b"", "neither"),
        (b"hello", "neither"),
        (b"<html></html>", "root is <html>"),
        (b'<?xml version="1.0" encoding="klingon"?><feedback/>', "XML"),
        (b"{", "not a TLS report"),
        (b'{"a":' * 100_000, "not a TLS report"),
        (XML.replace("<count>12</count>", "<count>-1</count>").encode(), "record 1: count '-1'"),
        (XML.replace("<count>12</count>", f"<count>{'9' * 40}</count>").encode(), "record 1: count"),
        (XML.replace("198.51.100.7", "me").encode(), "record 1: source_ip 'me'"),
        (XML.replace("<begin>1790000000</begin>", "<begin>999999999999</begin>").encode(), "begin"),
        (XML.replace("Acme.dev", "a" * 300).encode(), "header_from"),
        (json.dumps({**TLS, "policies": []}).encode(), "0 policies"),
    ],
)
def test_what_is_no_report_is_refused_and_says_why(data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        parse_report(data)


@pytest.mark.parametrize(
    ("written", "address"),
    [
        *(("2001:DB8::0001", "2001:db8::1"), ("[2001:db8::1]", "2001:db8::1"), ("IPv6:2001:db8::1", "2001:db8::1")),
        *(("fe80::1%eth0", "fe80::1"), ("::ffff:192.0.2.1", "192.0.2.1")),
    ],
)
def test_addresses_of_ipv6_are_read_however_they_are_written(written: str, address: str) -> None:
    [row] = parse_report(XML.replace("198.51.100.7", written).encode()).rows
    assert isinstance(row, DmarcRow)
    assert row.source_ip == address


def test_a_report_without_an_id_is_known_again() -> None:
    data = XML.replace("<report_id>r-1</report_id>", "").encode()
    other = data.replace(b">12<", b">13<")
    assert parse_report(data).report_id == parse_report(data).report_id != parse_report(other).report_id


def test_a_missing_policy_domain_is_that_of_others_or_the_file() -> None:
    bare = {"policy": {"policy-type": "no-policy-found"}, "summary": {"total-successful-session-count": 4}}
    mixed = parse_report(json.dumps(TLS | {"policies": [bare, *TLS["policies"]]}).encode())
    assert isinstance(mixed, TlsReport)
    assert {row.domain for row in mixed.rows} == {"acme.dev"}
    assert "policy 1: policy-domain" in mixed.problems[0]
    alone = json.dumps(TLS | {"policies": [bare]}).encode()
    assert parse_report(alone).domain == ""
    [named] = parse_report_file(alone, "mail.test!acme.dev!1!2!1.json")
    assert named.domain == "acme.dev"
    [attached] = parse_report_file(mail(("application/json", "r.json", alone)))  # by the subject of the mail
    assert isinstance(attached, TlsReport)
    assert (attached.domain, attached.rows[0].domain) == ("acme.dev", "acme.dev")


def test_a_bad_attachment_leaves_the_good_one_and_is_named() -> None:
    good = ("application/gzip", "good.xml.gz", gzip.compress(XML.encode()))
    refused: list[str] = []
    reports = parse_report_file(mail(("application/zip", "logo.zip", b"PK\x03\x04"), good), "", refused)
    assert [report.domain for report in reports] == ["acme.dev"]
    [why] = refused
    assert why.startswith("logo.zip: its zip is broken")


def test_a_zip_with_a_wrong_size_is_read_up_to_the_limit() -> None:
    honest = zipped(("r.xml", b" " * (unpack.MAX_BYTES + 1)))
    size = (unpack.MAX_BYTES + 1).to_bytes(4, "little")
    with pytest.raises(DataError):
        parse_report(honest.replace(size, (10).to_bytes(4, "little")))


def test_what_is_too_large_to_unpack_is_not_unpacked() -> None:
    with pytest.raises(DataError, match="at most"):
        parse_report(b"x" * (unpack.MAX_PACKED_BYTES + 1))


def test_a_long_report_takes_the_memory_of_its_rows() -> None:
    many = XML.replace(RECORD, RECORD * 20_000).encode()
    tracemalloc.start()
    try:
        report = parse_report(many)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(report.rows) == 20_000
    assert peak < 30_000_000


def test_more_records_than_any_receiver_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dmarc, "MAX_ROWS", 2)
    with pytest.raises(DataError, match="more than 2 records"):
        parse_report(XML.replace(RECORD, RECORD * 3).encode())

"""Reports of receivers: valid ones are parsed, and attacks are rejected before they do harm."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest

from postroad.dns.reports import dmarc, unpack
from postroad.dns.reports.dmarc import DmarcReport, DmarcRow
from postroad.dns.reports.problems import MAX_PROBLEMS
from postroad.dns.reports.read import parse_report, parse_report_file
from postroad.dns.reports.tls import TlsReport, TlsRow
from postroad.errors import DataError

RECORD = """
  <record>
    <row><source_ip>198.51.100.7</source_ip><count>12</count>
      <policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>fail</spf></policy_evaluated></row>
    <identifiers><header_from>Acme.dev</header_from><envelope_from>b.acme.dev</envelope_from></identifiers>
    <auth_results><spf><domain>b.acme.dev</domain><result>fail</result></spf></auth_results>
  </record>"""
XML = f"""<?xml version="1.0" encoding="UTF-8"?>
<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">
  <version>1.0</version>
  <report_metadata><org_name>mail.test</org_name><email>d@mail.test</email><report_id>r-1</report_id>
    <date_range><begin>1790000000</begin><end>1790086399</end></date_range></report_metadata>
  <policy_published><domain>acme.dev</domain><p>reject</p><sp>none</sp><np>reject</np></policy_published>{RECORD}
</feedback>"""
TLS: dict[str, Any] = {
    "organization-name": "Mail Test",
    "date-range": {"start-datetime": "2026-11-01T00:00:00Z", "end-datetime": "2026-11-01T23:59:59Z"},
    "contact-info": "t@mail.test",
    "report-id": "t-1",
    "policies": [
        {
            "policy": {"policy-type": "sts", "policy-domain": "Acme.dev", "mx-host": ["mx.acme.dev"]},
            "summary": {"total-successful-session-count": 90, "total-failure-session-count": 10},
            "failure-details": [
                {
                    "result-type": "certificate-expired",
                    "sending-mta-ip": "203.0.113.9",
                    "receiving-mx-hostname": "MX.acme.dev",
                    "failed-session-count": 7,
                }
            ],
        }
    ],
}


def zipped(*files: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return out.getvalue()


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


def mail(*attachments: tuple[str, str, bytes]) -> bytes:
    message = EmailMessage()
    message["Subject"] = "Report Domain: acme.dev"
    message.set_content("Attached.")
    for kind, name, data in attachments:
        message.add_attachment(data, *kind.split("/"), filename=name)
    return message.as_bytes()


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


LAUGHS = '<!DOCTYPE feedback [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


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


# -- partly damaged reports

BAD_RECORD = RECORD.replace("198.51.100.7", "me")
DAMAGED_DMARC: dict[str, tuple[bytes, str]] = {
    "a record without an address": (XML.replace(RECORD, RECORD + BAD_RECORD).encode(), "record 2: source_ip 'me'"),
    "the first record": (XML.replace(RECORD, BAD_RECORD + RECORD).encode(), "record 1: source_ip 'me'"),
    "no header_from": (XML.replace(RECORD, RECORD.replace("Acme.dev", "") + RECORD).encode(), "record 1: header_from"),
    "no identifiers": (
        XML.replace(
            RECORD, RECORD + "<record><row><source_ip>192.0.2.9</source_ip><count>1</count></row></record>"
        ).encode(),
        "record 2: header_from",
    ),
    "a count in words": (XML.replace(RECORD, RECORD + RECORD.replace(">12<", ">a dozen<")).encode(), "record 2: count"),
    "no count": (XML.replace(RECORD, RECORD + RECORD.replace("<count>12</count>", "")).encode(), "record 2: count ''"),
    "a long text": (
        XML.replace(RECORD, RECORD + RECORD.replace("b.acme.dev", "b" * 5_000)).encode(),
        "record 2: the text",
    ),
    "no org_name": (XML.replace("<org_name>mail.test</org_name>", "").encode(), "org_name"),
    "control characters": (XML.replace("mail.test<", "mail\x1b[31m.test<", 1).encode(), "control characters"),
    "no report_id": (XML.replace("<report_id>r-1</report_id>", "").encode(), "report_id"),
    "no dates": (XML.replace("1790000000", "yesterday").replace("1790086399", "").encode(), "begin 'yesterday'"),
    "one date": (XML.replace("<begin>1790000000</begin>", "").encode(), "begin ''"),
    "no policy_published": (XML.replace("policy_published", "policy").encode(), "policy_published: domain"),
    "no end": (XML.encode()[:-12], "its XML is broken"),
    "broken before": (XML.replace(RECORD, "<record><row></record>" + RECORD).encode(), "its XML is broken"),
    "broken after": (XML.replace(RECORD, RECORD + "<record><row></record>").encode(), "its XML is broken"),
    "broken metadata": (XML.replace("mail.test<", "M <m@mail.test<", 1).encode(), "its XML is broken"),
    "Windows-1252": (XML.replace("d@mail.test", "Verkäufe@mail.test").encode("cp1252"), "not UTF-8"),
    "an unknown encoding": (XML.replace("UTF-8", "klingon").encode(), "klingon"),
    "another encoding than stated": (XML.replace("UTF-8", "UTF-16").encode(), "utf-16"),
}


@pytest.mark.parametrize("name", DAMAGED_DMARC)
def test_damaged_parts_of_a_dmarc_report_are_reported(name: str) -> None:
    data, says = DAMAGED_DMARC[name]
    report = parse_report(data)
    assert isinstance(report, DmarcReport)
    assert [(row.source_ip, row.count) for row in report.rows] == [("198.51.100.7", 12)]
    assert report.domain == "acme.dev"
    assert any(says.lower() in problem.lower() for problem in report.problems), report.problems


@pytest.mark.parametrize(
    "data",
    [
        XML.replace("<feedback xmlns=", "<x:feedback xmlns:x=").replace("</feedback", "</x:feedback").encode(),
        XML.replace("urn:ietf:params:xml:ns:dmarc-2.0", "http://dmarc.org/dmarc-xml/0.1").encode(),
        XML.replace("feedback", "Feedback").replace("source_ip", "Source_IP").encode(),
        XML.replace("mail.test<", "M & M<", 1).encode(),
        XML.replace("none</disposition>", "sampled_out</disposition>").encode(),
        XML.replace("reject</p>", "monitor</p>").encode(),
        XML.replace("UTF-8", "UTF-16").encode("utf-16-be"),
        XML.replace("UTF-8", "iso-8859-1").replace("d@mail.test", "Verkäufe").encode("latin-1"),
        XML.replace("1790000000", "2026-09-21T14:13:20Z").encode(),
        gzip.compress(XML.encode()) + b"trailing",
        zipped(("__MACOSX/._r.xml", b"x"), ("r.xml", XML.encode())),
    ],
)
def test_variants_of_receivers_are_parsed_without_problems(data: bytes) -> None:
    report = parse_report(data)
    assert isinstance(report, DmarcReport)
    assert ([row.count for row in report.rows], report.problems) == ([12], ())


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


def test_problems_of_one_report_are_bounded() -> None:
    report = parse_report(XML.replace(RECORD, RECORD + BAD_RECORD * 500).encode())
    assert len(report.problems) == MAX_PROBLEMS + 1
    assert report.problems[-1] == f"{500 - MAX_PROBLEMS} more problems"
    assert report.left_out == 500


def test_a_report_without_an_id_is_known_again() -> None:
    data = XML.replace("<report_id>r-1</report_id>", "").encode()
    other = data.replace(b">12<", b">13<")
    assert parse_report(data).report_id == parse_report(data).report_id != parse_report(other).report_id


def tls(**members: Any) -> dict[str, Any]:
    """Return the valid report with members of its policy changed, or removed (None)."""
    [policy] = TLS["policies"]
    changed = {name.replace("_", "-"): value for name, value in members.items()}
    return TLS | {"policies": [{k: v for k, v in (policy | changed).items() if v is not None}]}


GOOD_DETAILS = TLS["policies"][0]["failure-details"][0]
DAMAGED_TLS: dict[str, tuple[dict[str, Any], list[tuple[str, int]], str]] = {
    "no policy-domain": (tls(policy={"policy-type": "sts"}), [("success", 90), ("certificate-expired", 7)], "policy 1"),
    "no policy": (tls(policy=None), [("success", 90), ("certificate-expired", 7)], "policy-type is missing"),
    "a policy as text": (tls(policy="sts"), [("success", 90), ("certificate-expired", 7)], "policy-type is missing"),
    "a negative count": (
        tls(summary={"total-successful-session-count": -90, "total-failure-session-count": 10}),
        [("certificate-expired", 7), ("failure", 3)],
        "total-successful-session-count",
    ),
    "a failure without a count": (
        tls(failure_details=[{"result-type": "starttls-not-supported"}, GOOD_DETAILS]),
        [("success", 90), ("certificate-expired", 7), ("failure", 3)],
        "policy 1, failure 1: failed-session-count",
    ),
    "a failure without a type": (
        tls(failure_details=[{"failed-session-count": 10}]),
        [("success", 90), ("unknown", 10)],
        "result-type is missing",
    ),
    "a failure as text": (
        tls(failure_details=["certificate-expired", GOOD_DETAILS]),
        [("success", 90), ("certificate-expired", 7), ("failure", 3)],
        "1 are not objects",
    ),
    "no organization-name": (TLS | {"organization-name": None}, [("success", 90)], "organization-name"),
    "control characters": (TLS | {"organization-name": "\x1b[31m"}, [("success", 90)], "organization-name"),
    "no report-id": (TLS | {"report-id": ""}, [("success", 90)], "report-id"),
    "no dates": (TLS | {"date-range": None}, [("success", 90)], "start-datetime"),
    "a policy that is none": (TLS | {"policies": [None, *TLS["policies"]]}, [("success", 90)], "1 are not objects"),
}


@pytest.mark.parametrize("name", DAMAGED_TLS)
def test_damaged_parts_of_a_tls_report_are_reported(name: str) -> None:
    members, rows, says = DAMAGED_TLS[name]
    report = parse_report(json.dumps(members).encode())
    assert isinstance(report, TlsReport)
    assert [row for row in rows if row not in [(got.result, got.count) for got in report.rows]] == []
    assert any(says in problem for problem in report.problems), report.problems


@pytest.mark.parametrize(
    "members",
    [
        tls(failure_details=None),
        tls(failure_details=GOOD_DETAILS),
        tls(failure_details=[GOOD_DETAILS | {"sending-mta-ip": None, "receiving-mx-hostname": None}]),
        tls(failure_details=[GOOD_DETAILS | {"sending-mta-ip": "2001:db8::1", "failed-session-count": "7"}]),
        tls(failure_details=[GOOD_DETAILS | {"result-type": "of-a-later-time"}]),
        tls(policy={"policy-type": "sts-2", "policy-domain": "acme.dev", "mx-host": "mx.acme.dev"}),
        tls(policy={"policy_type": "sts", "policy_domain": "acme.dev", "mx-host": None}),
        TLS | {"policies": TLS["policies"][0]},
        TLS | {"report-id": 17, "contact-info": None},
        TLS | {"date-range": {"start-datetime": 1_790_000_000, "end-datetime": "2026-11-01T23:59:59"}},
    ],
)
def test_variants_of_tls_reports_are_read_without_a_problem(members: dict[str, Any]) -> None:
    report = parse_report(json.dumps(members).encode())
    assert isinstance(report, TlsReport)
    assert (report.rows[0], report.problems) == (replace(report.rows[0], domain="acme.dev", count=90), ())
    assert sum(row.count for row in report.rows) == 100


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

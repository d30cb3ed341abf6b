"""Reports of receivers: those that are good are read, and those that are attacks are refused before they do harm."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zipfile
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest

from postroad.dns.reports import dmarc, unpack
from postroad.dns.reports.dmarc import DmarcReport, DmarcRow
from postroad.dns.reports.read import read_report, reports_of
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
    assert read_report(data) == DmarcReport(
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
def test_tls_reports_are_read_and_failures_without_details_are_counted(pack: Any) -> None:
    report = read_report(pack(json.dumps(TLS).encode()))
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
    found = reports_of(
        mail(
            ("application/gzip", "mail.test!acme.dev!1!2.xml.gz", gzip.compress(XML.encode())),
            ("image/png", "logo.png", b"png"),
            ("application/tlsrpt+gzip", "r", gzip.compress(json.dumps(TLS).encode())),
        )
    )
    assert [type(report) for report in found] == [DmarcReport, TlsReport]
    assert reports_of(XML.encode()) == [read_report(XML.encode())]


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
        reports_of(data)


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
        (b"{", "no report about TLS"),
        (b'{"a":' * 100_000, "no report about TLS"),
        (XML.replace("<count>12</count>", "<count>-1</count>").encode(), "record 1: count '-1'"),
        (XML.replace("<count>12</count>", f"<count>{'9' * 40}</count>").encode(), "record 1: count"),
        (XML.replace("198.51.100.7", "me").encode(), "record 1: source_ip 'me'"),
        (XML.replace("<begin>1790000000</begin>", "<begin>999999999999</begin>").encode(), "begin"),
        (XML.replace("<org_name>mail.test</org_name>", "").encode(), "org_name"),
        (XML.replace("Acme.dev", "a" * 300).encode(), "header_from"),
        (json.dumps({**TLS, "organization-name": "\x1b[31m"}).encode(), "organization-name"),
        (XML.replace("mail.test<", "mail\x85test<").encode(), "org_name"),
        (json.dumps({**TLS, "policies": []}).encode(), "0 policies"),
        (json.dumps(TLS).replace("90", "-90").encode(), "total-successful-session-count"),
    ],
)
def test_what_is_no_report_is_refused_and_says_why(data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_report(data)


def test_a_zip_that_lies_about_its_size_is_read_no_further_than_allowed() -> None:
    honest = zipped(("r.xml", b" " * (unpack.MAX_BYTES + 1)))
    size = (unpack.MAX_BYTES + 1).to_bytes(4, "little")
    with pytest.raises(DataError):
        read_report(honest.replace(size, (10).to_bytes(4, "little")))


def test_what_is_too_large_to_unpack_is_not_unpacked() -> None:
    with pytest.raises(DataError, match="at most"):
        read_report(b"x" * (unpack.MAX_PACKED_BYTES + 1))


def test_a_long_report_takes_the_memory_of_its_rows() -> None:
    many = XML.replace(RECORD, RECORD * 20_000).encode()
    tracemalloc.start()
    try:
        report = read_report(many)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(report.rows) == 20_000
    assert peak < 30_000_000


def test_more_records_than_any_receiver_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dmarc, "MAX_ROWS", 2)
    with pytest.raises(DataError, match="more than 2 records"):
        read_report(XML.replace(RECORD, RECORD * 3).encode())

"""Damaged parts and variants of reports: what can be read is kept, and the rest is named."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest

from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.problems import MAX_PROBLEMS
from postroad.dns.reports.read import parse_report
from postroad.dns.reports.tls import TlsReport
from tests.dns.reports import GOOD_DETAILS, RECORD, TLS, XML, tls, zipped

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


def test_problems_of_one_report_are_bounded() -> None:
    report = parse_report(XML.replace(RECORD, RECORD + BAD_RECORD * 500).encode())
    assert len(report.problems) == MAX_PROBLEMS + 1
    assert report.problems[-1] == f"{500 - MAX_PROBLEMS} more problems"
    assert report.left_out == 500


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

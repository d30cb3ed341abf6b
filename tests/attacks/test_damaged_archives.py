"""Archives from strangers: none raises what is not expected, or takes more than its bounds."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from postroad.bounce.readers import ReportReader
from postroad.bounce.report_mail import ReportRules, keep_reports
from postroad.dns.reports.read import parse_report, parse_report_file
from postroad.errors import DataError
from tests.attacks.limits import cost_ratio, run_limited
from tests.attacks.reports import OURS, attached, count, dmarc
from tests.bounce.conftest import *  # noqa: F403 - its fixtures
from tests.bounce.ledger import LedgerFixture
from tests.dns.reports import RECORD, TLS, XML, zipped
from tests.dns.reports import mail as mail_with
from tests.store.rows import NOW


@pytest.fixture(scope="module")
def reader() -> Iterator[ReportReader]:
    with ReportReader() as reader:
        yield reader


def _with_wrong_crc() -> bytes:
    data = bytearray(zipped(("r.xml", XML.encode())))
    data[14] ^= 0xFF
    at = data.rindex(b"PK\x01\x02")
    data[at + 16] ^= 0xFF
    return bytes(data)


def _lzma(member: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("r.xml", XML)
    return out.getvalue()


def _encrypted() -> bytes:
    data = bytearray(zipped(("r.xml", XML.encode())))
    data[6] |= 1
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    return bytes(data)


DAMAGED = {
    "zip bomb": zipped(("r.xml", b" " * (21 << 20))),
    "zip in a zip": zipped(("r.zip", zipped(("r.xml", XML.encode())))),
    "zip with a wrong CRC": _with_wrong_crc(),
    "zip by LZMA": _lzma(),
    "zip with a password": _encrypted(),
    "zip of many files": zipped(*((f"{n}.xml", b"") for n in range(1_000))),
    "zip without an end": zipped(("r.xml", XML.encode()))[:-30],
    "zip of noise": b"PK\x03\x04" + Random(1).randbytes(10_000),
    "zip with a directory elsewhere": zipped(("r.xml", XML.encode()))[:-6] + struct.pack("<IH", 0xFFFFFFF0, 0),
    "gzip bomb": gzip.compress(b" " * (21 << 20)),
    "gzip of many members": gzip.compress(b"") * 50_000,
    "gzip without an end": gzip.compress(XML.encode())[:-20],
    "gzip with a wrong CRC": gzip.compress(XML.encode())[:-8] + b"\0" * 8,
    "gzip of noise": b"\x1f\x8b" + Random(1).randbytes(10_000),
    "billion laughs": b'<!DOCTYPE a [<!ENTITY a "a">]><feedback>&a;</feedback>',
    "a file of ours": b'<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><feedback>&a;</feedback>',
    "deep XML": b"<feedback>" + b"<a>" * 1_000_000,
    "one huge attribute": b'<feedback a="' + b"a" * (10 << 20) + b'"><record/></feedback>',
    "many attributes": b"<feedback " + b"".join(b'a%d="" ' % n for n in range(200_000)) + b"><record/></feedback>",
    "one huge text": b"<feedback><record><a>" + b"a" * (10 << 20) + b"</a></record></feedback>",
    "lines of text": b"<feedback><record><a>" + b"a\n" * (5 << 20) + b"</a></record></feedback>",
    "many elements": b"<feedback><record>" + b"<a/>" * 1_000_000 + b"</record></feedback>",
    "an encoding that is none": b'<?xml version="1.0" encoding="idna"?><feedback/>',
    "NUL": b"<feedback>\0</feedback>",
    "deep JSON": b'{"a":' * 1_000_000,
    "a huge number": json.dumps(TLS).replace("90", "9" * 100_000, 1).encode(),
    "a number beyond all": json.dumps(TLS).replace("90", "1e999999", 1).encode(),
    "a date before all": json.dumps(TLS).replace("2026-11-01T00:00:00Z", "0001-01-01T00:00:00+14:00").encode(),
    "a lone surrogate": json.dumps(TLS).replace("Mail Test", "\\ud800").encode(),
    "broken in every record": b"<feedback>" + b"<record><row></record>" * 500_000,
    "broken parts without an end": b"<feedback>" + b"<record><" * 1_000_000,
    "ampersands": b"<feedback><record><a>" + b"&" * (5 << 20),
    "no UTF-8": b"<feedback><record><a>" + b"\xff" * (10 << 20),
    "control characters": b"<feedback>" + b"\x01\n" * (5 << 20),
    "UTF-16 of noise": b"\xff\xfe" + Random(2).randbytes(1 << 20),
    "many values": b'{"policies":[' + b"{}," * 2_000_000 + b"{}]}",
    "many failures": json.dumps(TLS | {"policies": [{"failure-details": [{}] * 120_000}]}).encode(),
    "many policies": json.dumps(TLS | {"policies": TLS["policies"] * 40_000}).encode(),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_or_an_attack_raises_one_error_of_ours(name: str) -> None:
    with pytest.raises(DataError):
        parse_report(DAMAGED[name])


def read_damaged() -> list[str]:
    refused = []
    for name, data in DAMAGED.items():
        try:
            parse_report(data)
        except DataError:
            refused.append(name)
    return refused


def test_all_of_them_take_bounded_time_and_memory() -> None:
    outcome = run_limited("tests.attacks.test_damaged_archives:read_damaged", cpu_s=20, memory_mib=384)
    assert outcome.value == list(DAMAGED)


def test_all_of_them_in_mails_are_refused_by_the_child(reader: ReportReader, ledger: LedgerFixture) -> None:
    ledger = replace(ledger, reports=ReportRules(read=reader, domains=OURS))
    for data in DAMAGED.values():
        ledger.process(mail_with(("application/gzip", "r.gz", data[: 1 << 20])))
    good = ledger.keep(attached(dmarc(1)))
    assert keep_reports(ledger.engine, good, ledger.reports, NOW) == 1
    assert count(ledger.engine, "mail_report") == 1


@pytest.mark.parametrize(
    "build",
    [
        lambda n: b"<feedback>" + b" \n" * n + b"</feedback>",
        lambda n: b"<feedback>" + b"<!-- a -->" * n,
        lambda n: dmarc(n // 50),
        lambda n: json.dumps(TLS | {"policies": TLS["policies"] * (n // 50)}).encode(),
        lambda n: b"<feedback>" + b"<record><row></record>" * (n // 10),
        lambda n: b"<feedback><record><a>" + b"&" * n,
        lambda n: b"<feedback><record>" + b"\xff\x01" * n,
        lambda n: XML.replace(RECORD, RECORD.replace("198.51.100.7", "me") * (n // 500)).encode(),
        lambda n: zipped(("r.xml", b"<feedback>" + b"<a></a>" * n)),
    ],
)
def test_reading_a_report_costs_in_proportion_to_its_size(build: Any) -> None:
    def attempt(data: bytes) -> None:
        try:
            parse_report(data)
        except DataError:
            return

    assert cost_ratio(attempt, build(10_000), build(100_000)) < 30


def test_a_mail_file_whose_parts_are_nested_deeply_is_refused() -> None:
    deep = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(5_000))
    with pytest.raises(DataError):
        parse_report_file(deep)

"""The checks of a domain's mail hosts: MX, PTR, block lists, MTA-STS, TLSA and BIMI."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postroad.dns.finding import Code, RecordVerdict, failures
from postroad.dns.identity import Identity
from tests.dns.domain import GOOD, IDENTITY, POLICY, SIGNED, check, codes, only
from tests.dns.nameserver import Trouble
from tests.https import https

MX: list[tuple[dict[str, Any], Code]] = [
    ({"acme.dev": {"TXT": GOOD["acme.dev"]["TXT"], "MX": ["0 ."]}}, Code.MX_NULL),
    ({"acme.dev": {"TXT": GOOD["acme.dev"]["TXT"]}}, Code.MX_MISSING),
    ({"acme.dev": {"TXT": GOOD["acme.dev"]["TXT"], "A": ["198.51.100.9"]}}, Code.MX_IMPLICIT),
    ({"mx.acme.dev": None, "_25._tcp.mx.acme.dev": None}, Code.MX_NO_ADDRESS),
    ({"acme.dev": {**GOOD["acme.dev"], "MX": ["10 mx.acme.dev.", "20 gone.test."]}}, Code.MX_DEAD_HOST),
]


@pytest.mark.parametrize("mx", [["10 alias.acme.dev."], ["10 mx.acme.dev.", "20 alias.acme.dev."]])
async def test_a_mail_host_that_is_an_alias_is_a_warning(mx: list[str]) -> None:
    changes = {
        "acme.dev": {**GOOD["acme.dev"], "MX": mx},
        "alias.acme.dev": {"CNAME": ["mx.acme.dev."]},
    }
    finding = only(await check(changes), Code.MX_CNAME)
    assert (finding.verdict, finding.subject) == (RecordVerdict.WARN, "alias.acme.dev")
    assert "mx.acme.dev" in finding.seen


@pytest.mark.parametrize(("changes", "code"), MX)
async def test_mx(changes: dict[str, Any], code: Code) -> None:
    assert code.word in codes(await check(changes))


async def test_a_domain_that_does_not_exist_fails_and_is_no_silence() -> None:
    report = await check(identity=Identity(domain="acmee.dev"))
    assert {"mx.no-domain", "spf.missing", "dmarc.missing"} <= codes(report)
    assert not report.unanswered
    assert report.verdict is RecordVerdict.FAIL


PTR: list[tuple[dict[str, Any], Code]] = [
    ({"7.100.51.198.in-addr.arpa": None}, Code.PTR_MISSING),
    ({"out.acme.dev": {"A": ["198.51.100.8"]}}, Code.PTR_UNCONFIRMED),
    (
        {
            "7.100.51.198.in-addr.arpa": {"PTR": ["198-51-100-7.isp.dev."]},
            "198-51-100-7.isp.dev": {"A": ["198.51.100.7"]},
        },
        Code.PTR_GENERIC,
    ),
    (
        {"7.100.51.198.in-addr.arpa": {"PTR": ["mail.acme.dev."]}, "mail.acme.dev": {"A": ["198.51.100.7"]}},
        Code.HELO_OTHER,
    ),
    ({"out.acme.dev": None}, Code.HELO_NOT_FOUND),
]


@pytest.mark.parametrize(("changes", "code"), PTR)
async def test_ptr_and_helo(changes: dict[str, Any], code: Code) -> None:
    assert code.word in codes(await check(changes))


LISTS: list[tuple[str, list[str], Code]] = [
    ("bl.test", ["127.0.0.2"], Code.DNSBL_LISTED),
    ("bl.test", ["127.255.255.254"], Code.DNSBL_REFUSED),
    ("bl.test", ["203.0.113.1"], Code.DNSBL_REFUSED),  # a list that has ended answers with its parking place
    ("zen.spamhaus.org", ["127.0.0.10"], Code.DNSBL_POLICY),
    ("zen.spamhaus.org", ["127.0.0.4", "127.0.0.10"], Code.DNSBL_LISTED),
]


@pytest.mark.parametrize(("blocklist", "answers", "code"), LISTS)
async def test_blocklists(blocklist: str, answers: list[str], code: Code) -> None:
    identity = replace(IDENTITY, address_blocklists=(blocklist,))
    report = await check({f"7.100.51.198.{blocklist}": {"A": answers}}, identity)
    assert only(report, code).subject == f"198.51.100.7 at {blocklist}"


async def test_a_list_that_refuses_gives_no_verdict_and_no_retry() -> None:
    report = await check({"acme.dev.dbl.test": {"A": ["127.255.255.252"]}})
    assert report.verdict is RecordVerdict.UNKNOWN
    assert not report.unanswered
    assert failures(report.findings) == []


async def test_an_ipv6_address_is_asked_about_by_nibbles() -> None:
    identity = Identity(domain="acme.dev", sender_ips=("2001:db8::7",), address_blocklists=("bl.test",))
    name = "7." + "0." * 23 + "8.b.d.0.1.0.0.2.bl.test"
    assert "dnsbl.listed" in codes(await check({name: {"A": ["127.0.0.2"]}}, identity))


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (POLICY.replace("mx.acme.dev", "mx.other.dev"), Code.STS_DISAGREES),
        (POLICY.replace("enforce", "testing"), Code.STS_TESTING),
        (POLICY.replace("STSv1", "STSv9"), Code.STS_INVALID),
    ],
)
async def test_mta_sts(tmp_path: Path, policy: str, code: Code) -> None:
    async with https(tmp_path, "mta-sts.acme.dev", policy) as (site, trust):
        assert code.word in codes(await check(trust=trust, https_port=site.port))


OTHERS: list[tuple[dict[str, Any], Code]] = [
    ({"_mta-sts.acme.dev": None}, Code.STS_ABSENT),
    ({"_smtp._tls.acme.dev": None}, Code.TLS_RPT_ABSENT),
    ({"_smtp._tls.acme.dev": {"TXT": ['"v=TLSRPTv1; rua=tls@acme.dev"']}}, Code.TLS_RPT_INVALID),
    ({"_smtp._tls.acme.dev": {"TXT": ['"v=TLSRPTv1; rua=tls@acme.dev,mailto:t@acme.dev"']}}, Code.TLS_RPT_FAULTS),
    ({"_smtp._tls.acme.dev": {"TXT": ['"v=TLSRPTv1;; rua=mailto:t@acme.dev"']}}, Code.TLS_RPT_FAULTS),
    ({"_25._tcp.mx.acme.dev": None}, Code.DANE_ABSENT),
    ({"_25._tcp.mx.acme.dev": {"TLSA": ["1 0 1 " + "ab" * 32]}}, Code.DANE_UNUSABLE),
    ({"_25._tcp.mx.acme.dev": {"TLSA": ["3 1 3 " + "ab" * 32]}}, Code.DANE_UNUSABLE),
    ({"default._bimi.acme.dev": None}, Code.BIMI_ABSENT),
    ({"default._bimi.acme.dev": {"TXT": ['"v=BIMI1; l=http://acme.dev/logo.svg"']}}, Code.BIMI_INVALID),
    ({"_dmarc.acme.dev": {"TXT": ['"v=DMARC1; p=none; rua=mailto:d@acme.dev"']}}, Code.BIMI_NEEDS_DMARC),
    (
        {"acme.dev": {**GOOD["acme.dev"], "MX": ["10 mx.acme.dev.", "20 out.acme.dev."]}},
        Code.DANE_SOME,
    ),
]


@pytest.mark.parametrize(("changes", "code"), OTHERS)
async def test_tls_and_logo(changes: dict[str, Any], code: Code) -> None:
    assert code.word in codes(await check(changes))


@pytest.mark.parametrize(
    "signed", [(), SIGNED[:1], SIGNED[:2], SIGNED[1:], ("acme.dev", "_25._tcp.mx.acme.dev")], ids=str
)
@pytest.mark.parametrize("tlsa", ["3 1 1 " + "ab" * 32, "1 0 1 " + "ab" * 32, "3 1 3 " + "ab" * 32])
async def test_tlsa_records_without_dnssec_do_not_count(signed: tuple[str, ...], tlsa: str) -> None:
    report = await check({"_25._tcp.mx.acme.dev": {"TLSA": [tlsa]}}, signed=signed)
    assert only(report, Code.DANE_UNSIGNED).verdict is RecordVerdict.INFO
    assert RecordVerdict.FAIL not in {finding.verdict for finding in report.findings}


@pytest.mark.parametrize("signed", [(), SIGNED[:1]])
async def test_no_answer_about_tlsa_of_an_unsigned_host_is_no_question(signed: tuple[str, ...]) -> None:
    # RFC 7672 §2.2.2: senders do not ask for them.
    report = await check(signed=signed, troubles={"_25._tcp.mx.acme.dev": Trouble.SERVFAIL})
    assert "dane.absent" in codes(report)
    assert not report.unanswered

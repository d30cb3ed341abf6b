"""DMARC, SPF, BIMI, TLS-RPT and MTA-STS records of other projects' tests, with the same verdicts but for a few."""

from __future__ import annotations

import json
from typing import Any

import pytest

from postroad.clock import SystemClock
from postroad.dns.bimi import parse_bimi
from postroad.dns.dmarc_record import parse_dmarc
from postroad.dns.mta_sts import PolicyError, find_policy_id, parse_policy
from postroad.dns.resolver import Resolver
from postroad.dns.spf import SpfResult, survey
from postroad.dns.spf_record import SpfSyntaxError, is_spf, parse_spf
from postroad.dns.tags import RecordError
from postroad.dns.tls_rpt import parse_tls_rpt
from tests.conformance.corpora import REASON, corpus, not_here
from tests.dns.nameserver import Nameserver

NEWER = {
    "v=DMARC1; p=none; rf=bob;": "RFC 9989 took rf out, and tags that are not known are passed over (§4.7)",
    "v=DMARC1; p=none; ri=bob;": "the same of ri",
    "v=DMARC1; p=none; pct=500;": "the same of pct",
    "v=DMARC1; p=none; rf=000000000000000000000000000000000": "the same of rf",
    "v=DMARC1; sp=reject; p=reject": "RFC 9989 §4.8: tags behind v= come in any order",
}
"""Records that are invalid by RFC 7489 and valid by RFC 9989."""

STRICTER = {
    "v=DMARC1; p=none; ruf=mailto://abuse.com": "RFC 6068 §2: no address; receivers apply it, and a check warns",
    "v=DMARC1; p=none; ruf=mailto://abuse.com; foo=bar; buzz=happy;": "the same",
    "v=DMARC1; p=reject; sp=invalid; rua=mailto:mjl@mox.example": (
        "RFC 9989 §4.10.1: receivers take it for p=none, which its owner did not mean: a check calls it wrong"
    ),
    "v=DMARC1; p=n;": "RFC 9989 §4.8: the words are none, quarantine and reject; one parser takes their beginnings",
}

SPF_STRICTER = {
    "v=spf1 -all exp=exp.example extra": "RFC 7208 §4.6: a syntax error anywhere is a permerror, behind `all` as well",
}

STS_OTHERWISE = {
    "v=STSv1; id=foo; id=bar": "RFC 8461 §3.1 does not say; the first id is taken, as of policies (§3.2)",
}

STS_POLICY_OTHERWISE = {
    "mode: testing": "RFC 8461 §3.2: of fields that are there twice, the first counts",
    "max_age: 99999999": "RFC 8461 §3.2: the greatest value is used",
    "badkey: badvalue": "RFC 8461 §3.2: fields that are not known are passed over",
}


def _vectors(name: str) -> list[dict[str, Any]]:
    folder = corpus("checkdmarc-vectors")
    if folder is None:
        return []
    vectors: dict[str, list[dict[str, Any]]] = json.loads((folder / "vectors.json").read_text())["vectors"]
    return vectors[name]


def _cases(name: str) -> list[Any]:
    vectors = [(vector["record"], vector["ok"]) for vector in _vectors(name)]
    return [pytest.param(*vector, id=str(number)) for number, vector in enumerate(vectors)] or not_here("", True)


def _dmarc_cases() -> list[Any]:
    folder = corpus("dmarc-vectors")
    if folder is None:
        return not_here("", True)
    mox = json.loads((folder / "mox_parse.json").read_text())["vectors"]
    opendmarc = json.loads((folder / "opendmarc_parse.json").read_text())["vectors"]
    cases = [(vector["record"], vector["valid"]) for vector in mox]
    cases += [(vector["record"], vector["outcome"] == "DMARC_PARSE_OKAY") for vector in opendmarc]
    cases += [(vector["record"], vector["ok"]) for vector in _vectors("parse_dmarc_record")]
    return [pytest.param(*case, id=str(number)) for number, case in enumerate(cases)]


def _is_right_dmarc(record: str) -> bool:
    try:
        return not parse_dmarc(record).faults
    except RecordError:
        return False


@pytest.mark.parametrize(("record", "ok"), _dmarc_cases())
def test_dmarc_records(record: str, ok: bool) -> None:
    assert _is_right_dmarc(record) is ((ok or record in NEWER) and record not in STRICTER)


def test_every_difference_is_one() -> None:
    cases = [tuple(case.values[:2]) for case in _dmarc_cases()]
    if cases == [("", True)]:
        pytest.skip(REASON)
    assert {record for record, ok in cases if not ok} >= NEWER.keys()
    assert {record for record, ok in cases if ok} >= STRICTER.keys()
    assert len(cases) == 41 + 19 + 44


@pytest.mark.parametrize(("record", "ok"), _cases("parse_bimi_record"))
def test_bimi_records(record: str, ok: bool) -> None:
    try:
        parse_bimi(record)
    except RecordError:
        assert not ok
    else:
        assert ok


@pytest.mark.parametrize(("record", "ok"), _cases("parse_smtp_tls_reporting_record"))
def test_tls_rpt_records(record: str, ok: bool) -> None:
    try:
        parse_tls_rpt(record)
    except RecordError:
        assert not ok
    else:
        assert ok


@pytest.mark.parametrize(("record", "ok"), _cases("parse_mta_sts_record"))
async def test_mta_sts_records(record: str, ok: bool) -> None:
    zone = {"_mta-sts.example.com": {"TXT": [f'"{record}"']}}
    async with Nameserver(zone) as server, Resolver(server.settings(), SystemClock()) as resolver:
        _, policy_id = await find_policy_id(resolver, "example.com")
    assert (policy_id is not None) is (ok or record in STS_OTHERWISE)


@pytest.mark.parametrize(("record", "ok"), _cases("parse_mta_sts_policy"))
def test_mta_sts_policies(record: str, ok: bool) -> None:
    ours = ok or any(f"\r\n{line}\r\n" in record for line in STS_POLICY_OTHERWISE)
    try:
        parse_policy(record)
    except PolicyError:
        assert not ours
    else:
        assert ours


def _spf_cases() -> list[Any]:
    cases = [
        pytest.param(vector["record"], vector["domain"], vector.get("error", ""), id=str(number))
        for number, vector in enumerate(_vectors("parse_spf_record"))
    ]
    return cases or not_here("", "", "")


NEEDS_OTHER_ZONES = {"SPFTooManyDNSLookups"}
"""Results that depend on records missing in the vectors. tests/dns/test_checks.py has zones for them."""


@pytest.mark.parametrize(("record", "domain", "error"), _spf_cases())
async def test_spf_records(record: str, domain: str, error: str) -> None:
    text = "".join(record.split('"')) if record.startswith('"') else record
    assert is_spf(text)
    try:
        parse_spf(text)
    except SpfSyntaxError:
        assert error == "SPFSyntaxError" or record in SPF_STRICTER
        return
    assert error != "SPFSyntaxError"
    assert record not in SPF_STRICTER
    if not error or error in NEEDS_OTHER_ZONES:
        return
    # Loops and void lookups: the result if no other record exists.
    zone = {domain: {"TXT": [f'"{text}"'], "MX": [f"10 {name}.nowhere.test." for name in "abc"]}}
    async with Nameserver(zone) as server, Resolver(server.settings(), SystemClock()) as resolver:
        seen = await survey(resolver, domain)
    if error in ("SPFIncludeLoop", "SPFRedirectLoop"):
        assert seen.outcome.result is SpfResult.PERMERROR
        assert seen.outcome.lookups > 10
    else:
        assert error == "SPFTooManyVoidDNSLookups"
        assert seen.outcome.void_lookups > 2

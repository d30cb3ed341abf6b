"""The checks of a domain: each finding from a zone with its cause, and the record that fixes it."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from postroad.clock import SystemClock
from postroad.dns.finding import Code, Finding, RecordVerdict, Standard, failures
from postroad.dns.health import HealthReport, check_identity, difference
from postroad.dns.identity import Identity
from postroad.dns.resolver import Resolver
from tests.dns.nameserver import Nameserver, Trouble, Zone
from tests.https import https


def rsa(bits: int) -> str:
    if bits < 1024:  # No library makes such a key any more; that it is one is enough.
        key = RSAPublicNumbers(65537, 2 ** (bits - 1) + 1).public_key()
    else:
        key = generate_private_key(65537, bits).public_key()
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def ed25519() -> str:
    key = Ed25519PrivateKey.generate().public_key()
    return base64.b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def txt(text: str) -> str:
    return " ".join(f'"{text[start : start + 255]}"' for start in range(0, len(text), 255))


RSA, OTHER_RSA, SHORT, WEAK, ED = rsa(2048), rsa(2048), rsa(1024), rsa(768), ed25519()

GOOD: dict[str, dict[str, list[str]]] = {
    "acme.dev": {
        "TXT": ['"v=spf1 ip4:198.51.100.7 -all"'],
        "MX": ["10 mx.acme.dev."],
        "SOA": ["ns.acme.dev. h.acme.dev. 1 2 3 4 5"],
    },
    "mx.acme.dev": {"A": ["198.51.100.9"]},
    "out.acme.dev": {"A": ["198.51.100.7"]},
    "7.100.51.198.in-addr.arpa": {"PTR": ["out.acme.dev."]},
    "_dmarc.acme.dev": {"TXT": ['"v=DMARC1; p=reject; rua=mailto:dmarc@acme.dev"']},
    "a._domainkey.acme.dev": {"TXT": [txt(f"v=DKIM1; k=rsa; p={RSA}")]},
    "b._domainkey.acme.dev": {"TXT": [txt(f"v=DKIM1; k=ed25519; p={ED}")]},
    "_smtp._tls.acme.dev": {"TXT": ['"v=TLSRPTv1; rua=mailto:tls@acme.dev"']},
    "_mta-sts.acme.dev": {"TXT": ['"v=STSv1; id=1"']},
    "mta-sts.acme.dev": {"A": ["127.0.0.1"]},
    "default._bimi.acme.dev": {"TXT": ['"v=BIMI1; l=https://acme.dev/logo.svg"']},
    "_25._tcp.mx.acme.dev": {"TLSA": ["3 1 1 " + "ab" * 32]},
}
SIGNED = ("acme.dev", "mx.acme.dev", "_25._tcp.mx.acme.dev")
POLICY = "version: STSv1\r\nmode: enforce\r\nmx: mx.acme.dev\r\nmax_age: 86400\r\n"
IDENTITY = Identity(
    domain="acme.dev",
    sender_ips=("198.51.100.7",),
    selectors=("a", "b"),
    helo="out.acme.dev",
    keys={"a": RSA, "b": ED},
    address_blocklists=("bl.test",),
    domain_blocklists=("dbl.test",),
)


def zone_with(changes: Mapping[str, Mapping[str, list[str]] | None]) -> Zone:
    """Return the valid zone with some names changed, or removed (None)."""
    return {name: kinds for name, kinds in {**GOOD, **changes}.items() if kinds is not None}


async def check(
    changes: Mapping[str, Any] | None = None,
    identity: Identity = IDENTITY,
    *,
    trust: ssl.SSLContext | None = None,
    https_port: int = 443,
    **server_options: Any,
) -> HealthReport:
    options = {"signed": SIGNED, **server_options}
    # A busy machine may take its time to answer; only where silence is meant is it not waited for.
    timeout_ms = 500 if server_options.get("troubles") else 10_000
    async with (
        Nameserver(
            zone_with({**(changes or {})} if trust else {"_mta-sts.acme.dev": None, **(changes or {})}), **options
        ) as server,
        Resolver(server.settings(trust_ad=True, timeout_ms=timeout_ms), SystemClock()) as resolver,
    ):
        trust = trust or ssl.create_default_context()
        return await check_identity(resolver, identity, SystemClock(), trust, https_port=https_port)


def codes(report: HealthReport) -> set[str]:
    return {finding.code for finding in report.findings}


def only(report: HealthReport, code: Code) -> Finding:
    [finding] = [finding for finding in report.findings if finding.code == code.word]
    return finding


async def test_a_domain_that_is_well_in_everything(tmp_path: Path) -> None:
    async with https(tmp_path, "mta-sts.acme.dev", POLICY) as (site, trust):
        report = await check(trust=trust, https_port=site.port)
    assert {finding.verdict for finding in report.findings} == {RecordVerdict.PASS}, report.findings
    assert {finding.standard for finding in report.findings} == set(Standard) - {Standard.CANARY, Standard.BULK_SENDER}
    assert report.verdict is RecordVerdict.PASS


SPF: list[tuple[str, Code]] = [
    ("v=spf1 ip4:198.51.100.7 +all", Code.SPF_PLUS_ALL),
    ("v=spf1 ip4:198.51.100.7 ?all", Code.SPF_NEUTRAL_ALL),
    ("v=spf1 ip4:198.51.100.7", Code.SPF_NO_ALL),
    ("v=spf1 ip4:198.51.100.8 -all", Code.SPF_NOT_COVERED),
    ("v=spf1 ip4:198.51.100.7 ptr -all", Code.SPF_PTR),
    ("v=spf1 ip4:198.51.100.7 ipx:1 -all", Code.SPF_INVALID),
    ("v=spf1 ip4:198.51.100.7 include:nowhere.test -all", Code.SPF_INVALID),
    ("v=spf1 ip4:198.51.100.7 " + "a:mx.acme.dev " * 8 + "-all", Code.SPF_LOOKUPS_MANY),
    ("v=spf1 ip4:198.51.100.7 " + "a:mx.acme.dev " * 11 + "-all", Code.SPF_LOOKUPS_OVER),
    ("v=spf1 ip4:198.51.100.7 a:x.test a:y.test a:z.test -all", Code.SPF_VOID_OVER),
]


@pytest.mark.parametrize("text", [text for text, _ in SPF[5:]])
async def test_what_receivers_do_not_reach_in_spf_is_no_failure(text: str) -> None:
    # Mail from the sender's address passes at the first term; a syntax error spoils the record wherever it is.
    report = await check({"acme.dev": {**GOOD["acme.dev"], "TXT": [txt(text)]}})
    elsewhere = await check({"acme.dev": {**GOOD["acme.dev"], "TXT": [txt(text.replace("100.7", "100.8"))]}})
    costly = [finding for finding in elsewhere.findings if finding.code.startswith("spf.")]
    if "ipx" in text:
        assert [finding.code for finding in failures(report.findings)] == ["spf.invalid"]
    else:
        assert failures(report.findings) == []
        assert RecordVerdict.FAIL in {finding.verdict for finding in costly}


async def test_a_failing_spf_record_fails_without_known_addresses() -> None:
    text = "v=spf1 ip4:198.51.100.7 include:nowhere.test -all"
    report = await check({"acme.dev": {**GOOD["acme.dev"], "TXT": [txt(text)]}}, replace(IDENTITY, sender_ips=()))
    assert only(report, Code.SPF_INVALID).verdict is RecordVerdict.FAIL


@pytest.mark.parametrize(
    "text",
    ["v=spf1 ip4:198.51.100.7 -all include:nowhere.test", "v=spf1 ip4:198.51.100.7 ~all redirect=nowhere.test"],
)
async def test_terms_after_all_are_a_warning(text: str) -> None:
    report = await check({"acme.dev": {**GOOD["acme.dev"], "TXT": [txt(text)]}})
    assert {word for word in codes(report) if word.startswith("spf.")} == {"spf.after-all"}
    assert only(report, Code.SPF_AFTER_ALL).verdict is RecordVerdict.WARN


@pytest.mark.parametrize(("text", "code"), SPF, ids=[code.word for _, code in SPF])
async def test_spf(text: str, code: Code) -> None:
    report = await check({"acme.dev": {**GOOD["acme.dev"], "TXT": [txt(text)]}})
    assert {found for found in codes(report) if found.startswith("spf.")} == {code.word}


@pytest.mark.parametrize(
    ("text", "others", "code"),
    [
        ("v=spf1 ip4:0.0.0.0/0 -all", {}, Code.SPF_PLUS_ALL),
        ("v=spf1 include:o.test -all", {"o.test": {"TXT": ['"v=spf1 +all"']}}, Code.SPF_PLUS_ALL),
        ("v=spf1 redirect=o.test", {"o.test": {"TXT": ['"v=spf1 ip4:198.51.100.7 ?all"']}}, Code.SPF_NEUTRAL_ALL),
        ("v=spf1 redirect=o.test", {"o.test": {"TXT": ['"v=spf1 ip4:198.51.100.7"']}}, Code.SPF_NO_ALL),
        (  # what an included record says of strangers decides nothing
            "v=spf1 redirect=o.test",
            {
                "o.test": {"TXT": ['"v=spf1 ip4:198.51.100.7 include:i.test -all"']},
                "i.test": {"TXT": ['"v=spf1 ?all"']},
            },
            Code.SPF_OK,
        ),
        (  # a stranger that is refused here passes nowhere else
            "v=spf1 ip4:198.51.100.7 -include:o.test -all",
            {"o.test": {"TXT": ['"v=spf1 +all"']}},
            Code.SPF_OK,
        ),
    ],
)
async def test_what_becomes_of_strangers(text: str, others: dict[str, Any], code: Code) -> None:
    report = await check({"acme.dev": {**GOOD["acme.dev"], "TXT": [txt(text)]}, **others})
    assert {word for word in codes(report) if word.startswith("spf.")} == {code.word}


async def test_lookups_of_included_records_are_counted() -> None:
    others = {f"i{n}.test": {"TXT": [f'"v=spf1 include:i{n + 1}.test a:mx.acme.dev -all"']} for n in range(5)}
    others["i5.test"] = {"TXT": ['"v=spf1 -all"']}
    report = await check(
        {"acme.dev": {**GOOD["acme.dev"], "TXT": ['"v=spf1 ip4:198.51.100.7 include:i0.test -all"']}, **others}
    )
    assert "takes 11 lookups" in only(report, Code.SPF_LOOKUPS_OVER).seen


async def test_the_proposed_spf_record_fixes_the_failure() -> None:
    broken = {"acme.dev": {**GOOD["acme.dev"], "TXT": ['"v=spf1 ip4:198.51.100.8 ~all"']}}
    publish = only(await check(broken), Code.SPF_NOT_COVERED).publish
    assert publish == 'acme.dev. IN TXT "v=spf1 ip4:198.51.100.7 ip4:198.51.100.8 ~all"'
    fixed = {"acme.dev": {**GOOD["acme.dev"], "TXT": [publish.partition("TXT ")[2]]}}
    assert "spf.ok" in codes(await check(fixed))


async def test_what_cannot_be_shown_of_a_record_is_not() -> None:
    report = await check({"acme.dev": {**GOOD["acme.dev"], "TXT": ['"v=spf1 \\027[31m\\010# all"']}})
    assert only(report, Code.SPF_INVALID).seen.isprintable()


async def test_no_spf_record_and_two() -> None:
    none = await check({"acme.dev": {**GOOD["acme.dev"], "TXT": ['"hello"']}})
    assert only(none, Code.SPF_MISSING).publish == 'acme.dev. IN TXT "v=spf1 ip4:198.51.100.7 -all"'
    two = await check({"acme.dev": {**GOOD["acme.dev"], "TXT": ['"v=spf1 -all"', '"v=spf1 +all"']}})
    assert "spf.several" in codes(two)


DKIM: list[tuple[str | None, Code]] = [
    (None, Code.DKIM_MISSING),
    ("v=DKIM1; p=", Code.DKIM_REVOKED),
    ("v=DKIM1; p=!!!", Code.DKIM_INVALID),
    ("v=DKIM1; k=dsa; p=AAAA", Code.DKIM_INVALID),
    (f"v=DKIM1; h=sha1; p={RSA}", Code.DKIM_INVALID),
    (f"v=DKIM1;; p={RSA}", Code.DKIM_INVALID),  # RFC 6376 §6.1.2: verifiers ignore what is not of the format
    (f"v=dkim1; p={RSA}", Code.DKIM_INVALID),
    (f"v=DKIM1; s=web; p={RSA}", Code.DKIM_INVALID),
    (f"v=DKIM1; k=ed25519; p={RSA}", Code.DKIM_INVALID),
    (f"v=DKIM1; p={OTHER_RSA}", Code.DKIM_OTHER_KEY),
    (f"v=DKIM1; t=y; p={RSA}", Code.DKIM_TESTING),
]


@pytest.mark.parametrize(("text", "code"), DKIM)
async def test_dkim(text: str | None, code: Code) -> None:
    changes = {"a._domainkey.acme.dev": None if text is None else {"TXT": [txt(text)]}}
    report = await check(changes)
    finding = only(report, code)
    assert finding.subject == "a._domainkey.acme.dev"
    if finding.verdict is RecordVerdict.FAIL:
        assert f"p={RSA[:50]}" in finding.publish


@pytest.mark.parametrize(("key", "code"), [(WEAK, Code.DKIM_WEAK), (SHORT, Code.DKIM_SHORT)])
async def test_short_keys(key: str, code: Code) -> None:
    report = await check({"a._domainkey.acme.dev": {"TXT": [txt(f"v=DKIM1; p={key}")]}}, replace(IDENTITY, keys={}))
    assert code.word in codes(report)


@pytest.mark.parametrize(
    ("selector", "text"),
    [("a", f"k=rsa; v=DKIM1; p={RSA}"), ("b", f"v=DKIM1; k=ed25519; p={ED.rstrip('=')}")],
    ids=["tags in another order", "padding left out"],
)
async def test_faults_of_a_key_that_verifiers_pass_over_warn(selector: str, text: str) -> None:
    report = await check({f"{selector}._domainkey.acme.dev": {"TXT": [txt(text)]}})
    assert {f.code: f.verdict for f in report.findings if f.subject.startswith(f"{selector}.")} == {
        "dkim.faults": RecordVerdict.WARN
    }


async def test_a_key_record_of_another_version_is_discarded() -> None:
    records = [txt(f"v=DKIM2; p={OTHER_RSA}"), txt(f"v=DKIM1; p={RSA}")]
    assert "dkim.ok" in codes(await check({"a._domainkey.acme.dev": {"TXT": records}}))
    alone = await check({"a._domainkey.acme.dev": {"TXT": records[:1]}})
    assert only(alone, Code.DKIM_INVALID).verdict is RecordVerdict.FAIL


async def test_rsa_alone_is_worth_a_word() -> None:
    assert "dkim.no-ed25519" in codes(await check(identity=replace(IDENTITY, selectors=("a",))))


async def test_two_keys_at_one_selector() -> None:
    records = [txt(f"v=DKIM1; p={RSA}"), txt(f"v=DKIM1; p={OTHER_RSA}")]
    assert "dkim.several" in codes(await check({"a._domainkey.acme.dev": {"TXT": records}}))


async def test_missing_options_are_reported_as_information() -> None:
    report = await check(identity=Identity(domain="acme.dev"))
    assert {"dkim.unasked", "ptr.unasked"} <= codes(report)
    assert report.verdict is RecordVerdict.INFO


DMARC: list[tuple[list[str], Code]] = [
    (["v=DMARC1; p=none; rua=mailto:d@acme.dev"], Code.DMARC_NONE),
    (["v=DMARC1; p=reject; sp=none; rua=mailto:d@acme.dev"], Code.DMARC_SUBDOMAINS),
    (["v=DMARC1; p=reject"], Code.DMARC_NO_REPORTS),
    (["v=DMARC1; p=reject; pct=50; rua=mailto:d@acme.dev"], Code.DMARC_TAGS),
    (["v=DMARC1; p=reject; t=y; rua=mailto:d@acme.dev"], Code.DMARC_TESTING),
    (["v=DMARC1; p=refuse"], Code.DMARC_INVALID),
    (["v=DMARC1; p=refuse; rua=https://acme.dev/d"], Code.DMARC_NONE),
    (["v=DMARC1; p=reject; sp=bad"], Code.DMARC_INVALID),
    (["v=DMARC1; p=reject; p=none; rua=mailto:d@acme.dev"], Code.DMARC_INVALID),
    (["v=dmarc1; p=reject; rua=mailto:d@acme.dev"], Code.DMARC_MISSING),
    (["p=reject; v=DMARC1; rua=mailto:d@acme.dev"], Code.DMARC_MISSING),
    (["v=DMARC1; p=reject; rua=mailto:d@other.dev"], Code.DMARC_REPORTS_REFUSED),
    ([], Code.DMARC_MISSING),
    (["v=DMARC1; p=none", "v=DMARC1; p=reject"], Code.DMARC_SEVERAL),
]


@pytest.mark.parametrize(("records", "code"), DMARC)
async def test_dmarc(records: list[str], code: Code) -> None:
    report = await check({"_dmarc.acme.dev": {"TXT": [txt(text) for text in records]} if records else None})
    found = {word for word in codes(report) if word.startswith("dmarc.")}
    assert code.word in found
    assert "dmarc.ok" not in found


FAULTS: list[tuple[str, set[Code]]] = [
    ("p=reject; rua=mailto:d@acme.dev;;", {Code.DMARC_FAULTS}),
    ("p=reject;; rua=mailto:d@acme.dev; ;", {Code.DMARC_FAULTS}),
    ("p=reject; rua=d@acme.dev", {Code.DMARC_FAULTS, Code.DMARC_NO_REPORTS}),
    ("p=reject; rua=d@acme.dev,mailto:d@acme.dev", {Code.DMARC_FAULTS}),
    ("p=reject; rua=mailto:d@acme.dev; ruf=mailto:; fo=1", {Code.DMARC_FAULTS}),
    ("p=reject; rua=mailto:d@acme.dev; ruf=mailto://acme.dev", {Code.DMARC_FAULTS}),
    ("p=reject; adkim=relaxed; rua=mailto:d@acme.dev", {Code.DMARC_FAULTS}),
    ("p=reject; aspf=; rua=mailto:d@acme.dev", {Code.DMARC_FAULTS}),
    ("p=reject; fo=2; t=maybe; psd=x; rua=mailto:d@acme.dev", {Code.DMARC_FAULTS}),
    ("p=reject; hello; rua=mailto:d@acme.dev", {Code.DMARC_FAULTS}),
    ("p=reject; x-tag=1; rua=mailto:d@acme.dev", {Code.DMARC_FAULTS}),
    ("sp=reject; p=reject; rua=mailto:d@acme.dev", {Code.DMARC_OK}),
    ("p=reject; pct=150; ri=daily; rf=x; colour=red; rua=mailto:d@acme.dev", {Code.DMARC_TAGS}),
    ("p=refuse; rua=mailto:d@acme.dev", {Code.DMARC_FAULTS, Code.DMARC_NONE}),
    ("p=reject; sp=bad; rua=mailto:d@acme.dev", {Code.DMARC_FAULTS, Code.DMARC_NONE}),
    ("p=reject; rua=mailto:d@acme.dev!10m", {Code.DMARC_REPORT_URI}),
    ("p=reject; rua=mailto:d@acme.dev,https://acme.dev/reports", {Code.DMARC_REPORT_URI}),
    ("p=reject; rua=mailto:d@bare.dev", {Code.DMARC_REPORTS_LOST}),
    ("p=reject; rua=mailto:d@null.dev", {Code.DMARC_REPORTS_LOST}),
    (" P = Reject ; RUA = mailto:d@acme.dev ; ", {Code.DMARC_OK}),
]


@pytest.mark.parametrize(("tags", "expected"), FAULTS, ids=[tags for tags, _ in FAULTS])
async def test_faults_that_receivers_pass_over_warn_and_hold_no_sender(tags: str, expected: set[Code]) -> None:
    changes = {
        "_dmarc.acme.dev": {"TXT": [txt(f"v=DMARC1; {tags}")]},
        "null.dev": {"MX": ["0 ."]},
        "acme.dev._report._dmarc.null.dev": {"TXT": ['"v=DMARC1"']},
        "acme.dev._report._dmarc.bare.dev": {"TXT": ['"v=DMARC1"']},
    }
    report = await check(changes)
    assert {word for word in codes(report) if word.startswith("dmarc.")} == {code.word for code in expected}
    assert failures(report.findings) == []


async def test_a_record_above_that_receivers_do_not_apply_is_named() -> None:
    identity = replace(IDENTITY, domain="news.acme.dev", bounce_domain="acme.dev")
    report = await check({"_dmarc.acme.dev": {"TXT": ['"v=DMARC1; p=refuse"']}}, identity)
    assert "p=refuse" in only(report, Code.DMARC_INVALID).seen
    assert "dmarc.missing" not in codes(report)


async def test_a_place_of_reports_that_agrees_is_well() -> None:
    changes = {
        "other.dev": {"MX": ["10 mx.acme.dev."]},
        "_dmarc.acme.dev": {"TXT": ['"v=DMARC1; p=reject; rua=mailto:d@other.dev"']},
        "acme.dev._report._dmarc.other.dev": {"TXT": ['"v=DMARC1"']},
    }
    assert "dmarc.ok" in codes(await check(changes))


async def test_a_return_path_of_another_domain_is_not_aligned() -> None:
    elsewhere = replace(IDENTITY, bounce_domain="bounces.other.dev")
    other = {"bounces.other.dev": {"TXT": ['"v=spf1 ip4:198.51.100.7 -all"'], "A": ["198.51.100.9"]}}
    assert only(await check(other, elsewhere), Code.DMARC_SPF_UNALIGNED).verdict is RecordVerdict.WARN
    unsigned = {**other, "a._domainkey.acme.dev": None, "b._domainkey.acme.dev": None}
    assert only(await check(unsigned, elsewhere), Code.DMARC_UNALIGNED).verdict is RecordVerdict.FAIL
    below = {"bounces.acme.dev": other["bounces.other.dev"]}
    assert "dmarc.ok" in codes(await check(below, replace(IDENTITY, bounce_domain="bounces.acme.dev")))


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


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("acme.dev", Code.SPF_UNKNOWN),
        ("a._domainkey.acme.dev", Code.DKIM_UNKNOWN),
        ("_dmarc.acme.dev", Code.DMARC_UNKNOWN),
        ("mx.acme.dev", Code.MX_UNKNOWN),
        ("7.100.51.198.in-addr.arpa", Code.PTR_UNKNOWN),
        ("7.100.51.198.bl.test", Code.DNSBL_UNKNOWN),
        ("_mta-sts.acme.dev", Code.STS_UNKNOWN),
        ("_smtp._tls.acme.dev", Code.TLS_RPT_UNKNOWN),
        ("_25._tcp.mx.acme.dev", Code.DANE_UNKNOWN),
        ("default._bimi.acme.dev", Code.BIMI_UNKNOWN),
    ],
)
@pytest.mark.parametrize("trouble", [Trouble.SERVFAIL, Trouble.SILENT])
async def test_no_answer_is_never_a_failure(name: str, code: Code, trouble: Trouble) -> None:
    report = await check(troubles={name: trouble})
    assert code.word in codes(report)
    assert report.unanswered
    assert report.verdict is RecordVerdict.UNKNOWN, [f for f in report.findings if f.verdict is not RecordVerdict.PASS]


async def test_what_is_new_and_what_is_gone_and_silence_is_neither() -> None:
    before = (await check()).findings
    broken = (await check({"_dmarc.acme.dev": None})).findings
    change = difference(before, broken)
    assert {finding.code for finding in change.new} == {"dmarc.missing", "bimi.needs-dmarc"}
    assert {finding.code for finding in change.gone} == {"dmarc.ok", "bimi.ok"}
    silent = (await check(troubles={"_dmarc.acme.dev": Trouble.SERVFAIL})).findings
    assert difference(before, silent).new == difference(before, silent).gone == ()


def test_every_kind_of_finding_is_tested_here() -> None:
    here = Path(__file__)
    files = [*sorted(here.parent.glob("test_*.py")), *sorted((here.parents[1] / "canary").glob("test_*.py"))]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    untested = [
        code
        for code in Code
        if code.verdict is not RecordVerdict.PASS and f"Code.{code.name}" not in text and code.word not in text
    ]
    assert untested == [], [code.word for code in untested]

"""The checks of a domain's DKIM keys and its DMARC record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postroad.dns.finding import Code, RecordVerdict, failures
from postroad.dns.identity import Identity
from tests.dns.domain import ED, IDENTITY, OTHER_RSA, RSA, SHORT, WEAK, check, codes, only, txt

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

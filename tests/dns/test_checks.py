"""The checks of a domain: each finding from a zone with its cause, and the record that fixes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postroad.dns.finding import Code, RecordVerdict, Standard, failures
from postroad.dns.health import difference
from tests.dns.domain import GOOD, IDENTITY, POLICY, check, codes, only, txt
from tests.dns.nameserver import Trouble
from tests.https import https


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

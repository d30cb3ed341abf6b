"""Parsing of Authentication-Results (RFC 8601), and comparison with DNS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.canary.compare import compare, expected_results
from postroad.canary.results import CanaryResult, parse_field, parse_results
from postroad.dns.finding import Code, Finding, Standard, make_finding

MX = "mx.receiver.example"
ALL: dict[Standard, bool | None] = dict.fromkeys((Standard.SPF, Standard.DKIM, Standard.DMARC), True)


@pytest.mark.parametrize(
    ("value", "results"),
    [
        # RFC 8601 appendix B.2: nothing was done
        (f"{MX} 1; none", []),
        # B.3
        (f"{MX};\r\n spf=pass smtp.mailfrom=example.net", [("spf", "pass", {"smtp.mailfrom": "example.net"})]),
        # B.4: comments, also nested and between tokens
        (
            f'{MX}; (was (it)?) auth=pass (cram-md5) smtp.auth=sender@example.net; spf = pass smtp.mailfrom="x;y"@e',
            [("auth", "pass", {"smtp.auth": "sender@example.net"}), ("spf", "pass", {"smtp.mailfrom": "x;y"})],
        ),
        # B.5, B.6: a version of the method, and a reason with what looks like more
        (
            f'{MX.upper()}; dkim/1=FAIL reason="spf=pass; (no" header.d=example.com header.i=@example.com',
            [("dkim", "fail", {"header.d": "example.com", "header.i": "@example.com"})],
        ),
        (
            f"{MX}; dmarc=pass (p=none dis=none) header.from=example.com",
            [("dmarc", "pass", {"header.from": "example.com"})],
        ),
        # of another host, of an unknown version, and malformed
        ("mx.other.example; spf=pass", []),
        (f"{MX} 2; spf=pass", []),
        (f"{MX}.evil.example; spf=pass", []),
        (f"{MX}; ; = ; spf", []),
        ("", []),
    ],
)
def test_a_field_is_read_as_the_standard_says(value: str, results: list[tuple[str, str, dict[str, str]]]) -> None:
    found_ = parse_field(value, MX)
    if "x;y" in value:  # the rest of a quoted local part is another's matter
        assert [(r.method, r.result) for r in found_] == [(m, r) for m, r, _ in results]
    else:
        assert [tuple(result) for result in found_] == results


@given(st.text(max_size=200))
def test_no_field_is_too_strange(text: str) -> None:
    parse_field(f"{MX};{text}", MX)
    parse_field(text, MX)


def test_only_the_fields_of_the_named_host_count() -> None:
    raw = (
        f"Authentication-Results: {MX}; spf=fail\r\nAuthentication-Results: forged.example; dkim=pass\r\n"
        f"Authentication-Results: {MX}; dkim=none\r\n\r\nAuthentication-Results: {MX}; dmarc=pass\r\n"
    ).encode()
    assert [(r.method, r.result) for r in parse_results(raw, MX)] == [("spf", "fail"), ("dkim", "none")]


def compared(*results: CanaryResult, expected: dict[Standard, bool | None] | None = None) -> dict[str, str]:
    findings = compare(results, expected or ALL, sender="news@example.com", authserv_id=MX)
    return {finding.subject.partition(" ")[0]: finding.code for finding in findings}


def test_a_finding_for_each_method() -> None:
    spf = CanaryResult("spf", "pass", {"smtp.mailfrom": "b.example.com"})
    dkim = CanaryResult("dkim", "fail", {"header.d": "example.com"})
    assert compared(spf, dkim) == {"SPF": "canary.ok", "DKIM": "canary.differs", "DMARC": "canary.unsaid"}


def test_only_an_aligned_signature_counts_and_one_suffices() -> None:
    relay = CanaryResult("dkim", "pass", {"header.d": "relay.example"})
    ours = CanaryResult("dkim", "pass", {"header.d": "example.com"})
    broken = CanaryResult("dkim", "fail", {"header.i": "@example.com"})
    lookalike = CanaryResult("dkim", "pass", {"header.d": "notexample.com"})
    assert compared(relay)["DKIM"] == "canary.unsaid"
    assert compared(relay, lookalike, broken)["DKIM"] == "canary.differs"
    assert compared(broken, ours)["DKIM"] == "canary.ok"


@pytest.mark.parametrize(
    ("result", "expected", "code"),
    [
        ("pass", True, "canary.ok"),
        ("pass", None, "canary.ok"),
        ("pass", False, "canary.unpromised"),
        ("fail", True, "canary.differs"),
        ("softfail", None, "canary.differs"),
        ("none", False, "canary.fails"),
        ("permerror", False, "canary.fails"),
        ("temperror", True, "canary.temporary"),
    ],
)
def test_results_are_compared_with_dns(result: str, expected: bool | None, code: str) -> None:
    assert compared(CanaryResult("spf", result, {}), expected=ALL | {Standard.SPF: expected})["SPF"] == code


def test_without_a_word_of_the_host_there_is_one_finding() -> None:
    [finding] = compare([], ALL, sender="news@example.com", authserv_id=MX)
    assert finding.code == "canary.no-results"
    assert MX in finding.seen


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([Code.SPF_OK], True),
        ([Code.SPF_OK, Code.SPF_LOOKUPS_MANY], True),
        ([Code.SPF_OK, Code.SPF_NOT_COVERED], False),
        ([Code.SPF_UNKNOWN], None),
        ([], None),
    ],
)
def test_expected_results_by_the_findings_of_dns(codes: list[Code], expected: bool | None) -> None:
    findings: list[Finding] = [make_finding(code, "example.com", "seen") for code in codes]
    assert expected_results(findings)[Standard.SPF] is expected

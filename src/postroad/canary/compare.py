"""Compares a receiver's authentication results with those expected from DNS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from postroad.canary.results import CanaryResult
from postroad.dns.finding import Code, Finding, RecordVerdict, Standard, make_finding

METHODS = {"spf": Standard.SPF, "dkim": Standard.DKIM, "dmarc": Standard.DMARC}
_PROPERTY = {"spf": "smtp.mailfrom", "dkim": "header.d", "dmarc": "header.from"}

_REMEDY = {
    "spf": "Add the sending address to the SPF record. If mail is sent through a relay, include the relay's record.",
    "dkim": "Compare the selector and key in DNS with those that sign: `postroad dkim`. A relay that changes messages "
    "breaks signatures.",
    "dmarc": "Either SPF or DKIM must pass for the From domain or for an aligned domain.",
}


def expected_results(findings: Sequence[Finding]) -> dict[Standard, bool | None]:
    """Return whether mail should pass according to the findings of DNS, by standard. None: that is unknown."""
    expected: dict[Standard, bool | None] = {}
    for standard in METHODS.values():
        verdicts = {finding.verdict for finding in findings if finding.standard is standard}
        if RecordVerdict.FAIL in verdicts:
            expected[standard] = False
        else:
            expected[standard] = (
                True if RecordVerdict.PASS in verdicts and RecordVerdict.UNKNOWN not in verdicts else None
            )
    return expected


def compare(
    results: Sequence[CanaryResult], expected: Mapping[Standard, bool | None], *, sender: str, authserv_id: str
) -> list[Finding]:
    """Compare the results of each method with the expectation.

    Args:
        results: The receiver's results.
        expected: Whether mail should pass, by standard.
        sender: The From address, with whose domain DKIM must be aligned.
        authserv_id: The host whose results count, for errors.

    Returns:
        A finding for each method, or a single one if there are no results.
    """
    if not results:
        return [
            make_finding(
                Code.CANARY_NO_RESULTS,
                sender,
                f"it arrived without Authentication-Results of {authserv_id}",
                remedy="Set canary.authserv_id to the first word of that field in mail of the mailbox.",
            )
        ]
    domain = sender.rpartition("@")[2].lower()
    return [
        _compare_method(method, _best_result(method, results, domain), expected.get(standard), sender)
        for method, standard in METHODS.items()
    ]


def _compare_method(method: str, result: CanaryResult | None, expected: bool | None, sender: str) -> Finding:
    subject = f"{METHODS[method]} of {sender}"
    if result is None:
        return make_finding(Code.CANARY_UNSAID, subject, f"the receiver reported no result of {method}")
    about = result.properties.get(_PROPERTY[method])
    seen = f"the receiver reported {method}={result.result}" + (f" for {about}" if about else "")
    if result.result == "pass":
        if expected is False:
            return make_finding(Code.CANARY_UNPROMISED, subject, f"{seen}, but according to DNS it fails now")
        return make_finding(Code.CANARY_OK, subject, seen)
    if result.result == "temperror":
        return make_finding(Code.CANARY_TEMPORARY, subject, seen)
    if expected is False:
        return make_finding(Code.CANARY_FAILS, subject, f"{seen}, as expected from DNS", remedy=_REMEDY[method])
    reason = "according to DNS it passes" if expected else "DNS does not explain that"
    return make_finding(Code.CANARY_DIFFERS, subject, f"{seen}, but {reason}", remedy=_REMEDY[method])


def _best_result(method: str, results: Sequence[CanaryResult], domain: str) -> CanaryResult | None:
    """Return a pass if a method has one, else its first result. Only signatures aligned with the From domain count.

    RFC 8601 §2.7.1: a message has a result for each signature. Those of others, such as a relay, are not about us.

    Args:
        method: The method.
        results: The receiver's results.
        domain: The From domain.

    Returns:
        The result, or None.
    """
    candidates = [result for result in results if result.method == method and _is_ours(result, domain)]
    passed = next((result for result in candidates if result.result == "pass"), None)
    return passed or (candidates[0] if candidates else None)


def _is_ours(result: CanaryResult, domain: str) -> bool:
    if result.method == "spf":
        return True
    named = result.properties.get(_PROPERTY[result.method], "").lower().rpartition("@")[2]
    if not named and result.method == "dkim":
        named = result.properties.get("header.i", "").lower().rpartition("@")[2]
    return not named or named == domain or domain.endswith(f".{named}") or named.endswith(f".{domain}")

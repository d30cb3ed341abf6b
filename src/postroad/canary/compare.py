"""What a receiver saw, beside what DNS promises. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from postroad.canary.results import CanaryResult
from postroad.dns.finding import Code, Finding, RecordVerdict, Standard, make_finding

METHODS = {"spf": Standard.SPF, "dkim": Standard.DKIM, "dmarc": Standard.DMARC}
_WORD = {"spf": "smtp.mailfrom", "dkim": "header.d", "dmarc": "header.from"}

_MEND = {
    "spf": "Let the SPF record name the address that mail leaves from; behind a relay, include the relay's record.",
    "dkim": "Compare the selector and key in DNS with those that sign: `postroad dkim`. A relay that changes messages "
    "breaks signatures.",
    "dmarc": "Either SPF or DKIM must pass for the From domain itself, or for one that is aligned with it.",
}


def promises(findings: Sequence[Finding]) -> dict[Standard, bool | None]:
    """Return whether DNS promises that mail passes, by standard. None: it says nothing of it, or gave no answer."""
    promised: dict[Standard, bool | None] = {}
    for standard in METHODS.values():
        verdicts = {finding.verdict for finding in findings if finding.standard is standard}
        if RecordVerdict.FAIL in verdicts:
            promised[standard] = False
        else:
            promised[standard] = (
                True if RecordVerdict.PASS in verdicts and RecordVerdict.UNKNOWN not in verdicts else None
            )
    return promised


def compare(
    results: Sequence[CanaryResult], promised: Mapping[Standard, bool | None], *, sender: str, authserv_id: str
) -> list[Finding]:
    """Return a finding for each method. ``sender``: the From address, in whose domain's name DKIM is to pass."""
    if not results:
        return [
            make_finding(
                Code.CANARY_NO_RESULTS,
                sender,
                f"it arrived, and no Authentication-Results of {authserv_id} with it",
                remedy="Name in canary.authserv_id what the first word of that field is in the mailbox's mail.",
            )
        ]
    domain = sender.rpartition("@")[2].lower()
    return [
        _judge(method, _best(method, results, domain), promised.get(standard), sender)
        for method, standard in METHODS.items()
    ]


def _judge(method: str, result: CanaryResult | None, promised: bool | None, sender: str) -> Finding:
    subject = f"{METHODS[method]} of {sender}"
    if result is None:
        return make_finding(Code.CANARY_UNSAID, subject, f"the receiver said nothing of {method}")
    about = result.properties.get(_WORD[method])
    seen = f"the receiver saw {method}={result.result}" + (f" for {about}" if about else "")
    if result.result == "pass":
        if promised is False:
            return make_finding(Code.CANARY_UNPROMISED, subject, f"{seen}, and DNS says now that it fails")
        return make_finding(Code.CANARY_OK, subject, seen)
    if result.result == "temperror":
        return make_finding(Code.CANARY_TEMPORARY, subject, seen)
    if promised is False:
        return make_finding(Code.CANARY_FAILS, subject, f"{seen}, as DNS says", remedy=_MEND[method])
    said = "DNS promises a pass" if promised else "DNS says nothing against it"
    return make_finding(Code.CANARY_DIFFERS, subject, f"{seen}, and {said}", remedy=_MEND[method])


def _best(method: str, results: Sequence[CanaryResult], domain: str) -> CanaryResult | None:
    """Of several results of a method a pass counts. A signature counts that is of the From domain, or aligned with it.

    RFC 8601 §2.7.1: a message has a result for each of its signatures; others', as a relay's own, say nothing of us.
    """
    of = [result for result in results if result.method == method and _is_ours(result, domain)]
    return next((result for result in of if result.result == "pass"), of[0] if of else None)


def _is_ours(result: CanaryResult, domain: str) -> bool:
    if result.method == "spf":
        return True
    named = result.properties.get(_WORD[result.method], "").lower().rpartition("@")[2]
    if not named and result.method == "dkim":
        named = result.properties.get("header.i", "").lower().rpartition("@")[2]
    return not named or named == domain or domain.endswith(f".{named}") or named.endswith(f".{domain}")

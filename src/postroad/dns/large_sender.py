"""The rules that large mailbox providers have for large senders, counted by organisational domain. No DNS is asked.

Google: 5,000 messages or more to its users on one day, and the sender is a large one for good. Microsoft's consumer
mail: more than 5,000 a day. Yahoo: whoever sends in bulk, at any volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from postroad.dns.finding import Code, Finding, Standard, Verdict, found

LARGE_FROM = {"google": 5_000, "outlook": 5_001, "yahoo": 1}
"""By mailbox provider: messages a day from which its rules hold."""
NEAR_FROM = 4_000

_RULED = (Standard.SPF, Standard.DKIM, Standard.DMARC)
_REMEDY = "Mend SPF, DKIM and DMARC, keep one-click unsubscribe, and stay below 0.1 % complaints, never 0.3 %."


def large_sender(organisation: str, most: Mapping[str, int], findings: Sequence[Finding]) -> list[Finding]:
    """Return what is to be said of an organisation. ``most``: messages of its busiest day, by mailbox provider.

    ``findings``: of its DNS; what fails of SPF, DKIM or DMARC breaks the rules.
    """
    said = [
        _at(organisation, provider, count, findings)
        for provider, large_from in LARGE_FROM.items()
        if (count := most.get(provider, 0)) >= min(large_from, NEAR_FROM)
    ]
    seen = ", ".join(f"{most.get(provider, 0):,} at {provider}" for provider in LARGE_FROM)
    return said or [found(Code.LARGE_SMALL, organisation, f"messages of the busiest day: {seen}")]


def _at(organisation: str, provider: str, count: int, findings: Sequence[Finding]) -> Finding:
    subject, seen = f"{organisation} at {provider}", f"{count:,} messages on its busiest day"
    if count < LARGE_FROM[provider]:
        return found(Code.LARGE_NEAR, subject, seen, remedy=_REMEDY)
    ruled = [finding for finding in findings if finding.standard in _RULED]
    broken = sorted({finding.code for finding in ruled if finding.verdict is Verdict.FAIL})
    if broken:
        return found(Code.LARGE_UNMET, subject, f"{seen}; {', '.join(broken)}", remedy=_REMEDY)
    unseen = [f for f in ruled if f.verdict is Verdict.UNKNOWN or f.code == Code.DKIM_UNASKED.word]
    if unseen or {finding.standard for finding in ruled} != set(_RULED):
        return found(Code.LARGE_OPEN, subject, seen, remedy="Name dkim_selectors, or sign with keys of your own.")
    return found(Code.LARGE_MET, subject, seen)

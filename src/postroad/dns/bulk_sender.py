"""The rules of large mailbox providers for bulk senders, counted by organisational domain. Sends no DNS query.

Google: 5,000 messages or more to its users on one day make a sender a bulk sender permanently. Microsoft's consumer
mail: more than 5,000 a day. Yahoo: bulk mail at any volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from postroad.dns.finding import Code, Finding, RecordVerdict, Standard, make_finding
from postroad.printable import counted

BULK_FROM = {"google": 5_000, "outlook": 5_001, "yahoo": 1}
"""Messages a day from which the rules apply, by mailbox provider."""
NEAR_FROM = 4_000

_RULED = (Standard.SPF, Standard.DKIM, Standard.DMARC)
_REMEDY = "Fix SPF, DKIM and DMARC, keep one-click unsubscribe, and stay below 0.1 % complaints, never 0.3 %."


def bulk_sender(organisation: str, most: Mapping[str, int], findings: Sequence[Finding]) -> list[Finding]:
    """Check an organisation against the rules for bulk senders.

    Args:
        organisation: The organisational domain.
        most: The messages of its busiest day, by mailbox provider.
        findings: The findings of its DNS. A failure of SPF, DKIM or DMARC breaks the rules.

    Returns:
        One finding for each provider whose rules apply or nearly apply. Otherwise a single finding.
    """
    near = [
        _at(organisation, provider, count, findings)
        for provider, bulk_from in BULK_FROM.items()
        if (count := most.get(provider, 0)) >= min(bulk_from, NEAR_FROM)
    ]
    seen = ", ".join(f"{most.get(provider, 0):,} at {provider}" for provider in BULK_FROM)
    return near or [make_finding(Code.BULK_SMALL, organisation, f"messages of the busiest day: {seen}")]


def _at(organisation: str, provider: str, count: int, findings: Sequence[Finding]) -> Finding:
    subject, seen = f"{organisation} at {provider}", f"{counted(count, 'message')} on its busiest day"
    if count < BULK_FROM[provider]:
        return make_finding(Code.BULK_NEAR, subject, seen, remedy=_REMEDY)
    ruled = [finding for finding in findings if finding.standard in _RULED]
    broken = sorted({finding.code for finding in ruled if finding.verdict is RecordVerdict.FAIL})
    if broken:
        return make_finding(Code.BULK_UNMET, subject, f"{seen}; {', '.join(broken)}", remedy=_REMEDY)
    unseen = [f for f in ruled if f.verdict is RecordVerdict.UNKNOWN or f.code == Code.DKIM_UNASKED.word]
    if unseen or {finding.standard for finding in ruled} != set(_RULED):
        return make_finding(Code.BULK_OPEN, subject, seen, remedy="Name dkim_selectors, or sign with keys of your own.")
    return make_finding(Code.BULK_MET, subject, seen)

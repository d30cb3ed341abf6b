"""The health of a domain: every standard asked at once, into one report."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from postroad.clock import Clock
from postroad.dns.checks import dane, dkim, dmarc, dnsbl, mta_sts, mx, ptr, records, spf
from postroad.dns.finding import Finding, RecordVerdict, Standard, worst
from postroad.dns.identity import Identity
from postroad.dns.resolver import Resolver

_ORDER = list(Standard)


@dataclass(frozen=True, kw_only=True)
class HealthReport:
    """What was found of one identity at one instant."""

    domain: str
    checked_at: datetime
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> RecordVerdict:
        return worst(finding.verdict for finding in self.findings)

    @property
    def unanswered(self) -> bool:
        """Whether DNS left a question open, of which asking again may help."""
        return any(
            finding.verdict is RecordVerdict.UNKNOWN and finding.code != "dnsbl.refused" for finding in self.findings
        )


async def check_identity(
    resolver: Resolver, identity: Identity, clock: Clock, trust: ssl.SSLContext, *, https_port: int = 443
) -> HealthReport:
    """Check everything. Never raises for what DNS may say. ``trust``: authorities of the MTA-STS policy's host."""
    signing = await dkim.check(resolver, identity)
    found = await asyncio.gather(
        spf.check(resolver, identity),
        dmarc.check(resolver, identity, signed=_signed(identity, signing)),
        mx.check(resolver, identity),
        ptr.check(resolver, identity),
        dnsbl.check(resolver, identity),
        mta_sts.check(resolver, identity, trust, https_port=https_port),
        records.check_tls_rpt(resolver, identity),
        dane.check(resolver, identity),
        records.check_bimi(resolver, identity),
    )
    findings = [*signing, *(finding for each in found for finding in each)]
    findings.sort(key=lambda finding: _ORDER.index(finding.standard))
    return HealthReport(domain=identity.domain, checked_at=clock.now(), findings=tuple(findings))


def _signed(identity: Identity, findings: Sequence[Finding]) -> bool | None:
    if not identity.selectors or any(finding.verdict is RecordVerdict.UNKNOWN for finding in findings):
        return None
    broken = {finding.subject for finding in findings if finding.verdict is RecordVerdict.FAIL}
    return len(broken) < len(identity.selectors)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is different from the report before."""

    new: tuple[Finding, ...]
    gone: tuple[Finding, ...]


def difference(before: Sequence[Finding], now: Sequence[Finding]) -> Change:
    """Compare two reports by what was found about what. Verdicts of no answer count as no news on either side."""
    silent = {_place(finding) for finding in (*before, *now) if finding.verdict is RecordVerdict.UNKNOWN}
    known_before = {finding.key for finding in before}
    known_now = {finding.key for finding in now}
    return Change(
        new=tuple(f for f in now if f.key not in known_before and _place(f) not in silent),
        gone=tuple(f for f in before if f.key not in known_now and _place(f) not in silent),
    )


def _place(finding: Finding) -> tuple[str, str]:
    """What an unanswered question leaves open: a standard; of lists, the one that was asked about the one thing."""
    return finding.standard, finding.subject if finding.standard is Standard.DNSBL else ""

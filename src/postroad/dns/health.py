"""The health of a sender's domain: runs all checks concurrently and combines them into one report."""

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
    """The findings about one identity at one time."""

    domain: str
    checked_at: datetime
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> RecordVerdict:
        return worst(finding.verdict for finding in self.findings)

    @property
    def unanswered(self) -> bool:
        """Whether a query got no answer, so that a repeated check may help."""
        return any(
            finding.verdict is RecordVerdict.UNKNOWN and finding.code != "dnsbl.refused" for finding in self.findings
        )


async def check_identity(
    resolver: Resolver, identity: Identity, clock: Clock, trust: ssl.SSLContext, *, https_port: int = 443
) -> HealthReport:
    """Run all checks.

    Args:
        resolver: Sends the DNS queries.
        identity: The domain, and what mail from it uses.
        clock: Gives the time of the report.
        trust: Trusted authorities for the host of the MTA-STS policy.
        https_port: Port of that host.

    Returns:
        The report. Errors of DNS are findings too.
    """
    signing = await dkim.check(resolver, identity)
    results = await asyncio.gather(
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
    findings = [*signing, *(finding for result in results for finding in result)]
    findings.sort(key=lambda finding: _ORDER.index(finding.standard))
    return HealthReport(domain=identity.domain, checked_at=clock.now(), findings=tuple(findings))


def _signed(identity: Identity, findings: Sequence[Finding]) -> bool | None:
    if not identity.selectors or any(finding.verdict is RecordVerdict.UNKNOWN for finding in findings):
        return None
    broken = {finding.subject for finding in findings if finding.verdict is RecordVerdict.FAIL}
    return len(broken) < len(identity.selectors)


@dataclass(frozen=True, kw_only=True)
class Change:
    """The difference between two reports."""

    new: tuple[Finding, ...]
    gone: tuple[Finding, ...]


def difference(before: Sequence[Finding], now: Sequence[Finding]) -> Change:
    """Compare two reports by code and subject. What got no answer in either report counts as unchanged."""
    unanswered = {_scope(finding) for finding in (*before, *now) if finding.verdict is RecordVerdict.UNKNOWN}
    known_before = {finding.key for finding in before}
    known_now = {finding.key for finding in now}
    return Change(
        new=tuple(f for f in now if f.key not in known_before and _scope(f) not in unanswered),
        gone=tuple(f for f in before if f.key not in known_now and _scope(f) not in unanswered),
    )


def _scope(finding: Finding) -> tuple[str, str]:
    """Return what an unanswered query leaves unknown: a standard, or for blocklists one subject at one list."""
    return finding.standard, finding.subject if finding.standard is Standard.DNSBL else ""

"""Postroad's checks as a contestant: all domains at once, the resolver keeps its questions down by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from benchmarks.dns_contract import Checker, run
from benchmarks.domains import SELECTOR
from postroad.clock import SystemClock
from postroad.dns.checks import dane, dkim, dmarc, mx, records, spf
from postroad.dns.finding import RecordVerdict
from postroad.dns.identity import Identity
from postroad.dns.mta_sts import find_policy_id
from postroad.dns.resolver import Resolver
from postroad.settings import DnsSettings

_WELL = {RecordVerdict.PASS, RecordVerdict.INFO}


def check(host: str, port: int, domains: Sequence[str]) -> int:
    return asyncio.run(_check(DnsSettings(nameservers=(f"{host}:{port}",)), domains))


async def _check(settings: DnsSettings, domains: Sequence[str]) -> int:
    async with Resolver(settings, SystemClock()) as resolver:
        return sum(await asyncio.gather(*(_is_well(resolver, domain) for domain in domains)))


async def _is_well(resolver: Resolver, domain: str) -> bool:
    """As `check_identity`, without what takes HTTPS (the policy of MTA-STS) or an address that mail leaves from."""
    identity = Identity(domain=domain, selectors=(SELECTOR,))
    _, policy_id = await find_policy_id(resolver, domain)
    found = await asyncio.gather(
        spf.check(resolver, identity),
        dkim.check(resolver, identity),
        dmarc.check(resolver, identity, signed=True),
        mx.check(resolver, identity),
        records.check_tls_rpt(resolver, identity),
        dane.check(resolver, identity),
        records.check_bimi(resolver, identity),
    )
    return policy_id is not None and all(finding.verdict in _WELL for each in found for finding in each)


if __name__ == "__main__":
    run(
        Checker(
            packages=("postroad", "dnspython"),
            how=f"all domains at once, at most {DnsSettings().concurrency} concurrent queries; also DKIM",
            source="docs/reference/settings.md",
            check=check,
        )
    )

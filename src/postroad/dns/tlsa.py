"""Which certificates a mail host may show: TLSA records (RFC 6698) as SMTP uses them (RFC 7672)."""

from __future__ import annotations

from dataclasses import dataclass

from postroad.dns.lookup import Lookup, LookupStatus
from postroad.dns.record import Tlsa
from postroad.dns.resolver import Resolver


@dataclass(frozen=True, kw_only=True)
class HostCertificates:
    """What DNS says of a host's certificates. Without ``answered`` nothing may be sent there (RFC 7672 §2.1)."""

    answered: bool
    records: tuple[Tlsa, ...] = ()
    why: str = ""


NO_TLSA = HostCertificates(answered=True)


async def find_certificates(
    resolver: Resolver, host: str, port: int, addresses: tuple[Lookup, Lookup]
) -> HostCertificates:
    """TLSA records of a host, only where DNSSEC vouches for them. ``addresses``: its A and AAAA.

    RFC 7672 §2.2.2: a host whose addresses are not signed has none, and is not even asked.
    """
    held = [lookup for lookup in addresses if lookup.status is LookupStatus.RECORDS]
    if not held or not all(lookup.secure for lookup in held):
        return NO_TLSA
    answer = await resolver.lookup(f"_{port}._tcp.{host}", "TLSA")
    match answer.status:
        case LookupStatus.RECORDS if answer.secure:
            return HostCertificates(answered=True, records=tuple(r for r in answer.records if isinstance(r, Tlsa)))
        case LookupStatus.NO_ANSWER:
            # Whoever can suppress an answer could take the protection away: no answer is not "none".
            return HostCertificates(answered=False, why=answer.why)
        case _:
            return NO_TLSA

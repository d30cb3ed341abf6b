"""Finds the TLSA records (RFC 6698) that a mail host's certificate must match in SMTP (RFC 7672)."""

from __future__ import annotations

from dataclasses import dataclass

from postroad.dns.lookup import Lookup, LookupStatus
from postroad.dns.record import Tlsa
from postroad.dns.resolver import Resolver


@dataclass(frozen=True, kw_only=True)
class HostCertificates:
    """The TLSA records of a host.

    Attributes:
        answered: Whether DNS answered. If not, no mail may be sent to the host (RFC 7672 §2.1).
        records: The records. Empty: DANE does not apply.
        why: Why there is no answer.
    """

    answered: bool
    records: tuple[Tlsa, ...] = ()
    why: str = ""


NO_TLSA = HostCertificates(answered=True)


async def find_certificates(
    resolver: Resolver, host: str, port: int, addresses: tuple[Lookup, Lookup]
) -> HostCertificates:
    """Look up the TLSA records of a host that DNSSEC validates.

    RFC 7672 §2.2.2: for a host whose addresses are not validated, no TLSA records are looked up.

    Args:
        resolver: Sends the query.
        host: The mail host.
        port: The port of SMTP.
        addresses: The lookups of its A and AAAA records.

    Returns:
        The records.
    """
    existing = [lookup for lookup in addresses if lookup.status is LookupStatus.RECORDS]
    if not existing or not all(lookup.secure for lookup in existing):
        return NO_TLSA
    answer = await resolver.lookup(f"_{port}._tcp.{host}", "TLSA")
    match answer.status:
        case LookupStatus.RECORDS if answer.secure:
            return HostCertificates(answered=True, records=tuple(r for r in answer.records if isinstance(r, Tlsa)))
        case LookupStatus.NO_ANSWER:
            # An attacker who suppresses the answer must not disable DANE: no answer does not mean no records.
            return HostCertificates(answered=False, why=answer.why)
        case _:
            return NO_TLSA

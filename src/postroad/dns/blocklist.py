"""Queries DNS blocklists of addresses and domains (RFC 5782)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from postroad.dns.lookup import LookupStatus
from postroad.dns.resolver import Resolver
from postroad.dns.tags import texts, unanswered_reason

_ANSWERS = ip_network("127.0.0.0/8")
_REFUSALS = ip_network("127.255.255.0/24")
"""Spamhaus's responses to resolvers that it does not serve (public ones, too many queries). Not a listing."""

MEANINGS = {
    "zen.spamhaus.org": {
        "127.0.0.2": "SBL: spam sources",
        "127.0.0.3": "SBL CSS: snowshoe spam",
        "127.0.0.4": "XBL: hijacked machines",
        "127.0.0.5": "XBL: hijacked machines",
        "127.0.0.6": "XBL: hijacked machines",
        "127.0.0.7": "XBL: hijacked machines",
        "127.0.0.9": "DROP: hijacked networks",
        "127.0.0.10": "PBL: the provider says that no mail comes from here",
        "127.0.0.11": "PBL: no mail should come from here",
    },
    "dbl.spamhaus.org": {
        "127.0.1.2": "spam domain",
        "127.0.1.4": "phishing domain",
        "127.0.1.5": "malware domain",
        "127.0.1.6": "botnet domain",
        "127.0.1.102": "abused legitimate domain",
        "127.0.1.103": "abused redirector",
        "127.0.1.104": "abused legitimate domain: phishing",
        "127.0.1.105": "abused legitimate domain: malware",
        "127.0.1.106": "abused legitimate domain: botnet",
    },
}
"""Published meanings of return codes, by list."""

_POLICY = {("zen.spamhaus.org", "127.0.0.10"), ("zen.spamhaus.org", "127.0.0.11")}


class ListingStatus(StrEnum):
    """The result of a query to a list."""

    CLEAR = "clear"
    LISTED = "listed"
    POLICY = "policy"  # no spam was observed, but the network should not send mail
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The result of one list for one address or domain. ``codes``: its return codes, with their meanings."""

    blocklist: str
    status: ListingStatus
    codes: tuple[str, ...] = ()
    reason: str = ""


def query_name(subject: str, blocklist: str) -> str:
    """Return the name to query for an address (with octets or nibbles reversed) or a domain."""
    try:
        ip: IPv4Address | IPv6Address = ip_address(subject)
    except ValueError:
        return f"{subject}.{blocklist}"
    pointer = ip.reverse_pointer
    return f"{pointer.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{blocklist}"


async def query_blocklist(resolver: Resolver, subject: str, blocklist: str) -> Listing:
    """Query a list for an address or a domain.

    Args:
        resolver: Sends the query.
        subject: The address or the domain.
        blocklist: The list's domain.

    Returns:
        The result. A response outside 127.0.0.0/8 does not count: the list is no longer operated.
    """
    name = query_name(subject, blocklist)
    answer = await resolver.lookup(name, "A")
    if answer.status is LookupStatus.NO_ANSWER:
        return Listing(blocklist=blocklist, status=ListingStatus.UNKNOWN, reason=unanswered_reason(answer))
    codes = sorted(answer.addresses)
    if not codes:
        return Listing(blocklist=blocklist, status=ListingStatus.CLEAR)
    if not all(ip_address(code) in _ANSWERS for code in codes):
        why = f"it answers {', '.join(codes)}, which is outside 127.0.0.0/8"
        return Listing(blocklist=blocklist, status=ListingStatus.REFUSED, reason=why)
    if any(ip_address(code) in _REFUSALS for code in codes):
        why = f"it answers {', '.join(codes)}: it does not serve this resolver"
        return Listing(blocklist=blocklist, status=ListingStatus.REFUSED, reason=why)
    reasons = texts(await resolver.lookup(name, "TXT"))
    policy = all((blocklist, code) in _POLICY for code in codes)
    meanings = MEANINGS.get(blocklist, {})
    return Listing(
        blocklist=blocklist,
        status=ListingStatus.POLICY if policy else ListingStatus.LISTED,
        codes=tuple(f"{code} ({meanings[code]})" if code in meanings else code for code in codes),
        reason=" ".join(reasons)[:300],
    )

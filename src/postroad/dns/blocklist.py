"""Lists of addresses and domains that send spam, asked by DNS: RFC 5782."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from postroad.dns.lookup import LookupStatus
from postroad.dns.resolver import Resolver
from postroad.dns.tags import texts, unanswered_reason

_ANSWERS = ip_network("127.0.0.0/8")
_REFUSALS = ip_network("127.255.255.0/24")
"""What Spamhaus answers to resolvers that it does not serve (open ones, too many questions): about nobody."""

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
"""What the answers of lists mean, where they publish it."""

_POLICY = {("zen.spamhaus.org", "127.0.0.10"), ("zen.spamhaus.org", "127.0.0.11")}


class ListingStatus(StrEnum):
    """What a list says."""

    CLEAR = "clear"
    LISTED = "listed"
    POLICY = "policy"  # no spam was seen; the network is not meant to send mail
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What one list says of one address or domain. ``codes``: its answers, with what they mean."""

    blocklist: str
    standing: ListingStatus
    codes: tuple[str, ...] = ()
    reason: str = ""


def question(subject: str, blocklist: str) -> str:
    """Return the name to ask about an address (octets or nibbles reversed) or a domain."""
    try:
        ip: IPv4Address | IPv6Address = ip_address(subject)
    except ValueError:
        return f"{subject}.{blocklist}"
    pointer = ip.reverse_pointer
    return f"{pointer.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{blocklist}"


async def ask(resolver: Resolver, subject: str, blocklist: str) -> Listing:
    """Ask a list about an address or a domain. An answer outside 127.0.0.0/8 is none: the list has ended."""
    name = question(subject, blocklist)
    answer = await resolver.lookup(name, "A")
    if answer.status is LookupStatus.NO_ANSWER:
        return Listing(blocklist=blocklist, standing=ListingStatus.UNKNOWN, reason=unanswered_reason(answer))
    codes = sorted(answer.addresses)
    if not codes:
        return Listing(blocklist=blocklist, standing=ListingStatus.CLEAR)
    if not all(ip_address(code) in _ANSWERS for code in codes):
        why = f"it answers {', '.join(codes)}, which is outside 127.0.0.0/8"
        return Listing(blocklist=blocklist, standing=ListingStatus.REFUSED, reason=why)
    if any(ip_address(code) in _REFUSALS for code in codes):
        why = f"it answers {', '.join(codes)}: it does not serve this resolver"
        return Listing(blocklist=blocklist, standing=ListingStatus.REFUSED, reason=why)
    said = texts(await resolver.lookup(name, "TXT"))
    policy = all((blocklist, code) in _POLICY for code in codes)
    meanings = MEANINGS.get(blocklist, {})
    return Listing(
        blocklist=blocklist,
        standing=ListingStatus.POLICY if policy else ListingStatus.LISTED,
        codes=tuple(f"{code} ({meanings[code]})" if code in meanings else code for code in codes),
        reason=" ".join(said)[:300],
    )

"""Checks whether DNS blocklists contain the sending addresses or the domains (RFC 5782)."""

from __future__ import annotations

import asyncio
from typing import assert_never

from postroad.dns.blocklist import Listing, ListingStatus, query_blocklist
from postroad.dns.finding import Code, Finding, make_finding
from postroad.dns.identity import Identity
from postroad.dns.resolver import Resolver


async def check(resolver: Resolver, identity: Identity) -> list[Finding]:
    """Query each list for each address and each domain."""
    queries = [(ip, blocklist) for ip in identity.sender_ips for blocklist in identity.address_blocklists]
    domains = dict.fromkeys((identity.domain, identity.return_path))
    queries += [(domain, blocklist) for domain in domains for blocklist in identity.domain_blocklists]
    listings = await asyncio.gather(*(query_blocklist(resolver, subject, blocklist) for subject, blocklist in queries))
    return [_finding(subject, listing) for (subject, _), listing in zip(queries, listings, strict=True)]


def _finding(subject: str, listing: Listing) -> Finding:
    about = f"{subject} at {listing.blocklist}"
    match listing.status:
        case ListingStatus.CLEAR:
            return make_finding(Code.DNSBL_OK, about, "not listed")
        case ListingStatus.LISTED:
            seen = "; ".join([*listing.codes, *([listing.reason] if listing.reason else [])])
            remedy = f"Find what was sent, stop it, then ask {listing.blocklist} to take the entry out."
            return make_finding(Code.DNSBL_LISTED, about, seen, remedy=remedy)
        case ListingStatus.POLICY:
            remedy = "Ask the provider of the address, or the list, to allow mail from it."
            return make_finding(Code.DNSBL_POLICY, about, "; ".join(listing.codes), remedy=remedy)
        case ListingStatus.REFUSED:
            remedy = "Ask through a resolver of your own, as the list's terms allow."
            return make_finding(Code.DNSBL_REFUSED, about, listing.reason, remedy=remedy)
        case ListingStatus.UNKNOWN:
            return make_finding(Code.DNSBL_UNKNOWN, about, listing.reason)
        case other:
            assert_never(other)

"""Whether lists of spammers have the sending addresses or the domains: RFC 5782."""

from __future__ import annotations

import asyncio
from typing import assert_never

from postroad.dns.blocklist import Listing, ListingStatus, ask
from postroad.dns.finding import Code, Finding, found
from postroad.dns.identity import Identity
from postroad.dns.resolver import Resolver


async def check(resolver: Resolver, identity: Identity) -> list[Finding]:
    """Return what each list says of each address and each domain."""
    questions = [(ip, blocklist) for ip in identity.sender_ips for blocklist in identity.address_blocklists]
    domains = dict.fromkeys((identity.domain, identity.return_path))
    questions += [(domain, blocklist) for domain in domains for blocklist in identity.domain_blocklists]
    listings = await asyncio.gather(*(ask(resolver, subject, blocklist) for subject, blocklist in questions))
    return [_finding(subject, listing) for (subject, _), listing in zip(questions, listings, strict=True)]


def _finding(subject: str, listing: Listing) -> Finding:
    about = f"{subject} at {listing.blocklist}"
    match listing.standing:
        case ListingStatus.CLEAR:
            return found(Code.DNSBL_OK, about, "not listed")
        case ListingStatus.LISTED:
            seen = "; ".join([*listing.codes, *([listing.reason] if listing.reason else [])])
            remedy = f"Find what was sent, stop it, then ask {listing.blocklist} to take the entry out."
            return found(Code.DNSBL_LISTED, about, seen, remedy=remedy)
        case ListingStatus.POLICY:
            remedy = "Ask the provider of the address, or the list, to allow mail from it."
            return found(Code.DNSBL_POLICY, about, "; ".join(listing.codes), remedy=remedy)
        case ListingStatus.REFUSED:
            remedy = "Ask through a resolver of your own, as the list's terms allow."
            return found(Code.DNSBL_REFUSED, about, listing.reason, remedy=remedy)
        case ListingStatus.UNKNOWN:
            return found(Code.DNSBL_UNKNOWN, about, listing.reason)
        case other:
            assert_never(other)

"""Interprets DNS responses: records, no record, no such name, or no answer."""

from __future__ import annotations

from enum import StrEnum

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.NS import NS
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.ANY.SOA import SOA
from dns.rdtypes.ANY.TLSA import TLSA
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from msgspec import Struct

from postroad.dns.record import Address, Kind, Mx, Pointer, Record, Soa, Tlsa, Txt

MAX_TTL_S = 86_400
MAX_NEGATIVE_TTL_S = 3_600
"""RFC 2308 §5: one to three hours for a negative answer. dnspython takes the TTL from the SOA record, or 300 s."""
UNANSWERED_TTL_S = 10
"""RFC 2308 §7 allows five minutes for a failure; campaigns retry sooner."""


class LookupStatus(StrEnum):
    """The outcome of a lookup."""

    RECORDS = "records"
    NO_RECORD = "no record"  # the name exists, without records of this type
    NO_NAME = "no such name"  # RFC 8020: no name below it exists either
    NO_ANSWER = "no answer"  # SERVFAIL, REFUSED, a timeout or a malformed response: nothing is known


class Lookup(Struct, frozen=True, kw_only=True):
    """The answer to one query. ``secure``: a trusted resolver validated it with DNSSEC."""

    name: str
    kind: Kind
    status: LookupStatus
    records: tuple[Record, ...] = ()
    canonical: str = ""
    """The name at the end of the CNAME chain, without its final dot."""
    secure: bool = False
    ttl_s: int = 0
    why: str = ""
    """If there is no answer: the name servers, and how each of them failed."""

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(record.address for record in self.records if isinstance(record, Address))


class UnusableError(Exception):
    """A response does not answer the query. Another name server may."""


def parse_name(text: str) -> dns.name.Name:
    """Parse a domain name in ASCII or Unicode, with or without its final dot.

    Args:
        text: The name.

    Returns:
        The absolute name.

    Raises:
        ValueError: It is not a valid domain name.
    """
    try:
        return dns.name.from_text(text)
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(str(error)) from None


def name_text(name: dns.name.Name) -> str:
    """Return a name as text, without its final dot. The root is empty."""
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True)


def accept_any_digest_length() -> None:
    """Make dnspython parse TLSA records whose digest has the wrong length for its matching type.

    By default it rejects the whole response, so that one such record would keep mail from a host. RFC 6698 §4.1 has
    clients skip the record as unusable.
    """
    TLSA._cert_length_by_mtype = {}


def interpret(name: dns.name.Name, kind: Kind, response: dns.message.Message, *, trust_ad: bool) -> Lookup:
    """Return the result that a response contains for its query.

    Only records of the name, or of the target of its CNAME chain, count. Other records in the response are ignored.

    Args:
        name: The name in the query.
        kind: The record type in the query.
        response: A response that belongs to the query.
        trust_ad: Whether the AD bit of this server is trusted.

    Returns:
        The result of the lookup.

    Raises:
        UnusableError: The response reports a failure, or contradicts itself.
    """
    rcode = response.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) or not isinstance(response, dns.message.QueryMessage):
        raise UnusableError(f"says {dns.rcode.to_text(rcode)}")
    try:
        chain = response.resolve_chaining()
    except dns.message.ChainTooLong:
        raise UnusableError("has a CNAME loop, or a chain of CNAMEs that is too long") from None
    except dns.message.AnswerForNXDOMAIN:
        raise UnusableError("says that the name does not exist, and has records of it") from None
    except dns.exception.DNSException as error:
        raise UnusableError(str(error)) from None
    records = tuple(dict.fromkeys(map(_record, chain.answer or ())))
    if records:
        status, max_ttl_s = LookupStatus.RECORDS, MAX_TTL_S
    else:
        status = LookupStatus.NO_NAME if rcode == dns.rcode.NXDOMAIN else LookupStatus.NO_RECORD
        max_ttl_s = MAX_NEGATIVE_TTL_S
    asked = name_text(name).lower()
    return Lookup(
        name=asked,
        kind=kind,
        status=status,
        records=records,
        canonical=name_text(chain.canonical_name) if chain.cnames else asked,
        secure=trust_ad and bool(response.flags & dns.flags.AD),
        ttl_s=min(chain.minimum_ttl, max_ttl_s),
    )


def _record(rdata: dns.rdata.Rdata) -> Record:
    match rdata:
        case A() | AAAA():
            return Address(rdata.address)
        case CNAME() | NS() | PTR():
            return Pointer(name_text(rdata.target))
        case MX():
            return Mx(rdata.preference, name_text(rdata.exchange))
        case TXT():
            return Txt(b"".join(rdata.strings))
        case TLSA():
            return Tlsa(rdata.usage, rdata.selector, rdata.mtype, rdata.cert)
        case SOA():
            return Soa(rdata.minimum)
        case _:
            raise UnusableError(f"has a record of type {rdata.rdtype}")

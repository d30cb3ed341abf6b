"""What an answer means: records, none, no such name, or nothing at all."""

from __future__ import annotations

from enum import StrEnum

import dns.rcode
from msgspec import Struct

from postroad.dns.record import Address, Kind, Pointer, Record, Soa
from postroad.dns.wire import NO_ERROR, NO_NAME, Held, Question, Reply

MAX_TTL_S = 86_400
MAX_NEGATIVE_TTL_S = 3_600
"""RFC 2308 §5: one to three hours for what is not there."""
NEGATIVE_TTL_WITHOUT_SOA_S = 300
"""What says nothing of it should not be remembered (RFC 2308 §5), but one check asks the same thing more than once."""
UNANSWERED_TTL_S = 10
"""RFC 2308 §7: a failure may be remembered for five minutes at the most; campaigns want to know sooner."""
MAX_CNAMES = 16


class LookupStatus(StrEnum):
    """What became of a question."""

    RECORDS = "records"
    NO_RECORD = "no record"  # the name is there, without records of this kind
    NO_NAME = "no such name"  # RFC 8020: nor is anything below it
    NO_ANSWER = "no answer"  # SERVFAIL, a refusal, a timeout, nonsense: nothing is known


class Lookup(Struct, frozen=True, kw_only=True):
    """The answer to one question. ``secure``: a resolver that is trusted says that DNSSEC vouches for it."""

    name: str
    kind: Kind
    status: LookupStatus
    records: tuple[Record, ...] = ()
    canonical: str = ""
    """The name at the end of the CNAMEs, without its dot."""
    secure: bool = False
    ttl_s: int = 0
    why: str = ""
    """Of no answer: who was asked, and what each of them did."""

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(record.address for record in self.records if isinstance(record, Address))


class UnusableError(Exception):
    """A server answers, and its answer says nothing of the question. Says why; another server may know."""


def interpret(question: Question, reply: Reply, *, trust_ad: bool) -> Lookup:
    """What a reply says of the question. Raises UnusableError."""
    if reply.rcode not in (NO_ERROR, NO_NAME):
        raise UnusableError(f"says {dns.rcode.to_text(dns.rcode.Rcode(reply.rcode))}")
    canonical, held, ttl_s = _follow(question, reply.answers)
    if held and reply.rcode == NO_NAME:
        raise UnusableError("says that there is no such name, and what is there")
    found = LookupStatus.RECORDS if held else LookupStatus.NO_NAME if reply.rcode == NO_NAME else LookupStatus.NO_RECORD
    if not held:
        ttl_s = min(ttl_s, _negative_ttl_s(canonical, reply.authorities))
    return Lookup(
        name=question.name,
        kind=question.kind,
        status=found,
        records=tuple(dict.fromkeys(each.record for each in held)),
        canonical=canonical,
        secure=trust_ad and reply.authentic,
        ttl_s=min(ttl_s, MAX_TTL_S),
    )


def _follow(question: Question, answers: tuple[Held, ...]) -> tuple[str, list[Held], int]:
    """Follow the CNAMEs (RFC 1034 §4.3.2): the name where they end, the records there, and the least TTL."""
    name, ttl_s = question.name, MAX_TTL_S
    for _ in range(MAX_CNAMES):
        held = [each for each in answers if each.kind == question.kind and each.owner == name.lower()]
        if held:
            return name, held, min(ttl_s, *(each.ttl_s for each in held))
        alias = next((each for each in answers if each.kind == "CNAME" and each.owner == name.lower()), None)
        if alias is None or not isinstance(alias.record, Pointer):
            return name, [], ttl_s
        name, ttl_s = alias.record.target, min(ttl_s, alias.ttl_s)
    raise UnusableError("leads in circles, or too far, by CNAMEs")


def _negative_ttl_s(name: str, authorities: tuple[Held, ...]) -> int:
    """For how long it may be remembered that something is not there: as the SOA of its zone says (RFC 2308 §5)."""
    for each in authorities:
        if isinstance(each.record, Soa) and _is_in(name.lower(), each.owner):
            return min(each.ttl_s, each.record.minimum_s, MAX_NEGATIVE_TTL_S)
    return NEGATIVE_TTL_WITHOUT_SOA_S


def _is_in(name: str, zone: str) -> bool:
    return not zone or name == zone or name.endswith(f".{zone}")

"""Checks DANE for SMTP (RFC 7672): whether TLSA records authenticate the certificates of the domain's mail hosts."""

from __future__ import annotations

from collections.abc import Sequence

from postroad.dns.finding import Code, Finding, make_finding
from postroad.dns.identity import Identity
from postroad.dns.lookup import Lookup, LookupStatus
from postroad.dns.mx import find_mail_hosts
from postroad.dns.record import Kind, Tlsa
from postroad.dns.resolver import Resolver

PORT = 25
_USAGES, _SELECTORS = (2, 3), (0, 1)
"""RFC 7672 §3.1: DANE-TA and DANE-EE only. Other usages cannot be verified."""


async def check(resolver: Resolver, identity: Identity) -> list[Finding]:
    """Check the TLSA records of all mail hosts. With `dns.trust_ad`, the AD bit tells whether DNSSEC validates them."""
    domain = identity.domain
    hosts = await find_mail_hosts(resolver, domain)
    if not hosts.names:
        return []  # The MX check reports this.
    answers = dict(
        zip(
            hosts.names,
            await resolver.lookup_all(*((f"_{PORT}._tcp.{name}", "TLSA") for name in hosts.names)),
            strict=True,
        )
    )
    # RFC 7672 §2.2.2: senders look up TLSA records only if DNSSEC validates the addresses of the host.
    signed = await _signed_hosts(resolver, hosts.names) if hosts.secure else set()
    silent = [name for name, answer in answers.items() if answer.status is LookupStatus.NO_ANSWER and name in signed]
    if silent:
        return [make_finding(Code.DANE_UNKNOWN, domain, f"no answer about the TLSA records of {', '.join(silent)}")]
    protected = [name for name, answer in answers.items() if answer.records]
    if not protected:
        publish = f"_{PORT}._tcp.{hosts.names[0]}. IN TLSA 3 1 1 SHA-256-OF-THE-PUBLIC-KEY"
        remedy = "The zones of the domain and of its mail hosts must be signed with DNSSEC first."
        return [make_finding(Code.DANE_ABSENT, domain, "no TLSA record", remedy=remedy, publish=publish)]
    unsigned = [name for name in protected if not answers[name].secure or name not in signed]
    unusable = [
        name for name in protected if name not in unsigned and not any(map(_is_usable, _records(answers[name])))
    ]
    if unusable:
        seen = f"no record of {', '.join(unusable)} has usage 2 or 3"
        return [make_finding(Code.DANE_UNUSABLE, domain, seen, remedy="Publish 3 1 1, or 2 1 1, records.")]
    if unsigned:
        seen = f"DNSSEC does not validate {', '.join(unsigned) if hosts.secure else f'the MX records of {domain}'}"
        remedy = "Sign the zone. Use a validating resolver, and set dns.trust_ad."
        return [make_finding(Code.DANE_UNSIGNED, domain, seen, remedy=remedy)]
    bare = [name for name in hosts.names if name not in protected]
    if bare:
        return [
            make_finding(Code.DANE_SOME, domain, f"no TLSA record of {', '.join(bare)}", remedy="Publish theirs too.")
        ]
    return [make_finding(Code.DANE_OK, domain, f"TLSA records of {', '.join(protected)}")]


async def _signed_hosts(resolver: Resolver, names: Sequence[str]) -> set[str]:
    kinds: tuple[Kind, ...] = ("A", "AAAA")
    answers = await resolver.lookup_all(*((name, kind) for name in names for kind in kinds))
    existing = [answer for answer in answers if answer.status is LookupStatus.RECORDS]
    return {answer.name for answer in existing} - {answer.name for answer in existing if not answer.secure}


def _records(answer: Lookup) -> list[Tlsa]:
    return [record for record in answer.records if isinstance(record, Tlsa)]


def _is_usable(record: Tlsa) -> bool:
    size = {0: len(record.association), 1: 32, 2: 64}.get(record.matching_type)
    return record.usage in _USAGES and record.selector in _SELECTORS and len(record.association) == size

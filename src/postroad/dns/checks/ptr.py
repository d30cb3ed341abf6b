"""Checks the PTR names of the sending addresses and the name in EHLO (RFC 1912 §2.1, RFC 5321 §2.3.5)."""

from __future__ import annotations

import re
from ipaddress import ip_address

from postroad.dns.finding import Code, Finding, make_finding
from postroad.dns.identity import Identity
from postroad.dns.lookup import Lookup, LookupStatus
from postroad.dns.record import Kind, Pointer
from postroad.dns.resolver import Resolver
from postroad.dns.tags import unanswered_reason

MAX_NAMES = 10
_POOL = re.compile(r"(^|[.-])(dynamic|dyn|dhcp|pool|dsl|adsl|vdsl|dialup|ppp|broadband)[0-9]*([.-]|$)")


async def check(resolver: Resolver, identity: Identity) -> list[Finding]:
    """Check each sending address, and the name in EHLO."""
    if not identity.sender_ips:
        remedy = "Name the addresses that mail leaves from: --sender-ip, or public_addresses of the sender."
        findings = [make_finding(Code.PTR_UNASKED, identity.domain, "no address was named", remedy=remedy)]
        return findings + (await _helo(resolver, identity.helo, {}) if identity.helo else [])
    findings = []
    names: dict[str, set[str]] = {}
    for ip in identity.sender_ips:
        address_findings, confirmed = await _address(resolver, ip, identity.helo)
        findings += address_findings
        if confirmed is not None:
            names[ip] = confirmed
    return findings + (await _helo(resolver, identity.helo, names) if identity.helo else [])


async def _address(resolver: Resolver, ip: str, helo: str | None) -> tuple[list[Finding], set[str] | None]:
    """Check one address. Return the findings, and its names that resolve to it, or None if they are unknown."""
    pointer = ip_address(ip).reverse_pointer
    publish = f"{pointer}. IN PTR {helo or 'NAME-OF-THE-HOST'}."
    remedy = "The provider of the address can set it."
    answer = await resolver.lookup(pointer, "PTR")
    if answer.status is LookupStatus.NO_ANSWER:
        return [make_finding(Code.PTR_UNKNOWN, ip, unanswered_reason(answer))], None
    names = [r.target.lower() for r in answer.records if isinstance(r, Pointer)][:MAX_NAMES]
    if not names:
        return [make_finding(Code.PTR_MISSING, ip, "it has no name", remedy=remedy, publish=publish)], set()
    kind: Kind = "A" if ip_address(ip).version == 4 else "AAAA"
    answers = await resolver.lookup_all(*((name, kind) for name in names))
    confirmed = {name for name, forward in zip(names, answers, strict=True) if _leads_to(forward, ip)}
    if not confirmed:
        if any(forward.status is LookupStatus.NO_ANSWER for forward in answers):
            return [make_finding(Code.PTR_UNKNOWN, ip, f"no answer about {', '.join(names)}")], None
        seen = f"{', '.join(names)} does not resolve to {ip}"
        return [make_finding(Code.PTR_UNCONFIRMED, ip, seen, publish=f"{names[0]}. IN {kind} {ip}")], set()
    if all(_is_generic(name, ip) for name in confirmed):
        return [make_finding(Code.PTR_GENERIC, ip, min(confirmed), remedy=remedy, publish=publish)], confirmed
    return [make_finding(Code.PTR_OK, ip, ", ".join(sorted(confirmed)))], confirmed


def _leads_to(answer: Lookup, ip: str) -> bool:
    return any(ip_address(address) == ip_address(ip) for address in answer.addresses)


def _is_generic(name: str, ip: str) -> bool:
    """Return whether a name contains the address, or a word that is typical of residential connections."""
    if ip_address(ip).version == 4:
        octets = ip.split(".")
        numbers = re.findall(r"\d+", name.partition(".")[0] + "." + name)
        written = [number.lstrip("0") or "0" for number in numbers]
        if all(octet in written for octet in octets) and len(set(octets)) > 1:
            return True
    return bool(_POOL.search(name))


async def _helo(resolver: Resolver, helo: str, names: dict[str, set[str]]) -> list[Finding]:
    """Check whether the name in EHLO resolves to an address, and is a name of each sending address."""
    helo = helo.lower().rstrip(".")
    four, six = await resolver.addresses(helo)
    if LookupStatus.RECORDS not in (four.status, six.status):
        if LookupStatus.NO_ANSWER in (four.status, six.status):
            unanswered = four if four.status is LookupStatus.NO_ANSWER else six
            return [make_finding(Code.PTR_UNKNOWN, helo, unanswered_reason(unanswered))]
        ip = next(iter(names), "ADDRESS-THAT-SENDS")
        kind = "AAAA" if ":" in ip else "A"
        return [make_finding(Code.HELO_NOT_FOUND, helo, "it resolves to no address", publish=f"{helo}. IN {kind} {ip}")]
    differing = [(ip, known) for ip, known in names.items() if known and helo not in known]
    return [
        make_finding(
            Code.HELO_OTHER,
            ip,
            f"it greets as {helo} and is called {', '.join(sorted(known))}",
            remedy=f"Set helo of the sender to {min(known)}, or change the PTR.",
            publish=f"{ip_address(ip).reverse_pointer}. IN PTR {helo}.",
        )
        for ip, known in differing
    ]

"""Checks the mail hosts of the From domain and of the return path (RFC 5321 §5.1, RFC 7505)."""

from __future__ import annotations

from typing import assert_never

from postroad.dns.finding import Code, Finding, make_finding
from postroad.dns.identity import Identity
from postroad.dns.lookup import LookupStatus
from postroad.dns.mx import MailExchange, MailHosts, find_mail_hosts
from postroad.dns.record import Kind
from postroad.dns.resolver import Resolver

_UNALIAS = "Name the host itself in the MX record, or give this name an A or AAAA record in place of the CNAME."


async def check(resolver: Resolver, identity: Identity) -> list[Finding]:
    """Check the mail hosts of both domains."""
    findings: list[Finding] = []
    for domain in dict.fromkeys((identity.domain, identity.return_path)):
        findings += await _check(resolver, domain)
    return findings


async def _check(resolver: Resolver, domain: str) -> list[Finding]:
    hosts = await find_mail_hosts(resolver, domain)
    publish = f"{domain}. IN MX 10 YOUR-MAIL-HOST."
    match hosts.exchange:
        case MailExchange.UNKNOWN:
            return [make_finding(Code.MX_UNKNOWN, domain, hosts.why)]
        case MailExchange.NULL:
            return [make_finding(Code.MX_NULL, domain, hosts.why, publish=publish)]
        case MailExchange.NONE:
            apex = await resolver.lookup(domain, "SOA")
            if apex.status is LookupStatus.NO_NAME:
                remedy = "Is it spelt right, and registered? Make its zone before you send from it."
                return [make_finding(Code.MX_NO_DOMAIN, domain, hosts.why, remedy=remedy)]
            return [make_finding(Code.MX_MISSING, domain, hosts.why, publish=publish)]
        case MailExchange.HOSTS if hosts.implicit:
            seen = "it has an address and no MX"
            return [make_finding(Code.MX_IMPLICIT, domain, seen, publish=f"{domain}. IN MX 10 {domain}.")]
        case MailExchange.HOSTS:
            return await _hosts(resolver, hosts)
        case other:
            assert_never(other)


async def _hosts(resolver: Resolver, hosts: MailHosts) -> list[Finding]:
    kinds: tuple[Kind, ...] = ("A", "AAAA")
    answers = await resolver.lookup_all(*((name, kind) for name in hosts.names for kind in kinds))
    alias = {a.name: a.canonical.lower() for a in answers if a.canonical and a.canonical.lower() != a.name.lower()}
    by_host = {name: {answer.status for answer in answers if answer.name == name} for name in hosts.names}
    silent = [
        name for name, seen in by_host.items() if LookupStatus.NO_ANSWER in seen and LookupStatus.RECORDS not in seen
    ]
    dead = [name for name, seen in by_host.items() if not seen & {LookupStatus.RECORDS, LookupStatus.NO_ANSWER}]
    remedy = "Give it an address, or take it out of the MX records."
    if len(dead) == len(hosts.names):
        return [make_finding(Code.MX_NO_ADDRESS, hosts.domain, f"no address: {', '.join(dead)}", remedy=remedy)]
    findings = [
        make_finding(Code.MX_DEAD_HOST, name, f"a mail host of {hosts.domain} without address", remedy=remedy)
        for name in dead
    ]
    findings += [
        make_finding(Code.MX_CNAME, name, f"a mail host of {hosts.domain} is an alias of {target}", remedy=_UNALIAS)
        for name, target in alias.items()
        if name not in dead
    ]
    findings += [make_finding(Code.MX_UNKNOWN, name, "no answer about its addresses") for name in silent]
    return findings or [make_finding(Code.MX_OK, hosts.domain, ", ".join(name for _, name in hosts.hosts))]

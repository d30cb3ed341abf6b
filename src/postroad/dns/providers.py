"""Which mailbox provider is behind a domain: the roll-up of its mail hosts (providers.toml)."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from importlib.resources import files

import msgspec
import sqlalchemy as sa

from postroad.clock import Clock
from postroad.dns.mx import MailExchange, MailHosts, find_mail_hosts
from postroad.dns.resolver import Resolver
from postroad.store.engine import write
from postroad.store.mail_domain import KnownDomain, keep_domains, put_off_domains

log = logging.getLogger(__name__)

OTHER = "other"
"""The provider of all domains that are no known provider's."""

LEAST_S, MOST_S = 86_400, 7 * 86_400
"""Mail hosts move seldom: looked up again after a day at the earliest, a week at the latest."""
UNANSWERED_S = 600
DEADLINE_S = 5.0
"""How long handing over may wait for DNS, for all domains of a slice together."""
AT_ONCE = 100

MAX_SITE = 255
"""Characters in the name of a site: the store and the gates have room for it."""

# What a gate's name cannot have in it, nor a mail host that is one: DNS carries any octet.
_ODD = re.compile(r"[\s/:]")

# RFC 2606, RFC 6761: nobody's mail hosts are found there.
_NOWHERE = (".test", ".example", ".invalid", ".localhost", ".local")


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of providers.toml."""

    mail_hosts: tuple[str, ...]
    domains: tuple[str, ...] = ()


class ProviderTable:
    """Providers by their mail hosts and best known domains."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self.names = frozenset(providers)
        self._suffixes = {suffix: name for name, found in providers.items() for suffix in found.mail_hosts}
        self._domains = {domain: name for name, found in providers.items() for domain in found.domains}

    def of_domain(self, domain: str) -> str | None:
        """Provider of a domain that everybody knows."""
        return self._domains.get(domain)

    def of_hosts(self, hosts: Iterable[str]) -> str:
        """Provider that all these mail hosts are of; else `other`."""
        names = {self._of_host(host) for host in hosts}
        return names.pop() if len(names) == 1 else OTHER

    def _of_host(self, host: str) -> str:
        # Every suffix begins with a dot: `.google.com` is none of `evilgoogle.com`.
        labels = f".{host}".split(".")[1:]
        for start in range(len(labels)):
            name = self._suffixes.get("." + ".".join(labels[start:]))
            if name is not None:
                return name
        return OTHER


@cache
def provider_table() -> ProviderTable:
    """The table that is shipped."""
    text = (files("postroad.dns") / "providers.toml").read_text("utf-8")
    return ProviderTable(msgspec.convert(tomllib.loads(text), dict[str, Provider]))


def site_of(domain: str, hosts: tuple[str, ...]) -> str:
    """Name of the site that these mail hosts are: readable, and the same for every domain that has them.

    It has `MAX_SITE` characters at the most, whatever DNS said.
    """
    match hosts:
        case ():
            return domain
        case (host,) if len(host) <= MAX_SITE and _ODD.search(host) is None:
            return host
        case _:
            end = f"+{hashlib.sha256(' '.join(hosts).encode()).hexdigest()[:8]}"
            return _ODD.sub("-", hosts[0])[: MAX_SITE - len(end)] + end


def whose(domain: str, hosts: tuple[str, ...]) -> tuple[str, str]:
    """Provider and site of a domain that has these mail hosts. Who is known by the domain's name is both."""
    famous = provider_table().of_domain(domain)
    if famous is not None:
        return famous, famous
    return provider_table().of_hosts(hosts) if hosts else OTHER, site_of(domain, hosts)


class Providers:
    """Finds out whose the domains are that mail is about to go to, and writes it into the store."""

    def __init__(self, resolver: Resolver, engine: sa.Engine, clock: Clock, *, deadline_s: float = DEADLINE_S) -> None:
        self._resolver = resolver
        self._engine = engine
        self._clock = clock
        self._deadline_s = deadline_s
        self._table = provider_table()

    async def learn(self, domains: Iterable[str]) -> int:
        """Look up domains and keep what is found. Returns how many were.

        When DNS is away it takes the deadline and no longer, and what was asked is not asked again for a while:
        nobody's campaign waits for it. Raises UnavailableError when the store is away.
        """
        wanted = {domain for domain in domains if self._needs_lookup(domain)}
        if not wanted:
            return 0
        found: dict[str, KnownDomain] = {}
        todo = iter(wanted)

        async def work() -> None:
            for domain in todo:
                hosts = await find_mail_hosts(self._resolver, domain)
                if hosts.exchange is not MailExchange.UNKNOWN:
                    found[domain] = self._known(domain, hosts)

        workers = [asyncio.create_task(work()) for _ in range(min(AT_ONCE, len(wanted)))]
        try:
            await asyncio.wait(workers, timeout=self._deadline_s)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if len(found) < len(wanted):
            log.warning("DNS answered for %d of %d domains in time; the rest are asked later", len(found), len(wanted))
        await asyncio.to_thread(self._keep, list(found.values()), sorted(wanted - found.keys()))
        return len(found)

    def _needs_lookup(self, domain: str) -> bool:
        return self._table.of_domain(domain) is None and not domain.endswith(_NOWHERE)

    def _known(self, domain: str, hosts: MailHosts) -> KnownDomain:
        provider, site = whose(domain, hosts.names)
        return KnownDomain(
            domain=domain,
            provider=provider,
            site=site,
            expires_at=self._clock.now() + timedelta(seconds=min(max(hosts.ttl_s, LEAST_S), MOST_S)),
        )

    def _keep(self, found: Sequence[KnownDomain], unanswered: Sequence[str]) -> None:
        until = self._clock.now() + timedelta(seconds=UNANSWERED_S)
        with write(self._engine) as connection:
            keep_domains(connection, found)
            put_off_domains(connection, [KnownDomain(domain, OTHER, domain, until) for domain in unanswered])

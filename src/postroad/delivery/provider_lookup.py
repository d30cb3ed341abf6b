"""Looks up the mailbox provider of each domain that mail is about to go to, and stores it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta

import sqlalchemy as sa

from postroad.clock import Clock
from postroad.dns.mx import MailExchange, MailHosts, find_mail_hosts
from postroad.dns.providers import OTHER_PROVIDERS, provider_for, provider_table
from postroad.dns.resolver import Resolver
from postroad.store.engine import write
from postroad.store.mail_domain import KnownDomain, save_domains, set_next_lookup

log = logging.getLogger(__name__)

MIN_AGE_S, MAX_AGE_S = 86_400, 7 * 86_400
"""Bounds of the cache lifetime: mail hosts rarely change, whatever the TTL."""
RETRY_UNANSWERED_S = 600
DEADLINE_S = 5.0
"""Timeout of a submission for the lookups of all its domains together."""
MAX_CONCURRENT_LOOKUPS = 100

# RFC 2606, RFC 6761: names without mail hosts in public DNS.
_NOWHERE = (".test", ".example", ".invalid", ".localhost", ".local")


class Providers:
    """Looks up the providers of domains and stores them."""

    def __init__(self, resolver: Resolver, engine: sa.Engine, clock: Clock, *, deadline_s: float = DEADLINE_S) -> None:
        self._resolver = resolver
        self._engine = engine
        self._clock = clock
        self._deadline_s = deadline_s
        self._table = provider_table()

    async def look_up(self, domains: Iterable[str]) -> int:
        """Look up domains, and store the result.

        It ends at the deadline, so that no campaign waits for DNS. A domain without an answer is not looked up again
        for RETRY_UNANSWERED_S seconds, and its stored row is kept.

        Args:
            domains: The domains. Those that are well known or reserved are skipped.

        Returns:
            The number of domains that DNS answered for.

        Raises:
            UnavailableError: The database is unavailable.
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

        workers = [asyncio.create_task(work()) for _ in range(min(MAX_CONCURRENT_LOOKUPS, len(wanted)))]
        try:
            await asyncio.wait(workers, timeout=self._deadline_s)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if len(found) < len(wanted):
            log.warning(
                "DNS answered for %d of %d domains in time; the others are looked up later", len(found), len(wanted)
            )
        await asyncio.to_thread(self._store, list(found.values()), sorted(wanted - found.keys()))
        return len(found)

    def _needs_lookup(self, domain: str) -> bool:
        return self._table.of_domain(domain) is None and not domain.endswith(_NOWHERE)

    def _known(self, domain: str, hosts: MailHosts) -> KnownDomain:
        provider, site = provider_for(domain, hosts.names)
        return KnownDomain(
            domain=domain,
            provider=provider,
            site=site,
            expires_at=self._clock.now() + timedelta(seconds=min(max(hosts.ttl_s, MIN_AGE_S), MAX_AGE_S)),
        )

    def _store(self, found: Sequence[KnownDomain], unanswered: Sequence[str]) -> None:
        until = self._clock.now() + timedelta(seconds=RETRY_UNANSWERED_S)
        with write(self._engine) as connection:
            save_domains(connection, found)
            set_next_lookup(connection, [KnownDomain(domain, OTHER_PROVIDERS, domain, until) for domain in unanswered])

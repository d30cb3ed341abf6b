"""Caches MTA-STS policies in the store until they expire (RFC 8461)."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from postroad.clock import Clock
from postroad.dns.mta_sts import MtaStsPolicy, PolicyError, StsMode, fetch_policy, find_policy_id
from postroad.dns.public_address import Network
from postroad.dns.resolver import Resolver
from postroad.errors import UnavailableError
from postroad.store.engine import read, write
from postroad.store.sts_policy import StsPolicy, find_sts_policy, save_sts_policy

log = logging.getLogger(__name__)

RETRY_MS = 300_000
"""Minimum delay after a failed fetch: five minutes (RFC 8461 §3.3)."""

MAX_CACHED = 100_000
"""Domains that this process caches. The store has all."""


class StsPolicies:
    """Policies by domain, shared by all processes through the store."""

    def __init__(
        self,
        resolver: Resolver,
        engine: sa.Engine,
        clock: Clock,
        trust: ssl.SSLContext,
        *,
        https_port: int = 443,
        allowed: Sequence[Network] = (),
    ) -> None:
        """Make the cache.

        Args:
            resolver: Looks up the records of policies.
            engine: Database of the policies.
            clock: The clock.
            trust: TLS context that verifies policy hosts.
            https_port: Port of policy hosts.
            allowed: Networks that are not public, and from which policies are fetched nevertheless.
        """
        self.resolver = resolver
        self._engine = engine
        self._clock = clock
        self._trust = trust
        self._https_port = https_port
        self._allowed = allowed
        self._cached: dict[str, StsPolicy | None] = {}
        self._not_before_ms: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def of(self, domain: str) -> MtaStsPolicy | None:
        """Return the policy of a domain, or None. It never raises: without an answer the cached policy applies."""
        _, policy_id = await find_policy_id(self.resolver, domain)
        cached = await self._unexpired(domain)
        if policy_id is None or (cached is not None and cached.policy_id == policy_id):
            # RFC 8461 §5.1: a policy applies until it expires, even if its record is gone.
            return _policy(cached)
        lock = self._locks.setdefault(domain, asyncio.Lock())
        async with lock:
            cached = await self._unexpired(domain)
            if cached is None or cached.policy_id != policy_id:
                cached = await self._renew(domain, policy_id) or cached
        if not lock.locked():
            self._locks.pop(domain, None)
        return _policy(cached)

    async def _unexpired(self, domain: str) -> StsPolicy | None:
        if domain not in self._cached:
            if len(self._cached) >= MAX_CACHED:
                self._cached.clear()
                self._not_before_ms.clear()
            try:
                self._cached[domain] = await asyncio.to_thread(self._find, domain)
            except UnavailableError:
                return None
        cached = self._cached[domain]
        return cached if cached is not None and cached.expires_at > self._clock.now() else None

    def _find(self, domain: str) -> StsPolicy | None:
        with read(self._engine) as connection:
            return find_sts_policy(connection, domain)

    async def _renew(self, domain: str, policy_id: str) -> StsPolicy | None:
        now_ms = self._clock.now_ms()
        if now_ms < self._not_before_ms.get(domain, 0):
            return None
        try:
            fetched = await fetch_policy(
                self.resolver, domain, self._trust, port=self._https_port, allowed=self._allowed
            )
        except PolicyError as error:
            self._not_before_ms[domain] = now_ms + RETRY_MS
            log.warning("the MTA-STS policy of %s: %s", domain, error)
            return None
        policy = StsPolicy(
            domain=domain,
            policy_id=policy_id,
            mode=fetched.mode,
            hosts="\n".join(fetched.hosts),
            expires_at=self._clock.now() + timedelta(seconds=fetched.max_age_s),
        )
        self._cached[domain] = policy
        try:
            await asyncio.to_thread(self._save, policy)
        except UnavailableError as error:
            log.warning("the MTA-STS policy of %s is cached in this process only: %s", domain, error)
        return policy

    def _save(self, policy: StsPolicy) -> None:
        with write(self._engine) as connection:
            save_sts_policy(connection, policy)


def _policy(cached: StsPolicy | None) -> MtaStsPolicy | None:
    if cached is None:
        return None
    return MtaStsPolicy(mode=StsMode(cached.mode), hosts=tuple(cached.hosts.split()), max_age_s=0)

"""The policies of MTA-STS that hold now: looked up, kept in the store, and kept to until they expire."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from postroad.clock import Clock
from postroad.dns.mta_sts import Policy, PolicyError, StsMode, fetch_policy, find_policy_id
from postroad.dns.public_address import Network
from postroad.dns.resolver import Resolver
from postroad.errors import UnavailableError
from postroad.store.engine import read, write
from postroad.store.sts_policy import StsPolicy, find_sts_policy, save_sts_policy

log = logging.getLogger(__name__)

RETRY_MS = 300_000
"""RFC 8461 §3.3: after a policy could not be fetched, at least five minutes pass."""

MAX_KEPT = 100_000
"""Domains that are remembered in this process; the store remembers the rest."""


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
        """``allowed``: networks that are not public, and that policies are fetched from all the same."""
        self._resolver = resolver
        self._engine = engine
        self._clock = clock
        self._trust = trust
        self._https_port = https_port
        self._allowed = allowed
        self._kept: dict[str, StsPolicy | None] = {}
        self._not_before_ms: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def of(self, domain: str) -> Policy | None:
        """Return the policy that holds for a domain, or None. Never raises: without an answer the last one holds."""
        _, policy_id = await find_policy_id(self._resolver, domain)
        kept = await self._unexpired(domain)
        if policy_id is None or (kept is not None and kept.policy_id == policy_id):
            # RFC 8461 §5.1: a policy holds until it expires, even when the record is gone.
            return _policy(kept)
        lock = self._locks.setdefault(domain, asyncio.Lock())
        async with lock:
            kept = await self._unexpired(domain)
            if kept is None or kept.policy_id != policy_id:
                kept = await self._renew(domain, policy_id) or kept
        if not lock.locked():
            self._locks.pop(domain, None)
        return _policy(kept)

    async def _unexpired(self, domain: str) -> StsPolicy | None:
        if domain not in self._kept:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
                self._not_before_ms.clear()
            try:
                self._kept[domain] = await asyncio.to_thread(self._find, domain)
            except UnavailableError:
                return None
        kept = self._kept[domain]
        return kept if kept is not None and kept.expires_at > self._clock.now() else None

    def _find(self, domain: str) -> StsPolicy | None:
        with read(self._engine) as connection:
            return find_sts_policy(connection, domain)

    async def _renew(self, domain: str, policy_id: str) -> StsPolicy | None:
        now_ms = self._clock.now_ms()
        if now_ms < self._not_before_ms.get(domain, 0):
            return None
        try:
            fetched = await fetch_policy(
                self._resolver, domain, self._trust, port=self._https_port, allowed=self._allowed
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
        self._kept[domain] = policy
        try:
            await asyncio.to_thread(self._keep, policy)
        except UnavailableError as error:
            log.warning("the MTA-STS policy of %s is kept in this process only: %s", domain, error)
        return policy

    def _keep(self, policy: StsPolicy) -> None:
        with write(self._engine) as connection:
            save_sts_policy(connection, policy)


def _policy(kept: StsPolicy | None) -> Policy | None:
    if kept is None:
        return None
    return Policy(mode=StsMode(kept.mode), hosts=tuple(kept.hosts.split()), max_age_s=0)

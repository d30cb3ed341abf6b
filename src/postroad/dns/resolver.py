"""Looks names up at recursive resolvers, with a limit on concurrent queries and a cache.

"No such name", "no record" and "no answer" are three results. A sender that takes the last for one of the others
bounces valid mail, or reports a domain as broken that is not.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self, cast

import dns.exception
import dns.name
import dns.resolver

from postroad.clock import Clock
from postroad.dns.lookup import (
    MAX_NEGATIVE_TTL_S,
    UNANSWERED_TTL_S,
    Lookup,
    LookupStatus,
    UnusableError,
    accept_any_digest_length,
    interpret,
    name_text,
    parse_name,
)
from postroad.dns.record import Kind
from postroad.dns.transport import Server, send_query
from postroad.settings import DnsSettings
from postroad.settings.dns import split_nameserver

MAX_CACHED = 100_000
TRIES = 3
"""A try of one server may take this fraction of the time limit of a lookup."""
MIN_TRY_S = 0.05
MIN_BACKOFF_S, MAX_BACKOFF_S = 0.1, 2.0
"""The delay before the servers that timed out are tried again. It doubles with each round."""

Key = tuple[str, Kind]


class Resolver:
    """Looks names up. Use one per process: the limit on concurrent queries and the cache are its own."""

    def __init__(self, settings: DnsSettings, clock: Clock) -> None:
        accept_any_digest_length()
        self._clock = clock
        self._servers = _servers(settings)
        self._trust_ad = settings.trust_ad
        self._timeout_s = settings.timeout_ms / 1000
        self._concurrency = settings.concurrency
        self._cache: OrderedDict[Key, tuple[Lookup, int]] = OrderedDict()
        self._pending: dict[Key, list[asyncio.Future[Lookup]]] = {}
        self._queue: deque[Key] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for waiters in self._pending.values():
            for waiter in waiters:
                waiter.cancel()

    async def lookup(self, name: str, kind: Kind) -> Lookup:
        """Look up the records of one type (``MX``, ``TXT``, …) at a name.

        Concurrent lookups of the same records share one query.

        Args:
            name: A domain name in ASCII or Unicode.
            kind: The record type.

        Returns:
            The result. A failure is a result too, with the status NO_ANSWER.
        """
        begun = self._begin(name, kind)
        return begun if isinstance(begun, Lookup) else await begun

    async def lookup_all(self, *questions: tuple[str, Kind]) -> list[Lookup]:
        """Look up several names concurrently. The results are in the order of the questions."""
        begun = [self._begin(name, kind) for name, kind in questions]
        return [pending if isinstance(pending, Lookup) else await pending for pending in begun]

    async def addresses(self, name: str) -> tuple[Lookup, Lookup]:
        """Look up the A and the AAAA records of a host."""
        four, six = await self.lookup_all((name, "A"), (name, "AAAA"))
        return four, six

    def _begin(self, name: str, kind: Kind) -> Lookup | asyncio.Future[Lookup]:
        """Return the cached result, or else a future of the result."""
        key = (name.lower().rstrip("."), kind)
        cached = self._cache.get(key)
        if cached is not None:
            lookup, expires_ms = cached
            if self._clock.now_ms() < expires_ms:
                self._cache.move_to_end(key)
                return lookup
        # One future per caller, so that the cancellation of one caller does not cancel the others.
        waiter: asyncio.Future[Lookup] = asyncio.get_running_loop().create_future()
        waiters = self._pending.get(key)
        if waiters is not None:
            waiters.append(waiter)
            return waiter
        self._pending[key] = [waiter]
        self._queue.append(key)
        if len(self._tasks) < self._concurrency:
            self._tasks.add(asyncio.create_task(self._work()))
        return waiter

    async def _work(self) -> None:
        """Look up queued names, one after the other, until the queue is empty."""
        try:
            while self._queue:
                await self._resolve(self._queue.popleft())
        finally:
            # Before the task ends: a waiter that runs first would count this task, and queue a name for no task.
            self._tasks.discard(cast(asyncio.Task[None], asyncio.current_task()))

    async def _resolve(self, key: Key) -> None:
        """Look up a name, cache the result and pass it to all waiting callers."""
        try:
            lookup = await self._query(key)
        except Exception as error:  # A bug is raised in these callers. The task continues for the others.
            for waiter in self._pending.pop(key):
                if not waiter.done():
                    waiter.set_exception(error)
            return
        self._store(key, lookup)
        for waiter in self._pending.pop(key):
            if not waiter.done():
                waiter.set_result(lookup)

    def _store(self, key: Key, lookup: Lookup) -> None:
        self._cache[key] = (lookup, self._clock.now_ms() + lookup.ttl_s * 1000)
        self._cache.move_to_end(key)
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)

    async def _query(self, key: Key) -> Lookup:
        text, kind = key
        try:
            name = parse_name(text)
        except ValueError as error:
            return Lookup(name=text, kind=kind, status=LookupStatus.NO_NAME, why=str(error), ttl_s=MAX_NEGATIVE_TTL_S)
        failures: dict[Server, str] = {}
        lookup = await self._try_servers(name, kind, failures)
        if lookup is not None:
            return lookup
        why = "; ".join(f"{server} {failure}" for server, failure in failures.items())
        asked = name_text(name).lower()
        return Lookup(name=asked, kind=kind, status=LookupStatus.NO_ANSWER, why=why[:500], ttl_s=UNANSWERED_TTL_S)

    async def _try_servers(self, name: dns.name.Name, kind: Kind, failures: dict[Server, str]) -> Lookup | None:
        """Query one server after the other, and those that time out again, until the time limit.

        Args:
            name: The name.
            kind: The record type.
            failures: Is filled with the last failure of each server.

        Returns:
            The first usable answer, or None.
        """
        now_s = asyncio.get_running_loop().time
        end_s = now_s() + self._timeout_s
        timed_out, backoff_s = self._servers, MIN_BACKOFF_S
        while True:
            servers, timed_out = timed_out, []
            for server in servers:
                left_s = end_s - now_s()
                if left_s <= 0:
                    return None
                try_s = min(left_s, max(self._timeout_s / TRIES, MIN_TRY_S))
                try:
                    response = await send_query(server, name, kind, try_s)
                    return interpret(name, kind, response, trust_ad=self._trust_ad)
                except TimeoutError:
                    failures[server] = f"timed out after {try_s * 1000:.0f} ms"
                    timed_out.append(server)
                except (OSError, EOFError, dns.exception.DNSException, UnusableError) as error:
                    failures[server] = str(error) or type(error).__name__
            if not timed_out:
                return None
            await asyncio.sleep(min(backoff_s, max(end_s - now_s(), 0)))
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)


def _servers(settings: DnsSettings) -> Sequence[Server]:
    if settings.nameservers:
        return [Server(*split_nameserver(nameserver)) for nameserver in settings.nameservers]
    try:
        system = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        # resolv.conf(5): if it lists no name server, the one on the local machine is used.
        return [Server("127.0.0.1")]
    return [Server(str(address), system.port) for address in system.nameservers]

"""Questions to recursive resolvers: bounded, cached by TTL, and never an error taken for an answer.

A name that is not there, a record that is not there and a server that does not say are three results. A sender that
takes the last for one of the others bounces good mail, or calls a domain broken that is well.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self, cast

import dns.resolver

from postroad.clock import Clock
from postroad.dns.exchange import Exchange, Server
from postroad.dns.lookup import MAX_NEGATIVE_TTL_S, UNANSWERED_TTL_S, Lookup, LookupStatus, UnusableError, interpret
from postroad.dns.record import Kind
from postroad.dns.wire import Question, WireError, ask_for
from postroad.settings import DnsSettings
from postroad.settings.dns import split_nameserver

MAX_CACHED = 100_000
TRIES = 3
"""Into so many parts the time for a question is divided: as long, one try of one server may take."""
MIN_TRY_S = 0.05
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
"""Between rounds of all servers, twice as long each time."""

Key = tuple[str, Kind]


class Resolver:
    """Asks, and remembers. One for each process: it is what keeps the number of questions at once down."""

    def __init__(self, settings: DnsSettings, clock: Clock) -> None:
        self._clock = clock
        self._servers = _servers(settings)
        self._trust_ad = settings.trust_ad
        self._timeout_s = settings.timeout_ms / 1000
        self._concurrency = settings.concurrency
        self._exchange = Exchange()
        self._cache: OrderedDict[Key, tuple[Lookup, int]] = OrderedDict()
        self._pending: dict[Key, list[asyncio.Future[Lookup]]] = {}
        self._queue: deque[Key] = deque()
        self._askers: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        askers = list(self._askers)
        for asker in askers:
            asker.cancel()
        await asyncio.gather(*askers, return_exceptions=True)
        for waiting in self._pending.values():
            for waiter in waiting:
                waiter.cancel()

    async def lookup(self, name: str, kind: Kind) -> Lookup:
        """Records of a kind (``MX``, ``TXT``, …) at a name. Never raises for what DNS can say or fail to say."""
        known = self._begin(name, kind)
        return known if isinstance(known, Lookup) else await known

    async def lookup_all(self, *questions: tuple[str, Kind]) -> list[Lookup]:
        """Several questions at once, answers in their order."""
        asked = [self._begin(name, kind) for name, kind in questions]
        return [known if isinstance(known, Lookup) else await known for known in asked]

    async def addresses(self, name: str) -> tuple[Lookup, Lookup]:
        """Return the A and the AAAA records of a host."""
        four, six = await self.lookup_all((name, "A"), (name, "AAAA"))
        return four, six

    def _begin(self, name: str, kind: Kind) -> Lookup | asyncio.Future[Lookup]:
        """Return what is remembered, or else what will be known when the question has been asked."""
        key = (name.lower().rstrip("."), kind)
        kept = self._cache.get(key)
        if kept is not None:
            lookup, until_ms = kept
            if self._clock.now_ms() < until_ms:
                self._cache.move_to_end(key)
                return lookup
        # One for each who wants to know: who asked first may go, and takes nobody along.
        waiter: asyncio.Future[Lookup] = asyncio.get_running_loop().create_future()
        waiting = self._pending.get(key)
        if waiting is not None:
            waiting.append(waiter)
            return waiter
        self._pending[key] = [waiter]
        self._queue.append(key)
        if len(self._askers) < self._concurrency:
            self._askers.add(asyncio.create_task(self._ask_what_waits()))
        return waiter

    async def _ask_what_waits(self) -> None:
        """Ask one question after the other, until none waits."""
        try:
            while self._queue:
                await self._ask_and_tell(self._queue.popleft())
        finally:
            # Not when the task has ended: who wakes before that would count on it, and wait for nobody.
            self._askers.discard(cast(asyncio.Task[None], asyncio.current_task()))

    async def _ask_and_tell(self, key: Key) -> None:
        try:
            lookup = await self._ask(key)
        except Exception as error:  # A fault of ours is for those who asked, and not for those who ask next.
            for waiter in self._pending.pop(key):
                if not waiter.done():
                    waiter.set_exception(error)
            return
        self._keep(key, lookup)
        for waiter in self._pending.pop(key):
            if not waiter.done():
                waiter.set_result(lookup)

    def _keep(self, key: Key, lookup: Lookup) -> None:
        self._cache[key] = (lookup, self._clock.now_ms() + lookup.ttl_s * 1000)
        self._cache.move_to_end(key)
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)

    async def _ask(self, key: Key) -> Lookup:
        name, kind = key
        try:
            question = ask_for(name, kind)
        except WireError as error:
            return Lookup(name=name, kind=kind, status=LookupStatus.NO_NAME, why=str(error), ttl_s=MAX_NEGATIVE_TTL_S)
        failures: dict[Server, str] = {}
        lookup = await self._answer_of_any(question, failures)
        if lookup is not None:
            return lookup
        why = "; ".join(f"{server} {failure}" for server, failure in failures.items())
        return Lookup(name=name, kind=kind, status=LookupStatus.NO_ANSWER, why=why[:500], ttl_s=UNANSWERED_TTL_S)

    async def _answer_of_any(self, question: Question, failures: dict[Server, str]) -> Lookup | None:
        """Ask one server after the other, and again who was silent, until one answers or the time is up: None."""
        now_s = asyncio.get_running_loop().time
        end_s = now_s() + self._timeout_s
        silent, pause_s = self._servers, FIRST_PAUSE_S
        while True:
            servers, silent = silent, []
            for server in servers:
                left_s = end_s - now_s()
                if left_s <= 0:
                    return None
                try_s = min(left_s, max(self._timeout_s / TRIES, MIN_TRY_S))
                try:
                    reply = await self._exchange.ask(server, question, try_s)
                    return interpret(question, reply, trust_ad=self._trust_ad)
                except TimeoutError:
                    failures[server] = f"timed out after {try_s * 1000:.0f} ms"
                    silent.append(server)
                except (OSError, EOFError, WireError, UnusableError) as error:
                    failures[server] = str(error) or type(error).__name__
            if not silent:
                return None
            await asyncio.sleep(min(pause_s, max(end_s - now_s(), 0)))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


def _servers(settings: DnsSettings) -> Sequence[Server]:
    if settings.nameservers:
        return [Server(*split_nameserver(place)) for place in settings.nameservers]
    try:
        machine = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        # A machine that says nothing of resolvers has one of its own, or none: resolv.conf(5).
        return [Server("127.0.0.1")]
    return [Server(str(address), machine.port) for address in machine.nameservers]

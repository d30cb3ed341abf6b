"""Questions to recursive resolvers: bounded, cached by TTL, and never an error taken for an answer.

A name that is not there, a record that is not there and a server that does not say are three results. A sender that
takes the last for one of the others bounces good mail, or calls a domain broken that is well.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdatatype
import dns.resolver

from postroad.clock import Clock
from postroad.settings import DnsSettings
from postroad.settings.dns import split_nameserver

MAX_CACHED = 100_000
MAX_TTL_S = 86_400
MAX_NEGATIVE_TTL_S = 3_600
"""RFC 2308 §5: one to three hours for what is not there."""
UNANSWERED_TTL_S = 10
"""RFC 2308 §7: a failure may be remembered for five minutes at the most; campaigns want to know sooner."""
PAYLOAD_BYTES = 1_232
"""What UDP carries without fragments; what is longer is asked for again by TCP (RFC 7766)."""


class Found(StrEnum):
    """What became of a question."""

    RECORDS = "records"
    NO_RECORD = "no record"  # the name is there, without records of this kind
    NO_NAME = "no such name"  # RFC 8020: nor is anything below it
    NO_ANSWER = "no answer"  # SERVFAIL, a refusal, a timeout, nonsense: nothing is known


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """The answer to one question. ``secure``: a resolver that is trusted says that DNSSEC vouches for it."""

    name: str
    kind: str
    found: Found
    records: tuple[dns.rdata.Rdata, ...] = ()
    canonical: str = ""
    """The name at the end of the CNAMEs, without its dot."""
    secure: bool = False
    ttl_s: int = 0
    why: str = ""
    """Of no answer: what was tried."""


class Resolver:
    """Asks, and remembers. One for each process: it is what keeps the number of questions at once down."""

    def __init__(self, settings: DnsSettings, clock: Clock) -> None:
        self._clock = clock
        self._trust_ad = settings.trust_ad
        self._timeout_s = settings.timeout_ms / 1000
        self._asking = asyncio.Semaphore(settings.concurrency)
        self._cache: OrderedDict[tuple[str, str], tuple[Lookup, int]] = OrderedDict()
        self._pending: dict[tuple[str, str], asyncio.Task[Lookup]] = {}
        self._stub = _stub(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pending = list(self._pending.values())
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def lookup(self, name: str, kind: str) -> Lookup:
        """Records of a kind (``MX``, ``TXT``, …) at a name. Never raises for what DNS can say or fail to say."""
        key = (name.lower().rstrip("."), kind)
        kept = self._cache.get(key)
        if kept is not None:
            lookup, until_ms = kept
            if self._clock.now_ms() < until_ms:
                self._cache.move_to_end(key)
                return lookup
        task = self._pending.get(key)
        if task is None:
            task = asyncio.create_task(self._ask_and_keep(key))
            self._pending[key] = task
            task.add_done_callback(lambda _: self._pending.pop(key, None))
        return await asyncio.shield(task)  # Who asked first may go; the others still want to know.

    async def lookup_all(self, *questions: tuple[str, str]) -> list[Lookup]:
        """Several questions at once, answers in their order."""
        asked: list[Coroutine[Any, Any, Lookup]] = [self.lookup(name, kind) for name, kind in questions]
        return list(await asyncio.gather(*asked))

    async def addresses(self, name: str) -> tuple[Lookup, Lookup]:
        """Return the A and the AAAA records of a host."""
        four, six = await self.lookup_all((name, "A"), (name, "AAAA"))
        return four, six

    async def _ask_and_keep(self, key: tuple[str, str]) -> Lookup:
        async with self._asking:
            lookup = await self._ask(*key)
        self._cache[key] = (lookup, self._clock.now_ms() + lookup.ttl_s * 1000)
        self._cache.move_to_end(key)
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return lookup

    async def _ask(self, name: str, kind: str) -> Lookup:
        try:
            absolute = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError) as error:
            return Lookup(name=name, kind=kind, found=Found.NO_NAME, why=str(error), ttl_s=MAX_NEGATIVE_TTL_S)
        try:
            answer = await self._stub.resolve(
                absolute, kind, raise_on_no_answer=False, search=False, lifetime=self._timeout_s
            )
        except dns.resolver.NXDOMAIN as error:
            return self._missing(name, kind, error.response(absolute))  # type: ignore[no-untyped-call]
        except (dns.exception.DNSException, OSError) as error:
            why = str(error) or type(error).__name__
            return Lookup(name=name, kind=kind, found=Found.NO_ANSWER, why=why[:500], ttl_s=UNANSWERED_TTL_S)
        chain = answer.chaining_result
        canonical = chain.canonical_name.to_text(omit_final_dot=True)
        secure = self._secure(answer.response)
        if chain.answer is None:
            ttl_s = min(chain.minimum_ttl, MAX_NEGATIVE_TTL_S)
            return Lookup(name=name, kind=kind, found=Found.NO_RECORD, canonical=canonical, secure=secure, ttl_s=ttl_s)
        return Lookup(
            name=name,
            kind=kind,
            found=Found.RECORDS,
            records=tuple(chain.answer),
            canonical=canonical,
            secure=secure,
            ttl_s=min(chain.minimum_ttl, MAX_TTL_S),
        )

    def _missing(self, name: str, kind: str, response: dns.message.QueryMessage) -> Lookup:
        ttl_s = min(response.resolve_chaining().minimum_ttl, MAX_NEGATIVE_TTL_S)
        return Lookup(name=name, kind=kind, found=Found.NO_NAME, secure=self._secure(response), ttl_s=ttl_s)

    def _secure(self, response: dns.message.Message) -> bool:
        return self._trust_ad and bool(response.flags & dns.flags.AD)


def _stub(settings: DnsSettings) -> dns.asyncresolver.Resolver:
    try:
        stub = dns.asyncresolver.Resolver(configure=not settings.nameservers)
    except dns.resolver.NoResolverConfiguration:
        # A machine that says nothing of resolvers has one of its own, or none: resolv.conf(5).
        stub = dns.asyncresolver.Resolver(configure=False)
        stub.nameservers = ["127.0.0.1"]
    if settings.nameservers:
        places = map(split_nameserver, settings.nameservers)
        stub.nameservers = [dns.nameserver.Do53Nameserver(address, port) for address, port in places]
    stub.use_edns(0, 0, PAYLOAD_BYTES)
    stub.flags = dns.flags.RD | dns.flags.AD  # RFC 6840 §5.7: AD in a question asks for AD in the answer.
    stub.timeout = max(settings.timeout_ms / 1000 / 3, 0.05)  # of one try at one server
    return stub

"""Limits the requests of each client address, over all paths together, in bounded memory."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from fastapi import Request

from postroad.clock import Clock
from postroad.settings import RateSetting, WebSettings

MAX_CLIENTS = 10_000
MAX_HOPS = 20
"""Maximum entries of X-Forwarded-For that are read, from its end, which trusted proxies wrote."""

INVALID_COSTS = 20
"""Number of requests that one with an invalid token or signature counts for."""

Network = IPv4Network | IPv6Network


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse networks in CIDR notation."""
    return tuple(ip_network(text) for text in texts)


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """Return the client address of a request: the last address that is not a trusted proxy.

    Each proxy appends its peer to X-Forwarded-For. Entries before the last untrusted address may be forged.

    Args:
        peer: Address of the TCP peer.
        forwarded_for: Value of X-Forwarded-For.
        trusted: Networks of trusted proxies.

    Returns:
        The IPv4 address, or the /64 network of the IPv6 address, which belongs to one customer.
    """
    address = _parse_address(peer)
    hops = forwarded_for.split(",")[-MAX_HOPS:] if forwarded_for else []
    while address is not None and hops and any(address in network for network in trusted):
        hop = _parse_address(hops.pop())
        if hop is None:
            break
        address = hop
    if address is None:
        return peer
    return str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else str(address)


def is_in(address: str, ranges: Sequence[Network]) -> bool:
    """Return whether an address is in one of these networks."""
    parsed = _parse_address(address)
    return parsed is not None and any(parsed in network for network in ranges)


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


class RateLimiter:
    """Limits the requests of each client per period, by the generic cell rate algorithm (GCRA).

    It stores one timestamp per client, and at most `MAX_CLIENTS` clients. The least recently seen client is removed.
    """

    def __init__(self, rate: RateSetting, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._tat_ms: OrderedDict[str, float] = OrderedDict()  # theoretical arrival time, by client

    def __len__(self) -> int:
        return len(self._tat_ms)

    def wait_s(self, client: str) -> int:
        """Count a request and return 0. Over the limit, return the whole seconds until the next one is allowed."""
        now_ms = self._clock.now_ms()
        tat_ms = max(self._tat_ms.get(client, 0.0), now_ms) + self._rate.per_ms / self._rate.count
        if tat_ms - now_ms > self._rate.per_ms:
            return math.ceil((tat_ms - now_ms - self._rate.per_ms) / 1000)
        self._store(client, tat_ms)
        return 0

    def remaining(self, client: str) -> tuple[int, int]:
        """Return how many requests a client may make at once, and the seconds until its whole limit is free again."""
        used_ms = max(0.0, self._tat_ms.get(client, 0.0) - self._clock.now_ms())
        return int((self._rate.per_ms - used_ms) * self._rate.count // self._rate.per_ms), math.ceil(used_ms / 1000)

    def charge(self, client: str, requests: int) -> None:
        """Count further requests, at most until the next one has to wait a whole period."""
        now_ms = self._clock.now_ms()
        tat_ms = max(self._tat_ms.get(client, 0.0), now_ms) + requests * self._rate.per_ms / self._rate.count
        self._store(client, min(tat_ms, now_ms + 2 * self._rate.per_ms))

    def _store(self, client: str, tat_ms: float) -> None:
        self._tat_ms[client] = tat_ms
        self._tat_ms.move_to_end(client)
        while len(self._tat_ms) > MAX_CLIENTS:
            self._tat_ms.popitem(last=False)


class ClientLimiter:
    """Limits the requests of each client, per period and concurrently, according to the settings."""

    def __init__(self, settings: WebSettings, clock: Clock) -> None:
        self._limits = RateLimiter(settings.rate, clock)
        self._trusted = networks(settings.trusted_proxies)
        self._max_concurrent = settings.connections_per_client
        self._running: Counter[str] = Counter()

    def client_of(self, request: Request) -> str:
        """Return the client address of a request."""
        peer = request.client.host if request.client is not None else "unknown"
        return client_address(peer, ",".join(request.headers.getlist("x-forwarded-for")), self._trusted)

    def wait_s(self, client: str) -> int:
        """Count a request and return 0. Over the limit, return the whole seconds until the next one is allowed."""
        return self._limits.wait_s(client)

    def enter(self, client: str) -> bool:
        """Count a running request. Returns False if the client has too many of them."""
        if self._running[client] >= self._max_concurrent:
            return False
        self._running[client] += 1
        return True

    def leave(self, client: str) -> None:
        """Count a running request as complete."""
        self._running[client] -= 1
        if self._running[client] <= 0:
            del self._running[client]

    def charge_invalid(self, client: str) -> None:
        """Count a request with an invalid token or signature for more than one."""
        self._limits.charge(client, INVALID_COSTS - 1)

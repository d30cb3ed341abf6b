"""Who is asking, and how often: a limit for each client address, in bounded memory, for all paths together."""

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
"""A longer X-Forwarded-For is read from its end, which is the part that trusted proxies wrote."""

INVALID_COSTS = 20
"""Requests that one counts for, in all, whose token or signature is none of ours."""

Network = IPv4Network | IPv6Network


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """Return the address that a limit is kept for: the last one that no trusted proxy has.

    ``forwarded_for``: X-Forwarded-For, to which each proxy appends whom it was asked by; what stands before the
    first that is not trusted may be invented. Of IPv6 it is the /64 network, which is one customer's.
    """
    found = _read(peer)
    hops = forwarded_for.split(",")[-MAX_HOPS:] if forwarded_for else []
    while found is not None and hops and any(found in network for network in trusted):
        hop = _read(hops.pop())
        if hop is None:
            break
        found = hop
    if found is None:
        return peer
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else str(found)


def is_in(address: str, of: Sequence[Network]) -> bool:
    """Return whether an address is in one of these networks."""
    found = _read(address)
    return found is not None and any(found in network for network in of)


def _read(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


class ClientLimits:
    """At most so many requests of one client in so long, at once or spread (generic cell rate algorithm).

    Of each client only one instant is kept, and of no more than `MAX_CLIENTS` clients: who was not seen for longest
    is forgotten first.
    """

    def __init__(self, rate: RateSetting, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._free_ms: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._free_ms)

    def wait_s(self, client: str) -> int:
        """Count a request, and return 0; or, where it is one too many, whole seconds until the next may come."""
        now = self._clock.now_ms()
        free = max(self._free_ms.get(client, 0.0), now) + self._rate.per_ms / self._rate.count
        if free - now > self._rate.per_ms:
            return math.ceil((free - now - self._rate.per_ms) / 1000)
        self._keep(client, free)
        return 0

    def charge(self, client: str, requests: int) -> None:
        """Count as many more requests, up to where the next has to wait a whole period."""
        now = self._clock.now_ms()
        free = max(self._free_ms.get(client, 0.0), now) + requests * self._rate.per_ms / self._rate.count
        self._keep(client, min(free, now + 2 * self._rate.per_ms))

    def _keep(self, client: str, free: float) -> None:
        self._free_ms[client] = free
        self._free_ms.move_to_end(client)
        while len(self._free_ms) > MAX_CLIENTS:
            self._free_ms.popitem(last=False)


class Clients:
    """Whose requests they are, and whether there are too many of them, as the settings say."""

    def __init__(self, settings: WebSettings, clock: Clock) -> None:
        self._limits = ClientLimits(settings.rate, clock)
        self._trusted = networks(settings.trusted_proxies)
        self._most_under_way = settings.connections_per_client
        self._under_way: Counter[str] = Counter()

    def of(self, request: Request) -> str:
        """Return the address that the limit of this request is kept for."""
        peer = request.client.host if request.client is not None else "unknown"
        return client_address(peer, ",".join(request.headers.getlist("x-forwarded-for")), self._trusted)

    def wait_s(self, client: str) -> int:
        """Count a request, and return 0; or, where it is one too many, whole seconds until the next may come."""
        return self._limits.wait_s(client)

    def enter(self, client: str) -> bool:
        """Count a request that is under way. Returns False where the client has too many of them."""
        if self._under_way[client] >= self._most_under_way:
            return False
        self._under_way[client] += 1
        return True

    def leave(self, client: str) -> None:
        """Count a request no more: it is answered."""
        self._under_way[client] -= 1
        if self._under_way[client] <= 0:
            del self._under_way[client]

    def invalid(self, client: str) -> None:
        """Say of a request that was counted that it is none of ours: it counts for more."""
        self._limits.charge(client, INVALID_COSTS - 1)

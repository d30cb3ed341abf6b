"""How much one client may bring: connections at once, and mails in a span of time."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address, ip_address

from postroad.clock import Clock
from postroad.settings import RateSetting

_SWEEP_AT_LEAST = 1024


def client_of(peer: object) -> str | None:
    """Who is at the other end of a connection: an IPv4 address, or the /64 of one of IPv6.

    A site has a whole /64 of IPv6 at the least (RFC 6177), so single addresses of it say nothing. None: a local socket,
    whose client is the operator's own.
    """
    if not isinstance(peer, tuple) or not peer:
        return None
    address = ip_address(str(peer[0]).partition("%")[0])
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))


class Throttle:
    """At most so many mails of each client in a span: the generic cell rate algorithm, one number for each client."""

    def __init__(self, rate: RateSetting, clock: Clock) -> None:
        self._span_ms = float(rate.per_ms)
        self._interval_ms = rate.per_ms / rate.count
        self._clock = clock
        self._used_until_ms: dict[str, float] = {}
        self._sweep_at = _SWEEP_AT_LEAST

    def __len__(self) -> int:
        return len(self._used_until_ms)

    def admits(self, client: str | None) -> bool:
        """Whether one more is in order; if so, it is counted. A local client is not throttled."""
        if client is None:
            return True
        now_ms = float(self._clock.now_ms())
        used_ms = max(self._used_until_ms.get(client, 0.0), now_ms)
        if used_ms + self._interval_ms > now_ms + self._span_ms:
            return False
        self._used_until_ms[client] = used_ms + self._interval_ms
        if len(self._used_until_ms) > self._sweep_at:
            self._sweep(now_ms)
        return True

    def _sweep(self, now_ms: float) -> None:
        self._used_until_ms = {client: ms for client, ms in self._used_until_ms.items() if ms > now_ms}
        self._sweep_at = max(2 * len(self._used_until_ms), _SWEEP_AT_LEAST)


class Connections:
    """Connections that are open, counted by client."""

    def __init__(self, *, most: int, most_per_client: int) -> None:
        self._most = most
        self._most_per_client = most_per_client
        self._open: Counter[str | None] = Counter()

    @property
    def full(self) -> bool:
        """Whether there is no room for another, whoever it is of."""
        return self._open.total() >= self._most

    @property
    def heaviest(self) -> str | None:
        """The client over the network that has most of them, if it has more than one."""
        counts = [(count, client) for client, count in self._open.items() if client is not None and count > 1]
        return max(counts)[1] if counts else None

    def has_its_share(self, client: str | None) -> bool:
        """Whether a client has as many as one may have."""
        return client is not None and self._open[client] >= self._most_per_client

    def enter(self, client: str | None) -> bool:
        """Count one more, or say no. A local client has the whole of them."""
        if self.full or self.has_its_share(client):
            return False
        self._open[client] += 1
        return True

    def leave(self, client: str | None) -> None:
        self._open[client] -= 1
        if self._open[client] <= 0:
            del self._open[client]

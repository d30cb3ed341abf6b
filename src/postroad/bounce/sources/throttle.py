"""Limits each client: its concurrent connections, and its mails per period."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address, ip_address

from postroad.clock import Clock
from postroad.settings import RateSetting

_MIN_SWEEP_SIZE = 1024


def client_of(peer: object) -> str | None:
    """Return the client of a connection: its IPv4 address, or the /64 prefix of its IPv6 address.

    A site has at least a /64 of IPv6 (RFC 6177), so a single address does not identify it.

    Args:
        peer: Socket address of the peer.

    Returns:
        The client. None for a local socket, whose client is the operator's own server.
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
    """Limits the mails of each client per period, by the generic cell rate algorithm (GCRA): one number per client."""

    def __init__(self, rate: RateSetting, clock: Clock) -> None:
        self._period_ms = float(rate.per_ms)
        self._interval_ms = rate.per_ms / rate.count
        self._clock = clock
        self._tat_ms: dict[str, float] = {}  # theoretical arrival time, by client
        self._sweep_size = _MIN_SWEEP_SIZE

    def __len__(self) -> int:
        return len(self._tat_ms)

    def admits(self, client: str | None) -> bool:
        """Return whether a client may send one more mail, and count it if so. A local client has no limit."""
        if client is None:
            return True
        now_ms = float(self._clock.now_ms())
        tat_ms = max(self._tat_ms.get(client, 0.0), now_ms)
        if tat_ms + self._interval_ms > now_ms + self._period_ms:
            return False
        self._tat_ms[client] = tat_ms + self._interval_ms
        if len(self._tat_ms) > self._sweep_size:
            self._sweep(now_ms)
        return True

    def _sweep(self, now_ms: float) -> None:
        self._tat_ms = {client: tat_ms for client, tat_ms in self._tat_ms.items() if tat_ms > now_ms}
        self._sweep_size = max(2 * len(self._tat_ms), _MIN_SWEEP_SIZE)


class ConnectionCounts:
    """Counts the open connections by client."""

    def __init__(self, *, limit: int, limit_per_client: int) -> None:
        self._limit = limit
        self._limit_per_client = limit_per_client
        self._open: Counter[str | None] = Counter()

    @property
    def full(self) -> bool:
        """Whether the total limit is reached."""
        return self._open.total() >= self._limit

    @property
    def heaviest(self) -> str | None:
        """The network client with the most connections, if it has more than one."""
        counts = [(count, client) for client, count in self._open.items() if client is not None and count > 1]
        return max(counts)[1] if counts else None

    def has_its_share(self, client: str | None) -> bool:
        """Return whether a client has reached the limit per client."""
        return client is not None and self._open[client] >= self._limit_per_client

    def enter(self, client: str | None) -> bool:
        """Count one more connection. Returns False if a limit is reached. A local client has the total limit only."""
        if self.full or self.has_its_share(client):
            return False
        self._open[client] += 1
        return True

    def leave(self, client: str | None) -> None:
        """Count one connection less."""
        self._open[client] -= 1
        if self._open[client] <= 0:
            del self._open[client]

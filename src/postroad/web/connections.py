"""Limits the connections of `postroad web`: their number per client, and the duration of each stage of a request.

uvicorn has a timeout for idle connections only. Here the head, the body and the response of a request each have a
timeout, and a client that is not a trusted proxy has a maximum number of connections. At the total limit, a new
connection replaces one of the client with the most connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from postroad.settings import WebSettings
from postroad.web.rate_limit import Network, client_address, is_in, networks

log = logging.getLogger(__name__)

FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"


class ConnectionStage(StrEnum):
    """Stage of a connection, by what it waits for."""

    HEAD = "head"  # the head of a request; includes an idle connection
    BODY = "body"
    ANSWER = "answer"  # the response, until the client has read it; of one in parts, the next part
    CLOSING = "closing"


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Maximum connections, in total and per client, and the timeout of each stage, in seconds."""

    connections: int = 512
    per_client: int = 64
    head_s: float = 10.0
    body_s: float = 15.0
    answer_s: float = 60.0
    closing_s: float = 5.0
    check_s: float = 1.0
    """Interval of the checks for timeouts."""

    def timeout_s(self, stage: ConnectionStage) -> float:
        """Return the timeout of a stage."""
        match stage:
            case ConnectionStage.HEAD:
                return self.head_s
            case ConnectionStage.BODY:
                return self.body_s
            case ConnectionStage.ANSWER:
                return self.answer_s
            case ConnectionStage.CLOSING:
                return self.closing_s
            case other:
                assert_never(other)


class WebConnectionLimiter:
    """Counts the open connections by client, enforces the limits, and closes connections after a timeout."""

    def __init__(self, limits: ConnectionLimits, trusted: Sequence[Network] = ()) -> None:
        """Store the limits. ``trusted``: networks of proxies, to which the limit per client does not apply."""
        self._limits = limits
        self._trusted = trusted
        self._open: defaultdict[str, dict[BoundedConnection, None]] = defaultdict(dict)  # by client, oldest first
        self._rejected: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def protocol(self, **options: Any) -> BoundedConnection:
        """Return the protocol of a new connection. uvicorn calls this."""
        return BoundedConnection(self, **options)

    def enter(self, connection: BoundedConnection, peer: str) -> bool:
        """Count a connection. Returns False at the limit per client, or at the total limit if none can be closed."""
        client = client_address(peer, "", ())
        if len(self._open.get(client, ())) >= self._limits.per_client and not is_in(peer, self._trusted):
            self._rejected[client] += 1
            return False
        if len(self) >= self._limits.connections and not self._close_one():
            self._rejected[client] += 1
            return False
        self._open[client][connection] = None
        connection.client_key = client
        return True

    def leave(self, connection: BoundedConnection) -> None:
        """Remove a closed connection."""
        connections = self._open.get(connection.client_key, {})
        connections.pop(connection, None)
        if not connections:
            self._open.pop(connection.client_key, None)

    async def watch(self) -> None:
        """Close connections after their timeout, until cancelled."""
        while True:
            await asyncio.sleep(self._limits.check_s)
            self.close_late(asyncio.get_running_loop().time())

    def close_late(self, now_s: float) -> None:
        """Close the connections whose stage exceeds its timeout, and log their number."""
        late: Counter[ConnectionStage] = Counter()
        clients: set[str] = set()
        for client, connections in list(self._open.items()):
            for connection in list(connections):
                stage = connection.update_stage(now_s)
                if now_s - connection.since_s >= self._limits.timeout_s(stage):
                    late[stage] += 1
                    clients.add(client)
                    connection.abort()
        if late or self._rejected:
            stages = ", ".join(f"{count} at {stage}" for stage, count in sorted(late.items()))
            rejected = self._rejected.total()
            clients |= self._rejected.keys()
            log.warning(
                "connections cut off: %s; turned away: %d; clients: %s",
                stages or "0",
                rejected,
                ", ".join(sorted(clients)[:5]) + (f" and {len(clients) - 5} more" if len(clients) > 5 else ""),
            )
            self._rejected.clear()

    def _close_one(self) -> bool:
        """Close the oldest connection without a complete request, of the client that has most connections."""
        for client in sorted(self._open, key=lambda client: -len(self._open[client])):
            for connection in self._open[client]:
                if connection.stage is not ConnectionStage.ANSWER:
                    self._rejected[client] += 1
                    connection.abort()
                    return True
        return False


class _CountedWrites:
    """A transport that counts the writes: each of a response means that the client has read most of those before."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BoundedConnection(H11Protocol):
    """One connection of uvicorn that the limiter counts."""

    def __init__(self, limiter: WebConnectionLimiter, **options: Any) -> None:
        super().__init__(**options)
        self.client_key = ""
        self.since_s = self.loop.time()
        """Loop time at which the current stage was first observed."""
        self._limiter = limiter
        self._entered = False
        self._counted: _CountedWrites | None = None
        self._mark: tuple[ConnectionStage, object, int] = (ConnectionStage.HEAD, None, 0)

    @property
    def stage(self) -> ConnectionStage:
        """Current stage."""
        if self.transport.is_closing():
            return ConnectionStage.CLOSING
        if self.conn.their_state is h11.IDLE:
            return ConnectionStage.HEAD
        return ConnectionStage.BODY if self.conn.their_state is h11.SEND_BODY else ConnectionStage.ANSWER

    def update_stage(self, now_s: float) -> ConnectionStage:
        """Return the stage. If it has changed since the last call, or a part of a response was written, it begins now.

        Args:
            now_s: Loop time.

        Returns:
            The stage.
        """
        mark = (self.stage, self.cycle, self._counted.writes if self._counted is not None else 0)
        if mark != self._mark:
            self._mark, self.since_s = mark, now_s
        return mark[0]

    def abort(self) -> None:
        """Close at once, and discard unsent data."""
        self._leave()
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self._entered = self._limiter.enter(self, str(peer[0]) if peer else "local")
        if not self._entered:
            transport.write(FULL)
            transport.close()
            return
        self._counted = _CountedWrites(transport)
        super().connection_made(self._counted)  # type: ignore[arg-type]  # as a transport

    def data_received(self, data: bytes) -> None:
        if self._entered and not self.transport.is_closing():
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.flow is not None:
            self._leave()
            super().connection_lost(exc)

    def _leave(self) -> None:
        if self._entered:
            self._entered = False
            self._limiter.leave(self)


def limiter_of(settings: WebSettings) -> WebConnectionLimiter:
    """Return the limiter of the settings."""
    limits = ConnectionLimits(connections=settings.connections, per_client=settings.connections_per_client)
    return WebConnectionLimiter(limits, networks(settings.trusted_proxies))

"""Connections of `postroad web`: how many one client may have, and how long each step of a request may take.

uvicorn has a deadline for idle connections only. Here a request has one for its head, its body and its answer, and a
client that is not a trusted proxy has a share of the connections. When all are taken, a new connection replaces one of
the client that has most of them.
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
from postroad.web.clients import Network, client_address, is_in, networks

log = logging.getLogger(__name__)

FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"


class ConnectionStage(StrEnum):
    """What a connection waits for."""

    HEAD = "head"  # of a request; also one that is idle
    BODY = "body"
    ANSWER = "answer"  # of ours, and that the client reads it
    CLOSING = "closing"


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """How many connections there may be, and seconds that each stage may take."""

    connections: int = 512
    per_client: int = 64
    head_s: float = 10.0
    body_s: float = 15.0
    answer_s: float = 60.0
    closing_s: float = 5.0
    look_s: float = 1.0
    """How often deadlines are checked."""

    def seconds(self, stage: ConnectionStage) -> float:
        """Return how long a stage may take."""
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
    """Knows the open connections, counts them by client, and closes those that pass a deadline."""

    def __init__(self, limits: ConnectionLimits, trusted: Sequence[Network] = ()) -> None:
        """``trusted``: proxies, which have many clients: the share of one client does not hold for them."""
        self._limits = limits
        self._trusted = trusted
        self._open: defaultdict[str, dict[BoundedConnection, None]] = defaultdict(dict)  # by client, oldest first
        self._turned_away: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def protocol(self, **options: Any) -> BoundedConnection:
        """Return the protocol of a new connection, as uvicorn asks for it."""
        return BoundedConnection(self, **options)

    def enter(self, connection: BoundedConnection, peer: str) -> bool:
        """Count a connection. Returns False where its client has too many, or all have and none can be closed."""
        client = client_address(peer, "", ())
        if len(self._open.get(client, ())) >= self._limits.per_client and not is_in(peer, self._trusted):
            self._turned_away[client] += 1
            return False
        if len(self) >= self._limits.connections and not self._close_one():
            self._turned_away[client] += 1
            return False
        self._open[client][connection] = None
        connection.client_key = client
        return True

    def leave(self, connection: BoundedConnection) -> None:
        """Count a connection no more."""
        of_client = self._open.get(connection.client_key, {})
        of_client.pop(connection, None)
        if not of_client:
            self._open.pop(connection.client_key, None)

    async def watch(self) -> None:
        """Close the connections that pass a deadline, for as long as this runs."""
        while True:
            await asyncio.sleep(self._limits.look_s)
            self.look(asyncio.get_running_loop().time())

    def look(self, now_s: float) -> None:
        """Close the connections whose stage has lasted too long, and log how many."""
        late: Counter[ConnectionStage] = Counter()
        clients: set[str] = set()
        for client, connections in list(self._open.items()):
            for connection in list(connections):
                stage = connection.look(now_s)
                if now_s - connection.since_s >= self._limits.seconds(stage):
                    late[stage] += 1
                    clients.add(client)
                    connection.abort()
        if late or self._turned_away:
            stages = ", ".join(f"{count} at {stage}" for stage, count in sorted(late.items()))
            turned_away = self._turned_away.total()
            clients |= self._turned_away.keys()
            log.warning(
                "connections cut off: %s; turned away: %d; clients: %s",
                stages or "0",
                turned_away,
                ", ".join(sorted(clients)[:5]) + (f" and {len(clients) - 5} more" if len(clients) > 5 else ""),
            )
            self._turned_away.clear()

    def _close_one(self) -> bool:
        """Close the oldest connection without a complete request, of the client that has most connections."""
        for client in sorted(self._open, key=lambda client: -len(self._open[client])):
            for connection in self._open[client]:
                if connection.stage is not ConnectionStage.ANSWER:
                    self._turned_away[client] += 1
                    connection.abort()
                    return True
        return False


class BoundedConnection(H11Protocol):
    """One connection, as uvicorn serves it. The door has to let it in first."""

    def __init__(self, door: WebConnectionLimiter, **options: Any) -> None:
        super().__init__(**options)
        self.client_key = ""
        self.since_s = self.loop.time()
        """When its stage began, as far as was looked."""
        self._door = door
        self._entered = False
        self._mark: tuple[ConnectionStage, object] = (ConnectionStage.HEAD, None)

    @property
    def stage(self) -> ConnectionStage:
        """What it waits for now."""
        if self.transport.is_closing():
            return ConnectionStage.CLOSING
        if self.conn.their_state is h11.IDLE:
            return ConnectionStage.HEAD
        return ConnectionStage.BODY if self.conn.their_state is h11.SEND_BODY else ConnectionStage.ANSWER

    def look(self, now_s: float) -> ConnectionStage:
        """Return the stage, and set when it began if it is another one than at the last look."""
        mark = (self.stage, self.cycle)
        if mark != self._mark:
            self._mark, self.since_s = mark, now_s
        return mark[0]

    def abort(self) -> None:
        """Close at once, whatever was not sent yet."""
        self._leave()
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self._entered = self._door.enter(self, str(peer[0]) if peer else "local")
        if not self._entered:
            transport.write(FULL)
            transport.close()
            return
        super().connection_made(transport)

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
            self._door.leave(self)


def door_of(settings: WebSettings) -> WebConnectionLimiter:
    """Return the door that the settings describe."""
    limits = ConnectionLimits(connections=settings.connections, per_client=settings.connections_per_client)
    return WebConnectionLimiter(limits, networks(settings.trusted_proxies))

"""A faulty connection between clients and their server: it drops replies, and delivers requests late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

CHUNK_BYTES = 1 << 20
GRACE_S = 0.2


class _Line:
    """The connection of one client, and the one to the server."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.drop_next_reply = False
        self.delay_next_request_s: float | None = None
        self.client_is_gone = False

    def cut(self) -> None:
        for end in (self.client, self.server):
            if end is not None:
                end.transport.abort()


class Proxy:
    """Relays a unix socket."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._lines: set[_Line] = set()
        self.replies_dropped = 0
        self.requests_delayed = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, listen: Path, target: Path) -> AsyncIterator[Proxy]:
        proxy = cls(target)
        server = await asyncio.start_unix_server(proxy._serve, listen, limit=CHUNK_BYTES)
        try:
            yield proxy
        finally:
            server.close()
            while proxy._lines:
                for line in proxy._lines:
                    line.cut()
                await asyncio.sleep(0.01)

    def drop_replies(self) -> None:
        """Close every connection when the reply to its next request arrives. The client does not get it."""
        for line in self._lines:
            line.drop_next_reply = True

    def delay_requests(self, hold_s: float) -> None:
        """Close every connection at its next request, and deliver that request to the server ``hold_s`` later."""
        for line in self._lines:
            line.delay_next_request_s = hold_s

    async def delivered(self) -> None:
        """Return once every delayed request is delivered."""
        while any(line.client_is_gone for line in self._lines):
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = _Line(writer)
        self._lines.add(line)
        try:
            with suppress(OSError):
                from_server, line.server = await asyncio.open_unix_connection(self._target, limit=CHUNK_BYTES)
                requests = asyncio.create_task(self._requests(line, reader, line.server))
                await self._replies(line, from_server)
                # The client's connection is closed; delayed requests are still delivered.
                if not line.client_is_gone:
                    line.cut()
                await requests
        finally:
            line.cut()
            for end in (line.client, line.server):
                if end is not None:
                    with suppress(OSError):
                        await end.wait_closed()
            self._lines.discard(line)

    async def _requests(self, line: _Line, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if line.delay_next_request_s is not None:
                    line.client_is_gone = True
                    line.client.transport.abort()
                    await asyncio.sleep(line.delay_next_request_s)
                    self.requests_delayed += 1
                    server.write(data)
                    # Time for the server to read it before the connection closes.
                    await asyncio.sleep(GRACE_S)
                    break
                server.write(data)
                await server.drain()
        server.transport.abort()

    async def _replies(self, line: _Line, from_server: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await from_server.read(CHUNK_BYTES):
                if line.drop_next_reply:
                    self.replies_dropped += 1
                    return
                if not line.client_is_gone:
                    line.client.write(data)
                    await line.client.drain()

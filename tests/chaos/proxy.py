"""A bad line between clients and their server: it swallows replies, and delivers requests late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

CHUNK_BYTES = 1 << 20
GRACE_S = 0.2


class _Line:
    """One client's connection, and ours to the server."""

    def __init__(self) -> None:
        self.drop_next_reply = False
        self.client_is_gone = False
        self.delay_next_request_s: float | None = None


class Proxy:
    """Relays a unix socket."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
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
            for task in proxy._tasks:
                task.cancel()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)

    def drop_replies(self) -> None:
        """Cut every connection when the answer to its next request comes: done, and the client does not know."""
        for line in self._lines:
            line.drop_next_reply = True

    def delay_requests(self, hold_s: float) -> None:
        """Cut every connection at its next request, and give that request to the server ``hold_s`` later."""
        for line in self._lines:
            line.delay_next_request_s = hold_s

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = _Line()
        self._lines.add(line)
        try:
            with suppress(OSError):
                await self._relay(line, reader, writer)
        except asyncio.CancelledError:
            pass  # The proxy closes; a cancelled connection handler would be reported as a failure.
        finally:
            self._lines.discard(line)
            writer.close()
            self._tasks.discard(task)

    async def _relay(self, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server: asyncio.StreamWriter
        from_server, to_server = await asyncio.open_unix_connection(self._target, limit=CHUNK_BYTES)
        ways = [
            asyncio.create_task(self._requests(line, reader, writer, to_server)),
            asyncio.create_task(self._replies(line, from_server, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            to_server.close()

    async def _requests(
        self,
        line: _Line,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        to_server: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if line.delay_next_request_s is not None:
                line.client_is_gone = True
                writer.close()
                await asyncio.sleep(line.delay_next_request_s)
                to_server.write(data)
                self.requests_delayed += 1
                # A moment for the server to read it before the connection closes.
                await asyncio.sleep(GRACE_S)
                return
            to_server.write(data)
            await to_server.drain()

    async def _replies(self, line: _Line, from_server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await from_server.read(CHUNK_BYTES):
            if line.drop_next_reply:
                self.replies_dropped += 1
                return
            if not line.client_is_gone:
                writer.write(data)
                await writer.drain()

"""The receiving end of a connection: octets become replies, and each goes to the command that it answers."""

from __future__ import annotations

import asyncio
import re
from collections import deque

MAX_REPLY_OCTETS = 32_768
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)  # RFC 5321 §4.2

Lines = tuple[int, tuple[str, ...]]
"""A reply's code, and what its lines say behind it."""


class Wire(asyncio.Protocol):
    """Pairs replies with the commands that they answer, in order (RFC 2920 §3.1)."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._buffer = bytearray()
        self._lines: list[str] = []
        self._octets = 0  # of the lines so far of a reply of many
        self._waiting: deque[asyncio.Future[Lines]] = deque()
        self.lost: str | None = None  # why nothing more can be said or heard

    def expect(self) -> asyncio.Future[Lines]:
        """Return the reply to the next command, as a future."""
        future: asyncio.Future[Lines] = asyncio.get_running_loop().create_future()
        if self.lost is not None:
            future.set_exception(ConnectionResetError(self.lost))
            future.exception()  # retrieved: nobody need wait for it
        else:
            self._waiting.append(future)
        return future

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self.lost is None and (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._line(line.rstrip(b"\r"))
        if len(self._buffer) + self._octets > MAX_REPLY_OCTETS:
            self._fail("the server's reply has no end")

    def _line(self, line: bytes) -> None:
        match = _LINE.fullmatch(line)
        if match is None:
            self._fail(f"the server does not speak SMTP: {line[:80].decode('utf-8', 'replace')!r}")
            return
        self._lines.append((match[3] or b"").decode("utf-8", "replace"))
        if match[2] == b"-":
            self._octets += len(line) + 2
            return
        lines, self._lines, self._octets = self._lines, [], 0
        if not self._waiting:
            # Nobody asked: a farewell (RFC 5321 §3.8), or a server that has lost count. Either way the next reply
            # might be taken for the answer to something else.
            self._fail(f"the server spoke unasked: {' '.join([match[1].decode(), *lines])[:200]}")
            return
        future = self._waiting.popleft()
        if not future.done():
            future.set_result((int(match[1]), tuple(lines)))

    def _fail(self, reason: str) -> None:
        self.transport.abort()
        self._lose(reason)

    def eof_received(self) -> None:
        self._lose("the server closed the connection")

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(str(error) if error else "the connection was closed")

    def _lose(self, reason: str) -> None:
        self.lost = self.lost or reason
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(ConnectionResetError(self.lost))
                future.exception()

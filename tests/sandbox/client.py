"""A raw SMTP client, and a clock that a test advances."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Self

LIMIT_S = 10.0


class Wire:
    """Sends exactly the given octets, and returns replies as text."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._address = (host, port)
        self._tls = tls

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(
            *self._address, ssl=self._tls, server_hostname="localhost" if self._tls else None
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.transport.abort()

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def reply(self) -> str:
        """Return one complete reply, its lines joined by newlines."""
        lines: list[str] = []
        async with asyncio.timeout(LIMIT_S):
            while True:
                line = (await self.reader.readuntil(b"\r\n")).decode()[:-2]
                lines.append(line)
                if line[3:4] != "-":
                    return "\n".join(lines)

    async def ask(self, command: str) -> str:
        self.send(command.encode() + b"\r\n")
        return await self.reply()

    async def greeted(self, *, hello: str = "EHLO client.test") -> str:
        """Read the greeting, and return the reply to EHLO."""
        assert (await self.reply()).startswith("220 ")
        return await self.ask(hello)

    async def envelope(self, sender: str = "ann@from.test", recipient: str = "bob@to.test") -> str:
        """Send MAIL and RCPT. Return the reply to RCPT."""
        assert (await self.ask(f"MAIL FROM:<{sender}>")).startswith("250")
        return await self.ask(f"RCPT TO:<{recipient}>")

    async def deliver(self, content: bytes = b"Subject: hi\r\n\r\nhello\r\n", recipient: str = "bob@to.test") -> str:
        """Run a complete transaction. Return the reply to the final dot."""
        assert (await self.envelope(recipient=recipient)).startswith("250")
        assert (await self.ask("DATA")).startswith("354")
        self.send(content + b".\r\n")
        return await self.reply()

    async def rest(self) -> bytes:
        """Return everything up to the end of the connection. Fails if the server does not close it."""
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.read()

"""An SMTP client that sends given octets unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Wire:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> str:
        """One reply, of as many lines as it has."""
        lines = []
        async with asyncio.timeout(20):
            while True:
                line = (await self.reader.readline()).decode()
                lines.append(line)
                if line[3:4] != "-":
                    return "".join(lines).replace("\r\n", "\n").rstrip("\n")

    async def say(self, text: str | bytes) -> str:
        self.writer.write((text if isinstance(text, bytes) else text.encode()) + b"\r\n")
        return await self.reply()

    async def mail(self, recipient: str, content: bytes, mail_from: str = "") -> str:
        """The last reply of a whole transaction, or the first that refuses."""
        for line in (f"MAIL FROM:<{mail_from}>", f"RCPT TO:<{recipient}>", "DATA"):
            said = await self.say(line)
            if said[0] not in "23":
                await self.say("RSET")
                return said
        return await self.say(dotted(content))


def dotted(content: bytes) -> bytes:
    lines = content.removesuffix(b"\r\n").split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines) + b"\r\n."


@asynccontextmanager
async def connected(place: str, hello: str = "EHLO mx.example.org") -> AsyncIterator[Wire]:
    if place.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(place.removeprefix("unix:"))
    else:
        host, _, port = place.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    wire = Wire(reader, writer)
    try:
        await wire.reply()
        await wire.say(hello)
        yield wire
    finally:
        writer.close()

"""A receiver of webhooks on loopback, which verifies signatures, and answers as a test tells it to."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from standardwebhooks.webhooks import Webhook

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_" + "b2xkIHNlY3JldCBvZiBhIHJlY2VpdmVyIQ=="

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def status(line: str, *headers: str, body: str = "") -> Answer:
    """Answer with a status, such as ``500 Internal Server Error``, and headers."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content = body.encode("utf-8", "surrogateescape")
        lines = [f"HTTP/1.1 {line}", f"Content-Length: {len(content)}", *headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + content)

    return answer


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Answer nothing, until the client gives up."""
    await reader.read()


async def die(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset the connection within the status."""
    writer.write(b"HTTP/1.1 20")
    await writer.drain()
    writer.transport.abort()


async def twice(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with success, and then with another response that was not asked for."""
    writer.write(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")


async def drip_status(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send the status byte by byte, without end."""
    writer.write(b"HTTP/1.1 200 ")
    while not writer.is_closing():
        writer.write(b"O")
        await writer.drain()
        await asyncio.sleep(0.02)


async def drip_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a status of success at once, and a body without end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a status of success and a body of a megabyte."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + b"x" * 1_048_576)


OK = status("204 No Content")


class Receiver:
    """Verifies each request, and records what arrived: ``events`` by id, ``requests`` in their order."""

    def __init__(self, secret: str = SECRET) -> None:
        self.webhook = Webhook(secret)
        self.requests: list[tuple[dict[str, str], Any]] = []
        self.connections = 0
        self.answers: list[Answer] = []
        self.default: Answer = OK
        self.port = 0
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.requests]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            self.tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = {name.lower(): value for name, value in re.findall(r"(?m)^([\w-]+): (.*?)\r$", head)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.webhook.verify(body, headers)  # Raises for a wrong signature, and the connection breaks.
                self.requests.append((headers, json.loads(body)))
                answer = self.answers.pop(0) if self.answers else self.default
                await answer(reader, writer)
                await writer.drain()


@asynccontextmanager
async def receiving(
    secret: str = SECRET, *, context: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[Receiver]:
    """Run a receiver."""
    receiver = Receiver(secret)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", port, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        tasks = list(receiver.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

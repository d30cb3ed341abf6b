"""An HTTPS server on loopback that says what a test tells it to."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.smtp.conftest import Certificates


class Site:
    """``body``: the response to every request, or a function of the request."""

    def __init__(self, body: str | Callable[[str], str]) -> None:
        self.body = body
        self.status = "200 OK"
        self.headers = "Content-Type: text/plain; charset=utf-8"
        self.requests: list[str] = []
        self.port = 0
        self.ca_file = Path()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"(?i)content-length: (\d+)", head)
            request = head + (await reader.readexactly(int(length[1]) if length else 0)).decode()
            self.requests.append(request)
            body = (self.body if isinstance(self.body, str) else self.body(request)).encode()
            said = (
                f"HTTP/1.1 {self.status}\r\n{self.headers}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(said.encode() + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def https(
    folder: Path, name: str, body: str | Callable[[str], str]
) -> AsyncIterator[tuple[Site, ssl.SSLContext]]:
    """A site that has a certificate for this name, and what trusts it."""
    certificates = Certificates(folder, names=(name,))
    site = Site(body)
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0, ssl=certificates.server_context())
    site.port = server.sockets[0].getsockname()[1]
    site.ca_file = certificates.ca_file
    trust = ssl.create_default_context(cafile=str(certificates.ca_file))
    async with server:
        yield site, trust

"""Serves the metrics and the health of a process: a few read-only paths over HTTP, without a framework."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import NamedTuple

from postroad.errors import ConfigError

logger = logging.getLogger(__name__)

MAX_REQUEST_S = 10.0


class PathReply(NamedTuple):
    """The response of one path."""

    status: HTTPStatus
    media_type: str
    body: bytes


ReplyFunction = Callable[[], Awaitable[PathReply]]


@asynccontextmanager
async def serve_paths(paths: Mapping[str, ReplyFunction], *, host: str, port: int) -> AsyncIterator[int]:
    """Reply to ``GET`` requests of these paths while this is open. Every other request gets 404.

    Args:
        paths: Function of each path, which makes its response.
        host: Address to listen at.
        port: Port. 0: any free one.

    Yields:
        The port.

    Raises:
        ConfigError: The address cannot be used.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(MAX_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await _response(head, paths))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            logger.debug("a request for metrics or health was not answered: %s", error)
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(answer, host, port)
    except OSError as error:
        raise ConfigError(f"Metrics cannot be served at {host}:{port}: {error}.", remedy="Set another port.") from error
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _response(head: bytes, paths: Mapping[str, ReplyFunction]) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
    if method != b"GET" or path not in paths:
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    reply = await paths[path]()
    return (
        f"HTTP/1.1 {reply.status.value} {reply.status.phrase}\r\nContent-Type: {reply.media_type}\r\n"
        f"Content-Length: {len(reply.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode() + reply.body

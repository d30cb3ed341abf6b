"""Reads the body of a POST within limits of size and time, and parses forms of both encodings."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

MAX_BODY_BYTES = 8_192
BODY_WITHIN_S = 10.0
MAX_FIELDS = 20
MAX_CONTENT_TYPE_CHARACTERS = 300
MAX_HEADER_BYTES = 500


class BodyMemory:
    """Limits the total bytes of request bodies in memory, per client and for all clients.

    It counts received bytes, so a client that sends its body slowly uses no more than it sent.
    """

    def __init__(self, *, max_bytes: int, max_bytes_per_client: int) -> None:
        self._max_bytes = max_bytes
        self._max_bytes_per_client = max_bytes_per_client
        self._used: Counter[str] = Counter()

    @contextmanager
    def reserve(self, client: str) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves bytes for one body until the block ends. It raises HTTPException at a limit.

        Args:
            client: Client address.

        Yields:
            The function, which takes a number of bytes.

        Raises:
            HTTPException: 503, if a limit is reached.
        """
        reserved = 0

        def reserve(count: int) -> None:
            nonlocal reserved
            used = self._used
            if used[client] + count > self._max_bytes_per_client or used.total() + count > self._max_bytes:
                raise HTTPException(503, "later", {"Connection": "close", "Retry-After": "60"})
            used[client] += count
            reserved += count

        try:
            yield reserve
        finally:
            self._used[client] -= reserved
            if self._used[client] <= 0:
                del self._used[client]


async def read_body(
    request: Request,
    within_s: float = BODY_WITHIN_S,
    *,
    max_bytes: int = MAX_BODY_BYTES,
    reserve: Callable[[int], None] | None = None,
) -> bytes:
    """Return the body of a request.

    Args:
        request: The request.
        within_s: Timeout, in seconds.
        max_bytes: Maximum size.
        reserve: Reserves the bytes of each chunk: see `BodyMemory`. It may raise.

    Returns:
        The body.

    Raises:
        HTTPException: 413 if the body is too long, 408 if it is too slow, 400 if the client disconnected.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(within_s):
            async for chunk in request.stream():
                if reserve is not None:
                    reserve(len(chunk))
                body += chunk
                if len(body) > max_bytes:
                    raise HTTPException(413, "too long", {"Connection": "close"})
    except ClientDisconnect:
        # The response is not sent. Without it, a client that disconnects causes a traceback in the log.
        raise HTTPException(400, "gone") from None
    except TimeoutError:
        raise HTTPException(408, "too slow", {"Connection": "close"}) from None
    return bytes(body)


def form_fields(content_type: str, body: bytes) -> dict[str, str]:
    """Return the fields of a form, urlencoded or multipart (RFC 7578), the first value of each name.

    RFC 8058 §3.1 permits both encodings. White space around names and values is removed, because some clients end the
    body with a line break. Parameters such as ``charset`` are ignored.

    Args:
        content_type: Value of Content-Type. Other media types yield no fields.
        body: The body.

    Returns:
        The values, by name.
    """
    match content_type.partition(";")[0].strip().lower():
        case "application/x-www-form-urlencoded":
            pairs = _urlencoded(body)
        case "multipart/form-data" if len(content_type) <= MAX_CONTENT_TYPE_CHARACTERS:
            pairs = _multipart(content_type, body)
        case _:
            pairs = []
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields.setdefault(name.strip(), value.strip())
    return fields


def _urlencoded(body: bytes) -> list[tuple[str, str]]:
    try:
        text = body.decode("utf-8-sig", "replace").strip()
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return []


def _multipart(content_type: str, body: bytes) -> list[tuple[str, str]]:
    """Return the fields of a multipart form (RFC 7578 §4).

    It does not use a mail parser, which takes quadratic time for nested comments and quotes in header fields.
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None or not content_type.isascii():
        return []
    delimiter = b"\r\n--" + (boundary[1] or boundary[2]).encode()
    pairs = []
    body = body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")  # Some clients send bare line feeds.
    # The form ends with the delimiter and two hyphens. Text before the first delimiter is not part of it.
    for part in (b"\r\n" + body).split(delimiter, MAX_FIELDS + 1)[1 : MAX_FIELDS + 1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = next((_NAME.search(line[:MAX_HEADER_BYTES]) for line in head.split(b"\r\n") if _FIELD.match(line)), None)
        if name is not None and not part.startswith(b"--"):
            value = (name[1] if name[1] is not None else name[2]).decode("utf-8", "replace")
            pairs.append((value, content.decode("utf-8", "replace")))
    return pairs


_BOUNDARY = re.compile(r';\s{0,9}boundary\s{0,9}=\s{0,9}(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_FIELD = re.compile(rb"content-disposition[ \t]{0,9}:", re.IGNORECASE)
_NAME = re.compile(rb';\s{0,9}name\s{0,9}=\s{0,9}(?:"([^"]{0,100})"|([^\s;"]{1,100}))', re.IGNORECASE)

"""What a POST carries: read within bounds of size and time, as a form of either encoding."""

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
    """Bounds the bytes of bodies that are in memory: of one client, and of all.

    What counts are bytes that came, not requests: one that sends its body slowly takes no more than it sent.
    """

    def __init__(self, *, most_bytes: int, most_bytes_per_client: int) -> None:
        self._most = most_bytes
        self._most_per_client = most_bytes_per_client
        self._held: Counter[str] = Counter()

    @contextmanager
    def of(self, client: str) -> Iterator[Callable[[int], None]]:
        """Yield what counts bytes of one body, until the block ends. It raises HTTPException where there is no room."""
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if self._held[client] + count > self._most_per_client or self._held.total() + count > self._most:
                raise HTTPException(503, "later", {"Connection": "close", "Retry-After": "60"})
            self._held[client] += count
            taken += count

        try:
            yield take
        finally:
            self._held[client] -= taken
            if self._held[client] <= 0:
                del self._held[client]


async def read_body(
    request: Request,
    within_s: float = BODY_WITHIN_S,
    *,
    max_bytes: int = MAX_BODY_BYTES,
    take: Callable[[int], None] | None = None,
) -> bytes:
    """Return the body of a request. ``take`` counts the bytes of each part; see `BodyMemory`.

    Raises HTTPException: 413 when it is too long, 408 when it is too slow, or what ``take`` raises.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(within_s):
            async for chunk in request.stream():
                if take is not None:
                    take(len(chunk))
                body += chunk
                if len(body) > max_bytes:
                    raise HTTPException(413, "too long", {"Connection": "close"})
    except ClientDisconnect:
        # An answer that is not sent. Otherwise whoever goes away writes a traceback into our log.
        raise HTTPException(400, "gone") from None
    except TimeoutError:
        raise HTTPException(408, "too slow", {"Connection": "close"}) from None
    return bytes(body)


def form_fields(content_type: str, body: bytes) -> dict[str, str]:
    """Return the fields of a form, urlencoded or multipart (RFC 7578), the first of each name. Anything else: none.

    RFC 8058 §3.1 lets senders of the POST use either. White space around names and values is left out: some end the
    body with a line break. Parameters such as ``charset`` do not matter.
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

    Not by a parser of mail: the header fields of a stranger's part have comments that nest, and quotes whose cost
    grows by the square.
    """
    found = _BOUNDARY.search(content_type)
    if found is None or not content_type.isascii():
        return []
    delimiter = b"\r\n--" + (found[1] or found[2]).encode()
    pairs = []
    body = body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")  # Some write bare line feeds.
    # The end of the form is its delimiter with two more hyphens. What stands before the first delimiter is not of it.
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

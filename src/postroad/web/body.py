"""What a POST carries: read within bounds of size and time, as a form of either encoding."""

from __future__ import annotations

import asyncio
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import parse_qsl

from fastapi import HTTPException, Request

MAX_BODY_BYTES = 8_192
BODY_WITHIN_S = 10.0
MAX_FIELDS = 20
MAX_CONTENT_TYPE_CHARACTERS = 300


async def read_body(request: Request, within_s: float = BODY_WITHIN_S, *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return the body of a request. Raises HTTPException: 413 when it is too long, 408 when it is too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(within_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise HTTPException(413, "too long", {"Connection": "close"})
    except TimeoutError:
        raise HTTPException(408, "too slow", {"Connection": "close"}) from None
    return bytes(body)


def form_fields(content_type: str, body: bytes) -> dict[str, str]:
    """Return the fields of a form, urlencoded or multipart (RFC 7578), the first of each name. Anything else: none.

    RFC 8058 §3.1 lets senders of the POST use either.
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
        fields.setdefault(name, value)
    return fields


def _urlencoded(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return []


def _multipart(content_type: str, body: bytes) -> list[tuple[str, str]]:
    try:
        head = b"Content-Type: " + content_type.encode("ascii") + b"\r\n\r\n"
    except UnicodeEncodeError:
        return []
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    if not message.is_multipart():
        return []
    pairs = []
    for part in list(message.iter_parts())[:MAX_FIELDS]:
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            pairs.append((name, content.decode("utf-8", "replace").strip()))
    return pairs

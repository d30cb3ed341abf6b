"""Fetch a small HTTP answer within limits that the server cannot stretch: of time, of size, and of work.

The deadline holds for all of it together: connection, TLS, headers and body. The body is counted as it comes from the
wire, and a content coding is refused, so nothing is unpacked. No redirect is followed. The headers are bounded by h11,
to 100 KiB.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import httpx

_IDENTITY: Final = ("", "identity")


class FetchError(Exception):
    """There is no answer, or it passed a limit. The message says why, and quotes nothing that was sent."""


class Answer(NamedTuple):
    """A complete answer: status code, headers, and the body as it was sent."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def media_type(self) -> str:
        """The media type, in lower case and without parameters. Empty: none is given."""
        content_type: str = self.headers.get("Content-Type", "")
        return content_type.partition(";")[0].strip().lower()


async def fetch(
    client: httpx.AsyncClient,
    url: str,
    *,
    within_s: float,
    max_bytes: int,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    **request: Any,
) -> Answer:
    """Send a request and return the complete answer, whatever its status.

    Args:
        client: What connects. Its own timeouts do not count.
        url: An absolute URL.
        within_s: Deadline of everything together, in seconds.
        max_bytes: Size of the largest body.
        method: The request's method.
        headers: The request's own headers.
        request: What else `httpx.AsyncClient.build_request` takes, such as ``data``, ``json`` and ``extensions``.

    Raises:
        FetchError: No answer came within the deadline, or the answer is too large or encoded.
    """
    try:
        # httpx closes a connection whose opening passes its own limit. A cancelled one it leaves to the collector.
        limits = httpx.Timeout(within_s, connect=within_s / 3)
        async with asyncio.timeout(within_s):
            asked = client.build_request(
                method, url, headers={**(headers or {}), "Accept-Encoding": "identity"}, timeout=limits, **request
            )
            response = await client.send(asked, stream=True, follow_redirects=False)
            try:
                return Answer(response.status_code, response.headers, await _body(response, max_bytes))
            finally:
                await response.aclose()
    except TimeoutError:
        raise FetchError(f"no complete answer within {within_s:g} s") from None
    except httpx.TimeoutException as error:
        raise FetchError(f"no complete answer within {within_s:g} s ({type(error).__name__})") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError, ValueError) as error:
        raise FetchError(str(error) or type(error).__name__) from None


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding not in _IDENTITY:
        raise FetchError("the answer has a content coding, which was not asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise FetchError(f"the answer is longer than {max_bytes} bytes")
    return bytes(body)

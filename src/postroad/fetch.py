"""Fetch HTTP answers within limits that the server cannot stretch: of time, of size, and of work.

The deadline holds for all of it together: connection, TLS, headers and body. The body is counted as it comes from the
wire, and a content coding is refused, so nothing is unpacked. No redirect is followed. The headers are bounded by h11,
to 100 KiB.

Every HTTP client of this package is a `BoundedClient`. `fetch` is for single requests with limits of their own.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, NamedTuple

import httpx

_CODED: Final = "the answer has a content coding, which was not asked for"


class FetchError(Exception):
    """There is no answer, or it passed a limit. The message says why, and quotes nothing that was sent."""


class HttpAnswer(NamedTuple):
    """A complete answer: status code, headers, and the body as it was sent."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def media_type(self) -> str:
        """The media type, in lower case and without parameters. Empty: none is given."""
        content_type: str = self.headers.get("Content-Type", "")
        return content_type.partition(";")[0].strip().lower()


class BoundedClient(httpx.AsyncClient):
    """An HTTP client whose requests have one deadline each, and whose answers have a largest size and no coding.

    A request that passes a limit raises `httpx.TransportError`.

    Args:
        within_s: Deadline of a request with its complete answer, in seconds.
        max_bytes: Size of the largest body.
        options: What else `httpx.AsyncClient` takes.
    """

    def __init__(self, *, within_s: float = 30.0, max_bytes: int = 1 << 20, **options: Any) -> None:
        hooks: dict[str, list[Callable[..., Any]]] = {"request": [_refuse_codings], "response": [self._bound]}
        # A connection whose opening is cancelled is left to the collector; one that passes its own limit is closed.
        limits = httpx.Timeout(within_s, connect=within_s / 3)
        super().__init__(timeout=limits, event_hooks=hooks, **options)
        self._within_s, self._max_bytes = within_s, max_bytes

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, with its deadline. The body of a streamed answer is read after it."""
        try:
            async with asyncio.timeout(self._within_s):
                return await super().send(request, **options)
        except TimeoutError:
            raise httpx.ReadTimeout(f"no complete answer within {self._within_s:g} s", request=request) from None

    async def _bound(self, response: httpx.Response) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101  (that of an asynchronous client)
        response.stream = _BoundedStream(response, response.stream, self._max_bytes)


async def _refuse_codings(request: httpx.Request) -> None:
    request.headers["Accept-Encoding"] = "identity"


class _BoundedStream(httpx.AsyncByteStream):
    """The body of an answer, as it comes from the wire, up to a size."""

    def __init__(self, response: httpx.Response, stream: httpx.AsyncByteStream, max_bytes: int) -> None:
        self._response, self._stream, self._max_bytes = response, stream, max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if _is_coded(self._response):
            raise httpx.RemoteProtocolError(_CODED, request=self._response.request)
        left = self._max_bytes
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                why = f"the answer is longer than {self._max_bytes} bytes"
                raise httpx.RemoteProtocolError(why, request=self._response.request)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _is_coded(response: httpx.Response) -> bool:
    return response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity")


async def fetch(
    client: httpx.AsyncClient,
    url: str,
    *,
    within_s: float,
    max_bytes: int,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    **request: Any,
) -> HttpAnswer:
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
                return HttpAnswer(response.status_code, response.headers, await _body(response, max_bytes))
            finally:
                await response.aclose()
    except TimeoutError:
        raise FetchError(f"no complete answer within {within_s:g} s") from None
    except httpx.TimeoutException as error:
        raise FetchError(f"no complete answer within {within_s:g} s ({type(error).__name__})") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError, ValueError) as error:
        raise FetchError(str(error) or type(error).__name__) from None


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    if _is_coded(response):
        raise FetchError(_CODED)
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise FetchError(f"the answer is longer than {max_bytes} bytes")
    return bytes(body)

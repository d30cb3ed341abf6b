"""HTTP requests with strict limits of time and size.

The deadline covers the whole request: connection, TLS, headers and body. The body is counted as it is received.
Responses with a content coding are rejected, so nothing is decompressed. Redirects are not followed. h11 limits the
headers to 100 KiB.

Every HTTP client of this package is a `BoundedClient`. `fetch` is for single requests with other limits.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, NamedTuple

import httpx

_CODED: Final = "the response has a content coding, which was not requested"


class FetchError(Exception):
    """There is no response, or it exceeded a limit. The message names the reason, and quotes no content."""


class HttpAnswer(NamedTuple):
    """A complete response: status code, headers, and the body as it was received."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def media_type(self) -> str:
        """The media type, in lower case and without parameters. It is empty if there is no Content-Type."""
        content_type: str = self.headers.get("Content-Type", "")
        return content_type.partition(";")[0].strip().lower()


class BoundedClient(httpx.AsyncClient):
    """An HTTP client with a deadline for each request, a limit of the response's size, and no content coding.

    A request that exceeds a limit raises `httpx.TransportError`.

    Args:
        within_s: Deadline of a request with its complete response, in seconds.
        max_bytes: Largest size of a body.
        options: Other parameters of `httpx.AsyncClient`.
    """

    def __init__(self, *, within_s: float = 30.0, max_bytes: int = 1 << 20, **options: Any) -> None:
        hooks: dict[str, list[Callable[..., Any]]] = {"request": [_refuse_codings], "response": [self._bound]}
        # httpx closes a connection whose opening times out, but leaves a cancelled one to the garbage collector.
        limits = httpx.Timeout(within_s, connect=within_s / 3)
        super().__init__(timeout=limits, event_hooks=hooks, **options)
        self._within_s, self._max_bytes = within_s, max_bytes

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request within its deadline. The body of a streamed response is read afterwards.

        Args:
            request: The request.
            options: Other parameters of `httpx.AsyncClient.send`.

        Returns:
            The response.

        Raises:
            httpx.ReadTimeout: There was no complete response within the deadline.
        """
        try:
            async with asyncio.timeout(self._within_s):
                return await super().send(request, **options)
        except TimeoutError:
            raise httpx.ReadTimeout(f"no complete response within {self._within_s:g} s", request=request) from None

    async def _bound(self, response: httpx.Response) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101  (an asynchronous client)
        response.stream = _BoundedStream(response, response.stream, self._max_bytes)


async def _refuse_codings(request: httpx.Request) -> None:
    request.headers["Accept-Encoding"] = "identity"


class _BoundedStream(httpx.AsyncByteStream):
    """The body of a response as it is received, up to a size."""

    def __init__(self, response: httpx.Response, stream: httpx.AsyncByteStream, max_bytes: int) -> None:
        self._response, self._stream, self._max_bytes = response, stream, max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if _is_coded(self._response):
            raise httpx.RemoteProtocolError(_CODED, request=self._response.request)
        left = self._max_bytes
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                problem = f"the response is longer than {self._max_bytes} bytes"
                raise httpx.RemoteProtocolError(problem, request=self._response.request)
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
    **options: Any,
) -> HttpAnswer:
    """Send a request and return the complete response with any status.

    Args:
        client: The client, whose timeouts are overridden.
        url: An absolute URL.
        within_s: Deadline of the whole request, in seconds.
        max_bytes: Largest size of the body.
        method: Method of the request.
        headers: Headers of the request.
        options: Other parameters of `httpx.AsyncClient.build_request`, such as ``data``, ``json``, ``extensions``.

    Returns:
        The response.

    Raises:
        FetchError: There was no response within the deadline, or the response is too large or encoded.
    """
    try:
        # httpx closes a connection whose opening times out, but leaves a cancelled one to the garbage collector.
        limits = httpx.Timeout(within_s, connect=within_s / 3)
        async with asyncio.timeout(within_s):
            request = client.build_request(
                method, url, headers={**(headers or {}), "Accept-Encoding": "identity"}, timeout=limits, **options
            )
            response = await client.send(request, stream=True, follow_redirects=False)
            try:
                return HttpAnswer(response.status_code, response.headers, await _body(response, max_bytes))
            finally:
                await response.aclose()
    except TimeoutError:
        raise FetchError(f"no complete response within {within_s:g} s") from None
    except httpx.TimeoutException as error:
        raise FetchError(f"no complete response within {within_s:g} s ({type(error).__name__})") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError, ValueError) as error:
        raise FetchError(str(error) or type(error).__name__) from None


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    if _is_coded(response):
        raise FetchError(_CODED)
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise FetchError(f"the response is longer than {max_bytes} bytes")
    return bytes(body)

"""Sends one request to an endpoint: to an address that was looked up and checked, within a deadline.

The name is looked up once for each request, and the connection is made to an address of that answer, so an answer that
changes afterwards has no effect. Redirects are not followed. No proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from ipaddress import ip_address
from types import TracebackType
from typing import Final, NamedTuple, Self

import httpx

from postroad.dns.lookup import LookupStatus
from postroad.dns.public_address import may_connect, networks
from postroad.dns.resolver import Resolver
from postroad.errors import ConfigError
from postroad.fetch import BoundedClient
from postroad.settings.webhooks_out import WebhookEndpointSettings
from postroad.smtp.tls import client_context

MAX_ADDRESSES: Final = 2
"""Addresses of an endpoint that are tried if a connection fails."""
MAX_ANSWER_BYTES: Final = 16_384
"""Bytes of a response that are read. Only its status counts."""
BODY_WITHIN_S: Final = 2.0
"""Deadline of the body of a response, from its headers on. What arrives later is not read."""
SHOWN_CHARACTERS: Final = 200
MAX_RETRY_AFTER_S: Final = 3_600.0
"""Longest delay that an endpoint may ask for."""


class WebhookOutcome(StrEnum):
    """Outcome of a request, in the log and the metrics."""

    DELIVERED = "delivered"
    REJECTED = "rejected"  # a status that is not 2xx
    THROTTLED = "throttled"  # 429 or 503 with Retry-After
    REDIRECTED = "redirected"  # which is not followed
    GONE = "gone"  # 410: the endpoint is disabled
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"  # no connection, or it broke
    FORBIDDEN = "forbidden"  # the name leads to an address that is not public


class WebhookAnswer(NamedTuple):
    """Result of one request. ``status`` None: there was no response. ``retry_after_s``: bounded, as asked for."""

    outcome: WebhookOutcome
    at: datetime
    duration_ms: int
    status: int | None = None
    error: str | None = None
    retry_after_s: float | None = None


class _NoRequestError(Exception):
    """No request was sent. ``outcome``: why."""

    def __init__(self, outcome: WebhookOutcome, problem: str) -> None:
        super().__init__(problem)
        self.outcome = outcome


class EndpointClient:
    """Sends requests to one endpoint, each on a connection of its own."""

    def __init__(self, name: str, settings: WebhookEndpointSettings, resolver: Resolver) -> None:
        """Make a client.

        Args:
            name: Name of the endpoint.
            settings: Settings of the endpoint.
            resolver: Looks up its host.

        Raises:
            ConfigError: The file with the trusted authorities cannot be used.
        """
        try:
            trust = client_context(settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the file cannot be used: {error}", where=f"webhooks_out.{name}.ca_file, {settings.ca_file}"
            ) from None
        self._url = httpx.URL(settings.url)
        self._allowed = networks(settings.allow_networks)
        self._within_s = settings.timeout_ms / 1000
        self._resolver = resolver
        # A second response on a connection would be taken for that of the next event: no connection is used again.
        limits = httpx.Limits(max_connections=settings.concurrency + 1, max_keepalive_connections=0)
        self._http = BoundedClient(
            within_s=self._within_s, max_bytes=MAX_ANSWER_BYTES, verify=trust, trust_env=False, limits=limits
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def post(self, body: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        """Send a request, and return the result, whatever it is.

        Args:
            body: The body, JSON.
            headers: The headers of its signature.

        Returns:
            The result.
        """
        at, started_s = datetime.now(UTC), time.monotonic()

        def answer(
            outcome: WebhookOutcome, error: str, status: int | None = None, after_s: float | None = None
        ) -> WebhookAnswer:
            duration_ms = round((time.monotonic() - started_s) * 1000)
            return WebhookAnswer(outcome, at, duration_ms, status, error or None, after_s)

        try:
            async with asyncio.timeout(self._within_s):
                response = await self._open(body, headers)
        except TimeoutError:
            return answer(WebhookOutcome.TIMEOUT, f"no status within {self._within_s:g} s")
        except httpx.TimeoutException as error:
            return answer(WebhookOutcome.TIMEOUT, f"no status within {self._within_s:g} s ({type(error).__name__})")
        except _NoRequestError as error:
            return answer(error.outcome, str(error))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError, ValueError) as error:
            return answer(WebhookOutcome.UNREACHABLE, str(error)[:SHOWN_CHARACTERS] or type(error).__name__)
        text = await _beginning(response)
        outcome, after_s = _outcome_of(response, at)
        if outcome is WebhookOutcome.REDIRECTED:
            text = (
                f"it redirects to {response.headers.get('Location', 'nowhere')[:100]}: set that as url, if it is right"
            )
        return answer(outcome, "" if outcome is WebhookOutcome.DELIVERED else text, response.status_code, after_s)

    async def _open(self, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """Send the request, and return the response once its headers are received."""
        host, addresses = await self._addresses()
        netloc = f"[{host}]" if ":" in host else host
        sent = {
            **headers,
            "Host": netloc if self._url.port is None else f"{netloc}:{self._url.port}",
            "Connection": "close",
            "Content-Type": "application/json",
            "User-Agent": "Postroad-Webhooks/1",
        }
        for place, address in enumerate(addresses, start=1):
            request = self._http.build_request(
                "POST",
                self._url.copy_with(host=address),
                content=body,
                headers=sent,
                extensions={"sni_hostname": host},
            )
            try:
                response = await self._http.send(request, stream=True, follow_redirects=False)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if place == len(addresses):
                    raise
            else:
                return response
        raise AssertionError("there is at least one address")

    async def _addresses(self) -> tuple[str, Sequence[str]]:
        """Return the host in ASCII, and its addresses, all of which may be connected to."""
        host = self._url.raw_host.decode("ascii")
        try:
            found = [str(ip_address(host))]
        except ValueError:
            found = await self._look_up(host)
        permitted = [address for address in found if may_connect(address, self._allowed)]
        if not permitted:
            raise _NoRequestError(
                WebhookOutcome.FORBIDDEN,
                f"{host} has no public address: {', '.join(found[:3])}. Name its network in allow_networks to allow it",
            )
        return host, permitted[:MAX_ADDRESSES]

    async def _look_up(self, host: str) -> list[str]:
        lookups = await self._resolver.addresses(host)
        found = [address for lookup in lookups for address in lookup.addresses]
        if not found:
            silent = any(lookup.status is LookupStatus.NO_ANSWER for lookup in lookups)
            problem = f"DNS gives no answer about {host}" if silent else f"{host} has no address in DNS"
            raise _NoRequestError(WebhookOutcome.UNREACHABLE, problem)
        return found


async def _beginning(response: httpx.Response) -> str:
    """Return the beginning of a response's text, as far as it is received in time. Its status is known, and counts."""
    received = bytearray()
    try:
        with suppress(TimeoutError, httpx.HTTPError, OSError):
            async with asyncio.timeout(BODY_WITHIN_S):
                async for chunk in response.aiter_raw():
                    received += chunk
    finally:
        with suppress(httpx.HTTPError, OSError):
            await response.aclose()
    return received[:SHOWN_CHARACTERS].decode("utf-8", "replace")


def _outcome_of(response: httpx.Response, now: datetime) -> tuple[WebhookOutcome, float | None]:
    """Return the outcome of a response, and the delay that it asks for, in seconds."""
    status = response.status_code
    if 200 <= status < 300:
        return WebhookOutcome.DELIVERED, None
    if status == httpx.codes.GONE:
        return WebhookOutcome.GONE, None
    if 300 <= status < 400:
        return WebhookOutcome.REDIRECTED, None
    after_s = parse_retry_after_s(response.headers.get("Retry-After", ""), now)
    if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE) and after_s is not None:
        return WebhookOutcome.THROTTLED, after_s
    return WebhookOutcome.REJECTED, None


def parse_retry_after_s(text: str, now: datetime) -> float | None:
    """Parse a Retry-After header (RFC 9110 §10.2.3): a number of seconds, or a date.

    Args:
        text: The header.
        now: The time.

    Returns:
        The delay in seconds, from 1 to `MAX_RETRY_AFTER_S`. None: there is no header, or it is not valid.
    """
    text = text.strip()
    if text.isascii() and text.isdecimal():
        delay_s = float(text[:10])
    else:
        try:
            until = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        delay_s = (until.replace(tzinfo=until.tzinfo or UTC) - now).total_seconds()
    return min(max(delay_s, 1.0), MAX_RETRY_AFTER_S)

"""Routes ``/webhooks/NAME``: one for each ESP with a section in the settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import httpx
from fastapi import APIRouter, HTTPException, Request, Response

from postroad.bounce.esp.events import events_of, source_of
from postroad.bounce.intake import Intake, UsedTokenError
from postroad.bounce.report import Envelope
from postroad.clock import Clock
from postroad.errors import PostroadError
from postroad.settings import Service, WebhookSettings
from postroad.web.body import BodyMemory, read_body
from postroad.web.rate_limit import ClientLimiter
from postroad.web.webhooks.mailgun import mailgun
from postroad.web.webhooks.postmark import check_postmark, postmark
from postroad.web.webhooks.request import CheckHeader, VerifiedRequest, Verify, WebhookRefusedError, WebhookRequest
from postroad.web.webhooks.sendgrid import sendgrid
from postroad.web.webhooks.sns import SnsTopics

MAX_BODY_BYTES = 1_048_576
"""SendGrid sends at most 768 KiB, SNS 256 KiB."""
MAX_CONCURRENT = 32
"""Maximum requests that are processed concurrently, after their body is complete."""
MAX_MEMORY_BYTES = 32 * MAX_BODY_BYTES
MAX_CLIENT_MEMORY_BYTES = 8 * MAX_BODY_BYTES
"""Maximum memory for bodies, in total and per client. A request uses only the bytes that it has sent."""
PROCESS_WITHIN_S = 10.0
RETRY_AFTER_S = 60
BODY_FAULTS = (400, 408, 413)
"""Statuses of `read_body` for a body that is incomplete, too slow or too long."""
ALREADY_STORED = 406
"""Asks Mailgun not to retry: the events of the token are stored. Mailgun itself may send a request twice."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WebhookEndpoint:
    """Verification of one ESP's requests."""

    service: Service
    verify: Verify
    check_header: CheckHeader | None = None


def endpoints(settings: WebhookSettings, http: httpx.AsyncClient) -> Iterator[WebhookEndpoint]:
    """Yield the endpoints of the settings. ``http``: client for the certificates of SNS."""
    window_ms = settings.window_ms
    if settings.ses is not None:
        yield WebhookEndpoint(service=Service.SES, verify=SnsTopics(settings.ses, window_ms, http).verify)
    if settings.sendgrid is not None:
        yield WebhookEndpoint(service=Service.SENDGRID, verify=sendgrid(settings.sendgrid, window_ms))
    if settings.postmark is not None:
        check = check_postmark(settings.postmark)
        yield WebhookEndpoint(service=Service.POSTMARK, verify=postmark, check_header=check)
    if settings.mailgun is not None:
        yield WebhookEndpoint(service=Service.MAILGUN, verify=mailgun(settings.mailgun, window_ms))


class WebhookRoutes:
    """Handlers of the webhooks. A request gets 200 only after its events are stored and enqueued."""

    def __init__(self, *, intake: Callable[[], Awaitable[Intake]], clock: Clock, limiter: ClientLimiter) -> None:
        self._intake = intake
        self._limiter = limiter
        self._clock = clock
        self._processing = 0
        self._memory = BodyMemory(max_bytes=MAX_MEMORY_BYTES, max_bytes_per_client=MAX_CLIENT_MEMORY_BYTES)

    def router(self, configured: Iterator[WebhookEndpoint]) -> APIRouter:
        """Return the routes of the configured endpoints."""
        router = APIRouter()
        for endpoint in configured:
            router.add_api_route(f"/webhooks/{endpoint.service}", self._handler(endpoint), methods=["POST"])
        return router

    def _handler(self, endpoint: WebhookEndpoint) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            try:
                return await self._read_and_respond(endpoint, request)
            except WebhookRefusedError as error:
                raise self._refusal(endpoint, request, error) from None
            except HTTPException as error:
                if error.status_code in BODY_FAULTS:
                    self._charge(request)
                raise

        return handle

    async def _read_and_respond(self, endpoint: WebhookEndpoint, request: Request) -> Response:
        headers = dict(request.headers.items())
        if endpoint.check_header is not None:
            endpoint.check_header(headers)
        with self._memory.reserve(self._limiter.client_of(request)) as reserve:
            body = await read_body(request, max_bytes=MAX_BODY_BYTES, reserve=reserve)
            # Checked after the body is complete, so that a slow client does not block other requests.
            if self._processing >= MAX_CONCURRENT:
                return _retry_later()
            self._processing += 1
            try:
                return await self._respond(
                    endpoint, WebhookRequest(headers=headers, body=body, now_ms=self._clock.now_ms())
                )
            finally:
                self._processing -= 1

    def _refusal(self, endpoint: WebhookEndpoint, request: Request, error: WebhookRefusedError) -> HTTPException:
        """Return the response to a refused request. Only these count toward the limit, and never those of the ESP."""
        if error.status != ALREADY_STORED and (wait_s := self._charge(request)):
            # Not logged, because it would fill the log.
            return HTTPException(429, "too many", {"Retry-After": str(wait_s)})
        log.warning("a call to the webhook of %s was refused: %s", endpoint.service, error)
        return HTTPException(error.status, "refused")

    def _charge(self, request: Request) -> int:
        """Count a request that is not of the ESP and return 0. Over the limit, return the seconds to wait."""
        client = self._limiter.client_of(request)
        wait_s = self._limiter.wait_s(client)
        if not wait_s:
            self._limiter.charge_invalid(client)
        return wait_s

    async def _respond(self, endpoint: WebhookEndpoint, request: WebhookRequest) -> Response:
        try:
            async with asyncio.timeout(PROCESS_WITHIN_S):
                verified = await endpoint.verify(request)
                if verified is not None:
                    await self._store(endpoint.service, verified)
        except UsedTokenError as error:
            raise WebhookRefusedError(error.message, ALREADY_STORED) from None
        except (PostroadError, TimeoutError) as error:
            reason = error.message if isinstance(error, PostroadError) else "it took too long"
            log.warning("a call to the webhook of %s failed and must be repeated: %s", endpoint.service, reason)
            return _retry_later()
        return Response(status_code=200)

    async def _store(self, service: Service, verified: VerifiedRequest) -> None:
        envelope = Envelope(source=source_of(service))
        mails = [(event, envelope) for event in events_of(service, verified.document)]
        if mails or verified.token is not None:
            await (await self._intake()).submit_all(mails, token=verified.token)


def _retry_later() -> Response:
    return Response(status_code=503, headers={"Retry-After": str(RETRY_AFTER_S)})


def known_path(path: str) -> bool:
    """Return whether a path is that of a webhook, so that it may be logged."""
    return path in {f"/webhooks/{service}" for service in Service}

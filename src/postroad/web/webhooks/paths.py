"""The paths ``/webhooks/NAME``: one for each mail service that has a section in the settings, and no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import httpx
from fastapi import APIRouter, HTTPException, Request, Response

from postroad.bounce.intake import Intake, UsedTokenError
from postroad.bounce.report import Envelope
from postroad.bounce.services.read import events_of, source_of
from postroad.clock import Clock
from postroad.errors import PostroadError
from postroad.settings import Service, WebhookSettings
from postroad.web.body import BodyMemory, read_body
from postroad.web.clients import Clients
from postroad.web.webhooks.call import CheckHeader, VerifiedRequest, Verify, WebhookRefusedError, WebhookRequest
from postroad.web.webhooks.mailgun import mailgun
from postroad.web.webhooks.postmark import check_postmark, postmark
from postroad.web.webhooks.sendgrid import sendgrid
from postroad.web.webhooks.sns import SnsTopics

MAX_BODY_BYTES = 1_048_576
"""SendGrid sends 768 KiB at the most, SNS 256 KiB."""
MAX_CALLS = 32
"""Complete calls that are worked on at once."""
MAX_MEMORY_BYTES = 32 * MAX_BODY_BYTES
MAX_CLIENT_MEMORY_BYTES = 8 * MAX_BODY_BYTES
"""For bodies, in all and of one client. A call that has not sent its body takes nothing of it."""
TAKEN_WITHIN_S = 10.0
RETRY_AFTER_S = 60
BODY_FAULTS = (400, 408, 413)
"""Answers of `read_body` to a body that ends early, comes slowly or is too long."""
ALREADY_TAKEN = 406
"""Tells Mailgun not to try again: what the token came with is kept. It may be Mailgun itself that says it twice."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WebhookEndpoint:
    """How the calls of one service are verified."""

    service: Service
    verify: Verify
    check_header: CheckHeader | None = None


def endpoints(settings: WebhookSettings, http: httpx.AsyncClient) -> Iterator[WebhookEndpoint]:
    """Those that the settings have a section for. ``http``: what asks SNS for certificates."""
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


class Webhooks:
    """The handlers of the paths. A call is answered with 200 once its events are kept and queued, and no sooner."""

    def __init__(self, *, intake: Callable[[], Awaitable[Intake]], clock: Clock, clients: Clients) -> None:
        self._intake = intake
        self._clients = clients
        self._clock = clock
        self._in_hand = 0
        self._memory = BodyMemory(most_bytes=MAX_MEMORY_BYTES, most_bytes_per_client=MAX_CLIENT_MEMORY_BYTES)

    def router(self, found: Iterator[WebhookEndpoint]) -> APIRouter:
        router = APIRouter()
        for endpoint in found:
            router.add_api_route(f"/webhooks/{endpoint.service}", self._handler(endpoint), methods=["POST"])
        return router

    def _handler(self, endpoint: WebhookEndpoint) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            try:
                return await self._read_and_answer(endpoint, request)
            except WebhookRefusedError as error:
                raise self._refusal(endpoint, request, error) from None
            except HTTPException as error:
                if error.status_code in BODY_FAULTS:
                    self._charge(request)
                raise

        return handle

    async def _read_and_answer(self, endpoint: WebhookEndpoint, request: Request) -> Response:
        headers = dict(request.headers.items())
        if endpoint.check_header is not None:
            endpoint.check_header(headers)
        with self._memory.of(self._clients.of(request)) as take:
            body = await read_body(request, max_bytes=MAX_BODY_BYTES, take=take)
            # Only now: whoever sends slowly keeps no other call from being worked on.
            if self._in_hand >= MAX_CALLS:
                return _later()
            self._in_hand += 1
            try:
                return await self._answer(
                    endpoint, WebhookRequest(headers=headers, body=body, now_ms=self._clock.now_ms())
                )
            finally:
                self._in_hand -= 1

    def _refusal(self, endpoint: WebhookEndpoint, request: Request, error: WebhookRefusedError) -> HTTPException:
        """What is answered to a call that was refused. Only those are counted: what a service signed is never late."""
        if error.status != ALREADY_TAKEN and (wait_s := self._charge(request)):
            # Not in the log, which it would fill.
            return HTTPException(429, "too many", {"Retry-After": str(wait_s)})
        log.warning("a call to the webhook of %s was refused: %s", endpoint.service, error)
        return HTTPException(error.status, "refused")

    def _charge(self, request: Request) -> int:
        """Count a call that is not one of a service, and return 0; or seconds to wait where it is one too many."""
        client = self._clients.of(request)
        wait_s = self._clients.wait_s(client)
        if not wait_s:
            self._clients.invalid(client)
        return wait_s

    async def _answer(self, endpoint: WebhookEndpoint, call: WebhookRequest) -> Response:
        try:
            async with asyncio.timeout(TAKEN_WITHIN_S):
                accepted = await endpoint.verify(call)
                if accepted is not None:
                    await self._take(endpoint.service, accepted)
        except UsedTokenError as error:
            raise WebhookRefusedError(error.message, ALREADY_TAKEN) from None
        except (PostroadError, TimeoutError) as error:
            why = error.message if isinstance(error, PostroadError) else "it took too long"
            log.warning("a call to the webhook of %s has to come again: %s", endpoint.service, why)
            return _later()
        return Response(status_code=200)

    async def _take(self, service: Service, accepted: VerifiedRequest) -> None:
        envelope = Envelope(source=source_of(service))
        mails = [(event, envelope) for event in events_of(service, accepted.document)]
        if mails or accepted.token is not None:
            await (await self._intake()).submit_all(mails, token=accepted.token)


def _later() -> Response:
    return Response(status_code=503, headers={"Retry-After": str(RETRY_AFTER_S)})


def known_path(path: str) -> bool:
    """Whether a path may be logged: it holds nothing but a service's name."""
    return path in {f"/webhooks/{service}" for service in Service}

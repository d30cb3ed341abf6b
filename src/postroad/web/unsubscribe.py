"""Unsubscribes over HTTP (RFC 8058): a POST unsubscribes at once, a GET shows a page and changes nothing.

Mail scanners that follow links therefore unsubscribe no recipient. There is no cookie, no login and no redirect. An
invalid token and a token without a touch get the same response.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx
import sqlalchemy as sa
from fastapi import APIRouter, Request, Response

from postroad.bounce.intake import Intake
from postroad.clock import Clock
from postroad.errors import UnavailableError
from postroad.mail.token import PROOFS, Purpose, TokenSigner
from postroad.operations.unsubscribe import unsubscribe
from postroad.queue import Queue
from postroad.settings import WebSettings
from postroad.web.body import form_fields, read_body
from postroad.web.pages import Pages
from postroad.web.rate_limit import ClientLimiter
from postroad.web.translations import Notice

DATABASE_WITHIN_S = 5.0
RETRY_AFTER_S = 60

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WebParts:
    """Dependencies of the endpoints.

    Attributes:
        engine: The ledger's database.
        signer: Verifies tokens.
        clock: Time source.
        queue: Opens the mail queue, on first use.
        intake: Opens the intake of inbound mail, on first use.
        http: Client for outbound requests.
        settings: Settings of the server.
    """

    engine: sa.Engine
    signer: TokenSigner
    clock: Clock
    queue: Callable[[], Awaitable[Queue]]
    intake: Callable[[], Awaitable[Intake]]
    http: httpx.AsyncClient
    settings: WebSettings


class UnsubscribeRoutes:
    """Handlers of ``/u/TOKEN``."""

    def __init__(self, parts: WebParts, limiter: ClientLimiter) -> None:
        self._parts = parts
        self._limiter = limiter
        self._pages = Pages()

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        router.add_api_route("/u/{token}", self.show, methods=["GET", "HEAD"])
        router.add_api_route("/u/{token}", self.unsubscribe, methods=["POST"])
        router.add_api_route("/u/{token}", self.options, methods=["OPTIONS"])
        return router

    async def show(self, request: Request, token: str) -> Response:
        """Show the page that asks for confirmation. It needs no database."""
        touch_id = self._touch(request, token)
        return touch_id if isinstance(touch_id, Response) else self._pages.render(request, Notice.ASK, 200)

    async def unsubscribe(self, request: Request, token: str) -> Response:
        """Unsubscribe the recipient of the token's touch. Idempotent."""
        touch_id = self._touch(request, token)
        if isinstance(touch_id, Response):
            return touch_id
        fields = form_fields(request.headers.get("content-type", ""), await read_body(request))
        if fields.get("List-Unsubscribe") != "One-Click":
            return self._pages.render(request, Notice.ASK, 400)
        source = "unsubscribe page" if fields.get("by") == "page" else "one-click (RFC 8058)"
        try:
            async with asyncio.timeout(DATABASE_WITHIN_S):
                result = await unsubscribe(
                    self._parts.engine,
                    self._parts.queue,
                    touch_id,
                    source,
                    self._parts.clock.now(),
                    self._parts.settings.unsubscribe,
                )
        except (UnavailableError, TimeoutError) as error:
            # After a timeout the transaction may still commit. A repeated request then changes nothing.
            log.warning(
                "an unsubscribe failed and must be repeated: %s", error if str(error) else "the database is slow"
            )
            return self._pages.render(request, Notice.AWAY, 503, {"Retry-After": str(RETRY_AFTER_S)})
        return self._pages.render(request, *((Notice.DONE, 200) if result is not None else (Notice.INVALID, 404)))

    async def options(self) -> Response:
        """Return the allowed methods."""
        return Response(status_code=204, headers={"Allow": "GET, HEAD, POST, OPTIONS"})

    def _touch(self, request: Request, token: str) -> int | Response:
        """Return the touch of a token, or the response for too many requests, an invalid token or that of a proof."""
        client = self._limiter.client_of(request)
        wait_s = self._limiter.wait_s(client)
        if wait_s:
            return self._pages.render(request, Notice.HURRY, 429, {"Retry-After": str(wait_s)})
        touch_id = self._parts.signer.read(Purpose.UNSUBSCRIBE, token)
        if touch_id is None:
            self._limiter.charge_invalid(client)
            return self._pages.render(request, Notice.INVALID, 404)
        if touch_id in PROOFS:
            return self._pages.render(request, Notice.PROOF, 200)
        return touch_id

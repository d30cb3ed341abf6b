"""Unsubscribing over HTTP (RFC 8058): a POST acts at once, a GET shows a page and changes nothing.

Whoever follows a link without being asked to, as scanners of mail do, unsubscribes nobody. There is no cookie, no
login and no redirect. What a token does not stand for, and what is no token, get the same answer.
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
from postroad.mail.token import Purpose, TokenSigner
from postroad.operations.unsubscribe import unsubscribe
from postroad.queue import Queue
from postroad.settings import WebSettings
from postroad.web.body import form_fields, read_body
from postroad.web.clients import Clients
from postroad.web.pages import Pages
from postroad.web.words import Notice

DATABASE_WITHIN_S = 5.0
RETRY_AFTER_S = 60

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WebParts:
    """What the endpoints work with. ``queue`` opens the queue of mail, ``intake`` that of what comes back, when needed.

    ``http``: what asks others.
    """

    engine: sa.Engine
    signer: TokenSigner
    clock: Clock
    queue: Callable[[], Awaitable[Queue]]
    intake: Callable[[], Awaitable[Intake]]
    http: httpx.AsyncClient
    settings: WebSettings


class Unsubscribing:
    """The handlers of ``/u/TOKEN``."""

    def __init__(self, parts: WebParts, clients: Clients) -> None:
        self._parts = parts
        self._clients = clients
        self._pages = Pages()

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route("/u/{token}", self.show, methods=["GET", "HEAD"])
        router.add_api_route("/u/{token}", self.act, methods=["POST"])
        router.add_api_route("/u/{token}", self.options, methods=["OPTIONS"])
        return router

    async def show(self, request: Request, token: str) -> Response:
        """Ask. Nothing is looked up, so this works while the database is away."""
        touch_id = self._touch(request, token)
        return touch_id if isinstance(touch_id, Response) else self._pages.answer(request, Notice.ASK, 200)

    async def act(self, request: Request, token: str) -> Response:
        """Unsubscribe the recipient of the token's touch, as often as it comes."""
        touch_id = self._touch(request, token)
        if isinstance(touch_id, Response):
            return touch_id
        fields = form_fields(request.headers.get("content-type", ""), await read_body(request))
        if fields.get("List-Unsubscribe") != "One-Click":
            return self._pages.answer(request, Notice.ASK, 400)
        source = "unsubscribe page" if fields.get("by") == "page" else "one-click (RFC 8058)"
        try:
            async with asyncio.timeout(DATABASE_WITHIN_S):
                done = await unsubscribe(
                    self._parts.engine,
                    self._parts.queue,
                    touch_id,
                    source,
                    self._parts.clock.now(),
                    self._parts.settings.unsubscribe,
                )
        except (UnavailableError, TimeoutError) as error:
            # Cut short, it may still come to pass: then doing it again changes nothing.
            log.warning("an unsubscribe has to come again: %s", error if str(error) else "the database is slow")
            return self._pages.answer(request, Notice.AWAY, 503, {"Retry-After": str(RETRY_AFTER_S)})
        return self._pages.answer(request, *((Notice.DONE, 200) if done is not None else (Notice.INVALID, 404)))

    async def options(self) -> Response:
        return Response(status_code=204, headers={"Allow": "GET, HEAD, POST, OPTIONS"})

    def _touch(self, request: Request, token: str) -> int | Response:
        """Return the touch of a token, or what is answered to too many requests and to a token that is none."""
        client = self._clients.of(request)
        wait_s = self._clients.wait_s(client)
        if wait_s:
            return self._pages.answer(request, Notice.HURRY, 429, {"Retry-After": str(wait_s)})
        touch_id = self._parts.signer.read(Purpose.UNSUBSCRIBE, token)
        if touch_id is None:
            self._clients.invalid(client)
            return self._pages.answer(request, Notice.INVALID, 404)
        return touch_id

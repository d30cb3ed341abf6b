"""The application: its routes, and what holds for every answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import MutableMapping
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from postroad.errors import UnavailableError
from postroad.store.engine import read
from postroad.web.clients import Clients
from postroad.web.unsubscribe import Unsubscribing, WebParts
from postroad.web.webhooks.paths import Webhooks, endpoints, known_path

DATABASE_WITHIN_S = 5.0

HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"x-robots-tag": b"noindex, nofollow",
}
"""On every answer that does not say otherwise."""

log = logging.getLogger(__name__)


def create_app(parts: WebParts) -> ASGIApp:
    """Return the application of `postroad web`."""
    app = FastAPI(title="Postroad", docs_url=None, redoc_url=None, openapi_url=None)
    clients = Clients(parts.settings, parts.clock)
    app.include_router(Unsubscribing(parts, clients).router())
    webhooks = Webhooks(intake=parts.intake, clock=parts.clock, clients=clients)
    app.include_router(webhooks.router(endpoints(parts.settings.webhooks, parts.http)))

    @app.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz(request: Request) -> Response:
        """Whether it could act on a request: 200, or 503 while the database is away. It counts as a request."""
        if wait_s := clients.wait_s(clients.of(request)):
            return JSONResponse({"service": "postroad"}, 429, {"Retry-After": str(wait_s)})
        try:
            async with asyncio.timeout(DATABASE_WITHIN_S):
                await asyncio.to_thread(_look, parts.engine)
        except (UnavailableError, TimeoutError):
            return JSONResponse({"service": "postroad", "database": "away"}, 503, {"Retry-After": "60"})
        return JSONResponse({"service": "postroad", "database": "ok"})

    return ErrorMiddleware(app, clients)


def _look(engine: sa.Engine) -> None:
    with read(engine) as connection:
        connection.execute(sa.text("SELECT 1"))


class ErrorMiddleware:
    """Puts the headers of safety on every answer, also on errors, and logs it without its token.

    A client that has too many requests under way is refused before anything is read of the next.
    """

    def __init__(self, app: ASGIApp, clients: Clients) -> None:
        self._app = app
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = time.perf_counter()

        async def send_safely(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = [(name, value) for name, value in HEADERS.items() if name not in given]
                message = {**message, "headers": [*message["headers"], *more]}
                took_ms = (time.perf_counter() - started) * 1000
                log.info("%s %s %d in %.1f ms", scope["method"], _path(scope["path"]), message["status"], took_ms)
            await send(message)

        client = self._clients.of(Request(scope))
        if not self._clients.enter(client):
            refusal = Response(status_code=429, headers={"Connection": "close", "Retry-After": "60"})
            await refusal(scope, receive, send_safely)
            return
        try:
            await self._app(scope, receive, send_safely)
        finally:
            self._clients.leave(client)


def _path(path: str) -> str:
    """Return a path as it may be logged: whoever has a token may use it, and other paths may hold anything."""
    if path.startswith("/u/"):
        return "/u/…"
    return path if path == "/healthz" or known_path(path) else "(another path)"

"""Creates the web application: its routes, and the headers and limits of every response."""

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
from postroad.web.rate_limit import ClientLimiter
from postroad.web.unsubscribe import UnsubscribeRoutes, WebParts
from postroad.web.webhooks.routes import WebhookRoutes, endpoints, known_path

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
"""Headers of every response that does not set them itself."""

log = logging.getLogger(__name__)


def create_app(parts: WebParts) -> ASGIApp:
    """Return the application of `postroad web`."""
    app = FastAPI(title="Postroad", docs_url=None, redoc_url=None, openapi_url=None)
    limiter = ClientLimiter(parts.settings, parts.clock)
    app.include_router(UnsubscribeRoutes(parts, limiter).router())
    webhooks = WebhookRoutes(intake=parts.intake, clock=parts.clock, limiter=limiter)
    app.include_router(webhooks.router(endpoints(parts.settings.webhooks, parts.http)))

    @app.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz(request: Request) -> Response:
        """Return 200, or 503 while the database is unavailable. The request counts toward the limit."""
        if wait_s := limiter.wait_s(limiter.client_of(request)):
            return JSONResponse({"service": "postroad"}, 429, {"Retry-After": str(wait_s)})
        try:
            async with asyncio.timeout(DATABASE_WITHIN_S):
                await asyncio.to_thread(_query, parts.engine)
        except (UnavailableError, TimeoutError):
            return JSONResponse({"service": "postroad", "database": "away"}, 503, {"Retry-After": "60"})
        return JSONResponse({"service": "postroad", "database": "ok"})

    return ErrorMiddleware(app, limiter)


def _query(engine: sa.Engine) -> None:
    with read(engine) as connection:
        connection.execute(sa.text("SELECT 1"))


class ErrorMiddleware:
    """Adds the security headers to every response, including errors, and logs each request without its token.

    It rejects a request of a client with too many running requests, before reading it.
    """

    def __init__(self, app: ASGIApp, limiter: ClientLimiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = time.perf_counter()

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                missing = [(name, value) for name, value in HEADERS.items() if name not in present]
                message = {**message, "headers": [*message["headers"], *missing]}
                took_ms = (time.perf_counter() - started) * 1000
                log.info("%s %s %d in %.1f ms", scope["method"], _path(scope["path"]), message["status"], took_ms)
            await send(message)

        client = self._limiter.client_of(Request(scope))
        if not self._limiter.enter(client):
            refusal = Response(status_code=429, headers={"Connection": "close", "Retry-After": "60"})
            await refusal(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            self._limiter.leave(client)


def _path(path: str) -> str:
    """Return a path for the log. Tokens are secret, and unknown paths may contain any text."""
    if path.startswith("/u/"):
        return "/u/…"
    return path if path == "/healthz" or known_path(path) else "(another path)"

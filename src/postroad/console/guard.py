"""Guards every request before it reaches a route: the host, the origin of unsafe requests, headers, the access log."""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from postroad.printable import printable
from postroad.settings import ConsoleSettings
from postroad.settings.console import is_loopback

API_PREFIX = "/api/"
"""Paths that are authorised by a key in a header. A browser does not send one by itself, so their origin is free."""

HEALTH_PATH = "/healthz"
"""A balancer asks by the address of the machine."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)

HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": CONTENT_SECURITY_POLICY.encode(),
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=(), payment=()",
    # Not no-referrer: browsers would send `Origin: null` with forms. The page of a sign-in link has no external link.
    b"referrer-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"x-robots-tag": b"noindex, nofollow",
}
"""Headers of every response that does not set them itself."""

log = logging.getLogger(__name__)


class Guard:
    """Rejects requests to another host, and unsafe requests of another origin. Adds headers. Logs without the query."""

    def __init__(self, app: ASGIApp, settings: ConsoleSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        request = Request(scope)
        secure = is_secure(request, self._settings)

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                missing = [(name, value) for name, value in HEADERS.items() if name not in present]
                if secure:
                    missing.append((b"strict-transport-security", b"max-age=31536000"))
                message = {**message, "headers": [*message["headers"], *missing]}
                took_ms = (time.perf_counter() - started) * 1000
                path = printable(scope["path"][:200])
                log.info("%s %s %d in %.1f ms", scope["method"], path, message["status"], took_ms)
            await send(message)

        refusal = self._refusal(request)
        await (self._app if refusal is None else refusal)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> PlainTextResponse | None:
        path: str = request.scope["path"]  # That of `request.url` depends on the Host header.
        if path != HEALTH_PATH and not host_is_allowed(request, self._settings):
            return PlainTextResponse(
                "This host name is not the console's. Set console.url to the URL at which users reach it.\n", 421
            )
        if request.method in SAFE_METHODS or path.startswith(API_PREFIX):
            return None
        if not origin_is_allowed(request, self._settings):
            return PlainTextResponse("The request is from another site. Open the console and repeat the act.\n", 403)
        return None


def host_is_allowed(request: Request, settings: ConsoleSettings) -> bool:
    """Return whether the Host header names the console: the host of its URL, or this machine.

    A page of another site that resolves its own name to the console's address (DNS rebinding) has another host.
    """
    host = request.headers.get("host", "")
    if settings.url is not None and host.lower() == urlsplit(settings.url).netloc.lower():
        return True
    return settings.on_loopback and is_loopback(_host_name(host))


def origin_is_allowed(request: Request, settings: ConsoleSettings) -> bool:
    """Return whether an unsafe request comes from a page of the console.

    Browsers send Origin with every POST, and Sec-Fetch-Site if they are not old. A request with neither is rejected.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is None and origin is None:
        return False
    if site is not None and site != "same-origin":
        return False
    return origin is None or origin.lower() == own_origin(request, settings)


def is_from_other_site(request: Request) -> bool:
    """Return whether a page of another site, or of another host of the domain, caused a request.

    Browsers say so in Sec-Fetch-Site, also after redirects. A client that is not a browser may leave the header out.
    """
    return request.headers.get("sec-fetch-site") in ("cross-site", "same-site")


def own_origin(request: Request, settings: ConsoleSettings) -> str:
    """Return the origin of the console's pages, as the browser of this request sees them."""
    host = request.headers.get("host", "").lower()
    return f"{'https' if is_secure(request, settings) else 'http'}://{host}"


def is_secure(request: Request, settings: ConsoleSettings) -> bool:
    """Return whether the browser reaches the console by HTTPS: by the URL of the settings, through a proxy."""
    if settings.url is None:
        return False
    url = urlsplit(settings.url)
    return url.scheme == "https" and request.headers.get("host", "").lower() == url.netloc.lower()


def cookie_name(name: str, *, secure: bool) -> str:
    """Return the name of a cookie. By HTTPS its prefix keeps other hosts of the domain from setting it.

    Browsers accept a cookie whose name begins with `__Host-` only from the host itself, by HTTPS (RFC 6265bis §4.1.3).
    """
    return f"__Host-{name}" if secure else name


def _host_name(host: str) -> str:
    """Return the name or address of a Host header, without the port."""
    if host.startswith("["):
        return host[1 : host.find("]")]
    return host.partition(":")[0]

"""Creates the application of the console: the routes of all screens, its files, and errors as pages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import BaseRoute, Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from postroad.api.app import MOUNT_PATH, answer_no_path, create_api
from postroad.api.parts import ApiParts
from postroad.console.authorise import RoleRequiredError, SignInRequiredError, authorise
from postroad.console.guard import API_PREFIX, HEALTH_PATH, Guard
from postroad.console.parts import ConsoleParts
from postroad.console.registry import SCREENS
from postroad.console.screen import PUBLIC, Screen, ScreenRoute
from postroad.console.visit import local_path
from postroad.errors import PostroadError, StateError, UnavailableError, UsageError
from postroad.printable import printable
from postroad.store.engine import read

log = logging.getLogger(__name__)

DATABASE_WITHIN_S = 5.0
HTMX_REQUEST = "hx-request"


def create_app(parts: ConsoleParts, screens: Sequence[Screen] = SCREENS) -> ASGIApp:
    """Return the application of `postroad console` within its guard: the API, and the pages."""
    api = create_api(ApiParts.of(parts.context, parts.trusted_proxies))
    pages = create_routes(parts, screens)
    routes = [Mount(MOUNT_PATH, api), Mount("/", pages)]
    return Guard(Router(routes=routes, default=_answer_no_route), parts.console)


async def _answer_no_route(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a path that no route takes, such as one with a line break: a problem for programs, a text for others."""
    page = PlainTextResponse("There is no such page.\n", 404)
    await (answer_no_path if scope["path"].startswith(API_PREFIX) else page)(scope, receive, send)


def create_routes(parts: ConsoleParts, screens: Sequence[Screen] = SCREENS) -> FastAPI:
    """Return the routes of the console. Those of a screen are refused without its role."""
    app = FastAPI(title="Postroad", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.parts = parts
    app.router.routes.extend(_routes(tuple(screens)))
    for error, handler in _HANDLERS.items():
        app.add_exception_handler(error, handler)
    return app


@cache
def _routes(screens: tuple[Screen, ...]) -> Sequence[BaseRoute]:
    """Return the routes of these screens. Their endpoints' signatures are analysed, which takes half a second."""
    router = APIRouter()
    for screen in screens:
        for route in screen.routes:
            _add(router, route, screen.name)
    for route in (
        ScreenRoute(path="/static/{digest}/{name}", method="GET", role=PUBLIC, endpoint=_static),
        ScreenRoute(path=HEALTH_PATH, method="GET", role=PUBLIC, endpoint=_healthz),
    ):
        _add(router, route, "console")
    return router.routes


def _add(router: APIRouter, route: ScreenRoute, screen: str) -> None:
    endpoint: Any = route.endpoint
    endpoint.console_role = route.role  # `authorise` reads it.
    methods = ["GET", "HEAD"] if route.method == "GET" else [route.method]
    router.add_api_route(
        route.path,
        endpoint,
        methods=methods,
        name=f"{screen}:{endpoint.__name__}",
        response_model=None,
        # Also where the endpoint takes no visit.
        dependencies=[] if route.role is PUBLIC else [Depends(authorise)],
    )


async def _static(request: Request, digest: str, name: str) -> Response:
    parts: ConsoleParts = request.app.state.parts
    file = parts.templates.static.get(name)
    if file is None or request.scope["path"] != file.url:
        raise HTTPException(404, "There is no such file.")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(file.body, headers=headers, media_type=file.media_type)


async def _healthz(request: Request) -> Response:
    """Return 200, or 503 while the database is unavailable."""
    parts: ConsoleParts = request.app.state.parts
    try:
        async with asyncio.timeout(DATABASE_WITHIN_S):
            await asyncio.to_thread(_query, parts.engine)
    except (UnavailableError, TimeoutError):
        return JSONResponse({"service": "postroad", "database": "away"}, 503, {"Retry-After": "60"})
    return JSONResponse({"service": "postroad", "database": "ok"})


def _query(engine: sa.Engine) -> None:
    with read(engine) as connection:
        connection.execute(sa.text("SELECT 1"))


def _error_page(request: Request, status: int, title: str, text: str, *, remedy: str = "") -> HTMLResponse:
    """Return an error as a page: with the menu of the user, if there is one, and a link to the page before."""
    parts: ConsoleParts = request.app.state.parts
    theme = request.cookies.get("theme", "")
    html = parts.templates.render(
        "error.html",
        visit=getattr(request.state, "visit", None),
        notice="",
        theme=theme if theme in ("light", "dark") else "",
        status=status,
        title=title,
        text=text,
        remedy=remedy,
        back=_page_before(request),
    )
    return HTMLResponse(html, status)


def _page_before(request: Request) -> str:
    """Return the page of the console that led to a request; empty: another site did, or it is not known."""
    _, _, address = request.headers.get("referer", "").partition("://")
    host, slash, path = address.partition("/")
    return local_path(slash + path) if slash and host == request.headers.get("host") else ""


async def _sign_in_required(request: Request, error: SignInRequiredError) -> Response:
    where = f"/sign-in?{urlencode({'next': error.target})}" if error.target != "/" else "/sign-in"
    if request.headers.get(HTMX_REQUEST):
        return Response(status_code=401, headers={"HX-Redirect": where})
    if request.method in ("GET", "HEAD"):
        return RedirectResponse(where, 303)
    return _error_page(request, 401, "Sign in first", "The session has ended, and nothing was changed.")


async def _role_required(request: Request, error: RoleRequiredError) -> Response:
    identity = error.visit.user
    return _error_page(
        request,
        403,
        "Your role does not include this",
        f"It needs the role {error.needed}, and {identity.user} has {identity.role}.",
        remedy="Ask an owner of this installation for the role.",
    )


async def _postroad_error(request: Request, error: PostroadError) -> Response:
    status = 500
    match error:
        case UnavailableError():
            status = 503
        case StateError():
            status = 409
        case UsageError():
            status = 422
    where = f"{error.where}: " if error.where else ""
    title = "A part of Postroad is unavailable" if status == 503 else "This is not possible"
    return _error_page(request, status, title, where + error.message, remedy=error.remedy or "")


async def _http_error(request: Request, error: StarletteHTTPException) -> Response:
    title = "There is no such page" if error.status_code == 404 else "The request was rejected"
    text = "" if error.status_code in (404, 405) else str(error.detail)
    response = _error_page(request, error.status_code, title, text)
    response.headers.update(error.headers or {})
    return response


async def _not_valid(request: Request, error: RequestValidationError) -> Response:
    fields = "; ".join(f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors())
    return _error_page(request, 422, "The address of this page is not valid", fields)


async def _no_value(request: Request, error: sa.exc.DataError) -> Response:
    """Answer a text or a number that the database cannot compare, such as one with a NUL character."""
    log.warning(
        "%s %s has a value that the database rejects: %s",
        request.method,
        printable(request.scope["path"]),
        printable(str(error.orig)),
    )
    return _error_page(request, 422, "The address of this page is not valid", "It has a value that cannot exist.")


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, printable(request.scope["path"]), exc_info=error)
    return _error_page(request, 500, "This page failed", "The log of the console has the cause.")


_HANDLERS: dict[Any, Any] = {
    SignInRequiredError: _sign_in_required,
    RoleRequiredError: _role_required,
    PostroadError: _postroad_error,
    StarletteHTTPException: _http_error,
    RequestValidationError: _not_valid,
    sa.exc.DataError: _no_value,
    Exception: _unexpected,
}

"""One request of a user: reads from the database, does acts with their audit record, renders pages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote, unquote, urlencode

import sqlalchemy as sa
from fastapi import Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from postroad.app.recorded_act import ACT_WITHIN_S, recorded_act
from postroad.console.confirm import Confirmation
from postroad.console.forms import ConsoleForm, parse_form
from postroad.console.guard import cookie_name, is_secure
from postroad.console.parts import ConsoleParts
from postroad.errors import UnavailableError
from postroad.settings import AccessRole
from postroad.store.audit import Actor, AuditedAct
from postroad.store.engine import read
from postroad.web.body import read_body

P = ParamSpec("P")
T = TypeVar("T")

READ_WITHIN_S = 15.0
STATEMENT_MS = 10_000
MAX_FORM_BYTES = 262_144
NOTICE_COOKIE = "notice"
THEME_COOKIE = "theme"
NOTICE_S = 30
MAX_NOTICE_CHARACTERS = 300
MAX_BACK = 4_000


@dataclass(frozen=True, kw_only=True)
class ConsoleIdentity:
    """The user of a request.

    Attributes:
        user: Name of the user.
        role: What the user may do.
        method: How the user signed in: ``link``, ``password``, ``oidc`` or ``proxy``.
        session_id: Id of the session. None: a proxy authenticates each request.
    """

    user: str
    role: AccessRole
    method: str
    session_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A request, its user and the parts.

    Attributes:
        request: The request.
        parts: Dependencies of the pages.
        client: Client address.
        identity: The user. None: a public route, without a session.
    """

    request: Request
    parts: ConsoleParts
    client: str
    identity: ConsoleIdentity | None

    @property
    def user(self) -> ConsoleIdentity:
        """The user of a route that needs a role."""
        if self.identity is None:
            raise LookupError("a public route has no user")
        return self.identity

    @property
    def actor(self) -> Actor:
        """The user, for the audit log."""
        return Actor(name=self.user.user, origin=self.client)

    @property
    def theme(self) -> str:
        """The colours that the user chose: ``light``, ``dark``, or empty for those of the device."""
        theme = self.request.cookies.get(THEME_COOKIE, "")
        return theme if theme in ("light", "dark") else ""

    @property
    def screen(self) -> str:
        """Name of the screen that the route belongs to."""
        name: str = self.request.scope["route"].name
        return name.partition(":")[0]

    @property
    def here(self) -> str:
        """Path and query of the request."""
        return self.url()

    def may(self, role: AccessRole | str) -> bool:
        """Return whether the user may use a route with this role."""
        return self.identity is not None and self.identity.role.includes(AccessRole(role))

    def url(self, **changes: object) -> str:
        """Return the URL of this page with changed query parameters. None removes one. Repeated ones stay."""
        pairs = [(name, value) for name, value in self.request.query_params.multi_items() if name not in changes]
        pairs += [(name, str(value)) for name, value in changes.items() if value is not None]
        query = f"?{urlencode(pairs)}" if pairs else ""
        return quote(self.request.scope["path"]) + query

    async def read(
        self, function: Callable[Concatenate[sa.Connection, P], T], *arguments: P.args, **options: P.kwargs
    ) -> T:
        """Call a function with a connection of a transaction that reads, in a thread.

        Args:
            function: Takes a connection first.
            arguments: Its other arguments.
            options: Its keyword arguments.

        Returns:
            What it returned.

        Raises:
            UnavailableError: The database did not reply in time.
        """

        def run() -> T:
            with read(self.parts.engine) as connection:
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_MS}")
                return function(connection, *arguments, **options)

        return await _within(READ_WITHIN_S, asyncio.to_thread(run))

    async def run(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call a function that blocks, in a thread. Raises UnavailableError if it does not return in time."""
        return await _within(ACT_WITHIN_S, asyncio.to_thread(function, *arguments, **options))

    def act(
        self, action: str, target: str, *, count: int | None = None, note: str = "", first: bool = False
    ) -> AbstractAsyncContextManager[AuditedAct]:
        """Record what the block does in the audit log, in the first transaction that it commits.

        Args:
            action: What is done, such as ``campaign.pause``.
            target: What it is done to.
            count: Number of things it touches, if it is known. The block may set it.
            note: The reason that the user gave.
            first: Commit the record before the block, for an act on the queue.

        Returns:
            An asynchronous context manager, in whose block the act is done.
        """
        act = AuditedAct(actor=self.actor, action=action, target=target, at=self.parts.now(), count=count, note=note)
        return recorded_act(self.parts.engine, act, first=first)

    async def form(self) -> ConsoleForm:
        """Return the form of a POST. Raises HTTPException for a body that is too long or too slow."""
        body = await read_body(self.request, max_bytes=MAX_FORM_BYTES)
        return parse_form(self.request.headers.get("content-type", ""), body)

    def page(self, template: str, /, *, status: int = 200, **values: Any) -> HTMLResponse:
        """Return a page, or a part of one.

        Args:
            template: Name of the template.
            status: HTTP status.
            values: Variables of the template.
        """
        notice = unquote(self.request.cookies.get(self._notice_cookie, ""))[:MAX_NOTICE_CHARACTERS]
        html = self.parts.templates.render(template, visit=self, theme=self.theme, notice=notice, **values)
        response = HTMLResponse(html, status)
        if notice and not self.request.headers.get("hx-request"):
            response.delete_cookie(self._notice_cookie, **self.cookie_options())
        return response

    def confirm(self, confirmation: Confirmation, *, errors: Sequence[str] = (), status: int = 200) -> HTMLResponse:
        """Return the page that shows what an act would touch, and its button."""
        return self.page("confirm.html", status=status, confirmation=confirmation, errors=errors)

    def redirect(self, path: str, notice: str = "") -> Response:
        """Return a redirect to a page of the console after an act, which shows a notice there once."""
        response = RedirectResponse(path, 303)
        if notice:
            text = quote(notice[:MAX_NOTICE_CHARACTERS])
            response.set_cookie(self._notice_cookie, text, max_age=NOTICE_S, **self.cookie_options())
        return response

    @property
    def _notice_cookie(self) -> str:
        return cookie_name(NOTICE_COOKIE, secure=is_secure(self.request, self.parts.console))

    def cookie_options(self) -> dict[str, Any]:
        """Return the attributes of every cookie."""
        secure = is_secure(self.request, self.parts.console)
        return {"path": "/", "secure": secure, "httponly": True, "samesite": "strict"}


async def _within(seconds: float, waiting: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await waiting
    except TimeoutError:
        raise UnavailableError(
            f"the database took more than {seconds:g} s",
            remedy="Narrow the filter, or try again when less mail is flowing.",
        ) from None


BackText = Annotated[str, Query(max_length=MAX_BACK)]
"""Query parameter with the page to return to after an act."""


def posted_back(form: ConsoleForm, otherwise: str) -> str:
    """Return the page to return to after an act, from the field ``back`` of its form."""
    return local_path(form.raw("back")[:MAX_BACK] or otherwise)


def local_path(text: str) -> str:
    """Return a path within the console, or ``/`` for any other text, such as a URL of another site."""
    if text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text:
        return text
    return "/"

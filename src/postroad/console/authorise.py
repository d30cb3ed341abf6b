"""Decides who asks, and whether their role may. It runs before every route, and a route without a role is refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Request

from postroad.console.guard import cookie_name, is_secure
from postroad.console.parts import ConsoleParts
from postroad.console.screen import role_attribute
from postroad.console.visit import ConsoleIdentity, Visit
from postroad.settings import AccessRole
from postroad.store.console_access import SEEN_EVERY, ConsoleSession, find_session, mark_seen
from postroad.store.engine import read, write
from postroad.web.rate_limit import client_address, is_in, networks


class SignInRequiredError(Exception):
    """The request has no session. ``target``: the page to return to after the sign-in."""

    def __init__(self, target: str) -> None:
        super().__init__("sign in first")
        self.target = target


class RoleRequiredError(Exception):
    """The user's role may not use this route."""

    def __init__(self, visit: Visit, needed: AccessRole) -> None:
        super().__init__(f"this needs the role {needed}")
        self.visit = visit
        self.needed = needed


@dataclass(frozen=True)
class _Session:
    """Looks up the session of a request. ``by_user``: the user made it, and not a page that refreshes itself."""

    parts: ConsoleParts
    by_user: bool

    def find(self, token: str) -> ConsoleSession | None:
        now = self.parts.now()
        with read(self.parts.engine) as connection:
            idle = timedelta(milliseconds=self.parts.console.idle_ms)
            session = find_session(connection, token, now, idle)
        due = session is not None and now - session.seen_at >= SEEN_EVERY
        if self.by_user and due and session is not None and session.id is not None:
            with write(self.parts.engine) as connection:
                mark_seen(connection, session.id, now)
        return session


async def authorise(request: Request) -> Visit:
    """Return the visit of a request whose user may use the route.

    Raises:
        SignInRequiredError: The route needs a session, and the request has none.
        RoleRequiredError: The user's role does not include that of the route.
        LookupError: The route declares no role.
    """
    parts: ConsoleParts = request.app.state.parts
    needed = role_attribute(request.scope["endpoint"])
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
    peer = request.client.host if request.client is not None else "unknown"
    visit = Visit(
        request=request,
        parts=parts,
        client=client_address(peer, forwarded, parts.trusted_proxies),
        identity=await identify(request, parts, peer),
    )
    request.state.visit = visit  # For the page of an error.
    if needed is None:
        return visit
    if visit.identity is None:
        raise SignInRequiredError(_target(request))
    if not visit.identity.role.includes(needed):
        raise RoleRequiredError(visit, needed)
    return visit


async def identify(request: Request, parts: ConsoleParts, peer: str) -> ConsoleIdentity | None:
    """Return the user of a request: from the header of a trusted proxy, else from the session."""
    proxy = parts.console.proxy
    if proxy is not None and is_in(peer, networks(proxy.addresses)):
        names = request.headers.getlist(proxy.header)
        # Two headers: one of them may be the client's own.
        role = parts.console.role_of(names[0]) if len(names) == 1 and names[0] else None
        if role is not None:
            return ConsoleIdentity(user=names[0], role=role, method="proxy")
    token = request.cookies.get(session_cookie(request, parts))
    if not token:
        return None
    session = await asyncio.to_thread(_Session(parts, by_user="hx-request" not in request.headers).find, token)
    role = _current_role(session, parts) if session is not None else None
    if session is None or role is None:
        return None
    return ConsoleIdentity(user=session.user, role=role, method=session.method, session_id=session.id)


def _current_role(session: ConsoleSession, parts: ConsoleParts) -> AccessRole | None:
    """Return what a session may do. A user of the provider has the role of the settings now, and may have lost it."""
    if session.method != "oidc":
        return session.role  # A change of a user with a password ends the user's sessions.
    return parts.console.role_of(session.user) if parts.oidc is not None else None


def session_cookie(request: Request, parts: ConsoleParts) -> str:
    """Return the name of the session's cookie."""
    return session_cookie_name(secure=is_secure(request, parts.console))


def session_cookie_name(*, secure: bool) -> str:
    """Return the name of the session's cookie, by whether the browser uses HTTPS."""
    return cookie_name("postroad", secure=secure)


def _target(request: Request) -> str:
    if request.method != "GET" or request.headers.get("hx-request"):
        return "/"
    query = f"?{request.url.query}" if request.url.query else ""
    return quote(request.scope["path"]) + query


CurrentVisit = Annotated[Visit, Depends(authorise)]
"""The parameter of a route that gets its visit."""

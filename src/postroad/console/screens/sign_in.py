"""Sign-in by link, password or provider, sign-out, and the choice of colours."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any
from urllib.parse import quote, unquote, urlencode

import sqlalchemy as sa
from fastapi import Response
from fastapi.responses import RedirectResponse

from postroad.console.authorise import CurrentVisit, session_cookie
from postroad.console.confirm import FieldKind, FormField
from postroad.console.guard import cookie_name, is_from_other_site, is_secure, own_origin
from postroad.console.oidc import CALLBACK, OidcClient, OidcRefusedError
from postroad.console.screen import PUBLIC, Screen
from postroad.console.visit import THEME_COOKIE, Visit, local_path
from postroad.errors import StateError
from postroad.settings import AccessRole
from postroad.store.audit import Actor, record_act
from postroad.store.console_access import (
    ConsoleUser,
    SignIn,
    any_user,
    begin_session,
    end_session,
    find_user,
    link_is_valid,
    new_token,
    set_password_hash,
    use_link,
)
from postroad.store.engine import write

screen = Screen(name="sign_in", title="Sign in", path="/sign-in")

OIDC_COOKIE = "postroad-oidc"
OIDC_WITHIN_S = 600
THEME_S = 31_536_000
MAX_USER_CHARACTERS = 200
MAX_TARGET_CHARACTERS = 3_000
"""Longest page, quoted, that a sign-in by a provider returns to. Browsers keep cookies of at most 4,096 bytes."""

log = logging.getLogger(__name__)


@screen.get("/sign-in", role=PUBLIC)
async def sign_in(visit: CurrentVisit, next: str = "/") -> Response:  # noqa: A002  (the name in the URL)
    """Show the ways to sign in."""
    if visit.identity is not None:
        return RedirectResponse(local_path(next), 303)
    return await _sign_in_page(visit, local_path(next))


async def _sign_in_page(
    visit: Visit, target: str, *, user: str = "", error: str = "", status: int = 200, retry_after_s: int = 0
) -> Response:
    fields = [
        FormField(name="user", label="User", value=user, autocomplete="username"),
        FormField(name="password", label="Password", kind=FieldKind.PASSWORD, autocomplete="current-password"),
    ]
    by_password = await visit.read(any_user)
    oidc = f"/sign-in/oidc?{urlencode({'next': target})}" if visit.parts.oidc is not None else ""
    page = visit.page(
        "sign_in.html", status=status, fields=fields, target=target, error=error, by_password=by_password, oidc=oidc
    )
    if retry_after_s:
        page.headers["Retry-After"] = str(retry_after_s)
    return page


@screen.post("/sign-in", role=PUBLIC)
async def sign_in_by_password(visit: CurrentVisit) -> Response:
    """Sign in with a name and a password."""
    form = await visit.form()
    name = form.text("user", max_characters=MAX_USER_CHARACTERS)
    target, password = local_path(form.raw("next") or "/"), form.raw("password")
    # A name that is not valid is the name of no user, and may be as long as the form.
    if wait_s := _wait_s(visit, "" if form.errors else name):
        error = f"Too many attempts. Try again in {wait_s} s."
        return await _sign_in_page(visit, target, user=name, error=error, status=429, retry_after_s=wait_s)
    user = None if form.errors else await visit.read(find_user, name)
    if not await visit.parts.passwords.verify(user.password_hash if user else None, password) or user is None:
        log.warning("sign-in with a password failed, from %s", visit.client)
        error = "The user or the password is wrong."
        return await _sign_in_page(visit, target, user=name, error=error, status=401)
    rehashed = visit.parts.passwords.hash(password) if visit.parts.passwords.needs_rehash(user.password_hash) else None
    token = await visit.run(_begin_by_password, visit, user, rehashed)
    if token is None:
        return await _sign_in_page(visit, target, user=name, error="The user was changed. Try again.", status=401)
    log.info("%s signed in by password, from %s, as %s", user.name, visit.client, user.role)
    return _with_session(visit, token, target)


def _begin_by_password(visit: Visit, user: ConsoleUser, rehashed: str | None) -> str | None:
    """Begin a session. Returns None if the user was removed or changed after the password was verified."""
    with write(visit.parts.engine) as connection:
        current = find_user(connection, user.name)
        if current is None or current.password_hash != user.password_hash:
            return None
        if rehashed is not None:
            set_password_hash(connection, user.name, rehashed)
        return _begin_in(connection, visit, user.name, current.role, "password")


@screen.get("/sign-in/link", role=PUBLIC)
async def show_link(visit: CurrentVisit, token: str = "") -> Response:
    """Show the button of a sign-in link. A preview of the link that a mail program makes does not use it up."""
    if is_from_other_site(visit.request):
        # A person followed it from a mail, or a page asks for it again and again. So it is neither an attempt of the
        # visitor nor looked up: the button, which only the visitor presses, is both.
        return visit.page("sign_in_link.html", token=token, valid=True)
    valid = not _wait_s(visit) and await visit.read(link_is_valid, token, visit.parts.now())
    return visit.page("sign_in_link.html", status=200 if valid else 404, token=token, valid=valid)


@screen.post("/sign-in/link", role=PUBLIC)
async def sign_in_by_link(visit: CurrentVisit) -> Response:
    """Use a sign-in link up."""
    form = await visit.form()
    if wait_s := _wait_s(visit):
        return visit.page("sign_in_link.html", status=429, token="", valid=False, wait_s=wait_s)
    used = await visit.run(_use_link, visit, form.raw("token"))
    if used is None:
        log.warning("sign-in with a link failed, from %s", visit.client)
        return visit.page("sign_in_link.html", status=404, token="", valid=False)
    user, role, session = used
    log.info("%s signed in by link, from %s, as %s", user, visit.client, role)
    return _with_session(visit, session, "/")


def _use_link(visit: Visit, token: str) -> tuple[str, AccessRole, str] | None:
    """Use a link up and begin its session in one transaction. Returns the user, the role and the session's token."""
    now = visit.parts.now()
    with write(visit.parts.engine) as connection:
        used = use_link(connection, token, now)
        if used is None:
            return None
        user, role = used
        return user, role, _begin_in(connection, visit, user, role, "link")


@screen.get("/sign-in/oidc", role=PUBLIC)
async def begin_oidc(visit: CurrentVisit, next: str = "/") -> Response:  # noqa: A002  (the name in the URL)
    """Lead the user to the provider. From another site, lead to the page with the link that leads to the provider."""
    client = _oidc(visit)
    if is_from_other_site(visit.request):
        return RedirectResponse(f"/sign-in?{urlencode({'next': local_path(next)})}", 303)
    secret = new_token()
    url = await client.authorization_url(secret, _redirect_uri(visit))
    response = RedirectResponse(url, 303)
    # Lax: the provider's redirect is a request from another site. The target is public, and checked when it is read.
    target = quote(local_path(next))
    value = f"{secret}|{target if len(target) <= MAX_TARGET_CHARACTERS else '/'}"
    response.set_cookie(_oidc_cookie(visit), value, max_age=OIDC_WITHIN_S, **_oidc_options(visit))
    return response


@screen.get(CALLBACK, role=PUBLIC)
async def finish_oidc(visit: CurrentVisit, code: str = "", state: str = "", error: str = "") -> Response:
    """Sign the user in whom the provider authenticated."""
    client = _oidc(visit)
    secret, _, target = visit.request.cookies.get(_oidc_cookie(visit), "").partition("|")
    try:
        client.require_begun(secret, state)  # First: any site can cause another response, which is not counted.
        if wait_s := _wait_s(visit):
            return await _sign_in_page(visit, "/", error=f"Try again in {wait_s} s.", status=429, retry_after_s=wait_s)
        user, role = await _oidc_user(visit, client, secret, code="" if error else code, state=state)
    except OidcRefusedError as refused:
        log.warning("sign-in by the provider failed, from %s: %s", visit.client, refused.message)
        return await _sign_in_page(visit, "/", error=f"{refused.message.capitalize()}.", status=401)

    def begin() -> str:
        with write(visit.parts.engine) as connection:
            return _begin_in(connection, visit, user, role, "oidc")

    token = await visit.run(begin)
    log.info("%s signed in by the provider, from %s, as %s", user, visit.client, role)
    response = _with_session(visit, token, local_path(unquote(target) or "/"), crossing=True)
    response.delete_cookie(_oidc_cookie(visit), **_oidc_options(visit))
    return response


async def _oidc_user(visit: Visit, client: OidcClient, secret: str, *, code: str, state: str) -> tuple[str, AccessRole]:
    """Return the user whom the provider authenticated, and the user's role. Raises OidcRefusedError."""
    if not code or not secret:
        raise OidcRefusedError("the provider did not sign you in, or this sign-in has expired")
    user = await client.finish(secret, _redirect_uri(visit), code=code, state=state)
    role = visit.parts.console.role_of(user)
    if role is None:
        raise OidcRefusedError(f"{user} has no role here")
    return user, role


def _oidc(visit: Visit) -> OidcClient:
    if visit.parts.oidc is None:
        raise StateError("sign-in by a provider is not set", remedy="Set console.oidc.")
    return visit.parts.oidc


def _oidc_cookie(visit: Visit) -> str:
    """Return the name of the cookie of a sign-in by a provider, which another host of the domain cannot set."""
    return cookie_name(OIDC_COOKIE, secure=is_secure(visit.request, visit.parts.console))


def _oidc_options(visit: Visit) -> dict[str, Any]:
    return {**visit.cookie_options(), "samesite": "lax"}


def _redirect_uri(visit: Visit) -> str:
    return own_origin(visit.request, visit.parts.console) + CALLBACK


def _wait_s(visit: Visit, user: str = "") -> int:
    """Count an attempt of the client, and for the user. Returns the seconds to wait if there are too many."""
    attempts = visit.parts.sign_ins
    return attempts.wait_s(f"client {visit.client}") or (attempts.wait_s(f"user {user}") if user else 0)


def _begin_in(connection: sa.Connection, visit: Visit, user: str, role: AccessRole, method: str) -> str:
    """Begin a session in a transaction, end the one that the browser had, and record it."""
    now = visit.parts.now()
    if visit.identity is not None and visit.identity.session_id is not None:
        end_session(connection, visit.identity.session_id)
    expires_at = now + timedelta(milliseconds=visit.parts.console.session_ms)
    token = begin_session(
        connection, SignIn(user=user, role=role, method=method, origin=visit.client, expires_at=expires_at), now
    )
    record_act(connection, Actor(name=user, origin=visit.client), "session.begin", user, None, at=now, note=method)
    return token


def _with_session(visit: Visit, token: str, target: str, *, crossing: bool = False) -> Response:
    """Return the response that sets the session's cookie and leads to a page.

    ``crossing``: the request came from another site. A redirect would not send the cookie, which is SameSite=Strict; a
    page of ours that refreshes itself does.
    """
    response: Response = visit.page("signed_in.html", target=target) if crossing else RedirectResponse(target, 303)
    response.set_cookie(session_cookie(visit.request, visit.parts), token, **visit.cookie_options())
    return response


@screen.post("/sign-out", role=AccessRole.VIEW)
async def sign_out(visit: CurrentVisit) -> Response:
    """End the session."""
    session_id = visit.user.session_id

    def end() -> None:
        with write(visit.parts.engine) as connection:
            if session_id is not None and end_session(connection, session_id) is not None:
                record_act(connection, visit.actor, "session.end", visit.user.user, 1, at=visit.parts.now())

    await visit.run(end)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(session_cookie(visit.request, visit.parts), **visit.cookie_options())
    return response


@screen.post("/theme", role=PUBLIC)
async def set_theme(visit: CurrentVisit) -> Response:
    """Keep the user's choice of colours in a cookie."""
    form = await visit.form()
    theme = form.choice("theme", ("", "light", "dark"))
    response = RedirectResponse(local_path(form.raw("next") or "/"), 303)
    if theme and not form.errors:
        response.set_cookie(THEME_COOKIE, theme, max_age=THEME_S, **visit.cookie_options())
    else:
        response.delete_cookie(THEME_COOKIE, **visit.cookie_options())
    return response

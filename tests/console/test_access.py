"""No page without a session, and each role refused what it may not: enumerated from the registered routes."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from html import unescape
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from fastapi import Response
from fastapi.routing import APIRoute

from postroad.app.api_keys import create_key
from postroad.console.app import create_app, create_routes
from postroad.console.authorise import session_cookie_name
from postroad.console.screen import PUBLIC, Screen, role_attribute
from postroad.settings import AccessRole, ConsoleSettings
from postroad.store.console_access import save_user
from postroad.store.engine import write
from postroad.store.types import UtcDateTime
from tests.console.kit import Console, open_console, set_session
from tests.console.pages import closed_routes, fill, routes
from tests.kit.clock import FakeClock

ROLES = list(AccessRole)
PUBLIC_PATHS = {
    "/sign-in",
    "/sign-in/link",
    "/sign-in/oidc",
    "/sign-in/oidc/callback",
    "/theme",
    "/static/{digest}/{name}",
    "/healthz",
}


async def test_every_route_of_the_application_declares_its_role(console: Console) -> None:
    registered = [route for route in create_routes(console.parts).routes if isinstance(route, APIRoute)]
    assert len(registered) == len(list(routes())) + 2  # the files, and the health
    assert {route.path for route in registered if role_attribute(route.endpoint) is PUBLIC} == PUBLIC_PATHS


async def test_no_page_is_shown_without_a_session(console: Console) -> None:
    http = await console.client(None)
    for route in closed_routes():
        reply = await http.request(route.route.method, route.path)
        if route.route.method == "GET":
            assert (reply.status_code, reply.headers["location"].partition("?")[0]) == (303, "/sign-in"), route
        else:
            assert reply.status_code == 401, route
            assert "postroad" not in reply.cookies
    assert console.audit() == []


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_is_refused_what_it_may_not(console: Console, role: AccessRole) -> None:
    await asyncio.to_thread(fill, console.engine)
    before = len(console.audit())
    for route in closed_routes():
        needed = route.route.role
        assert needed is not None
        if role.includes(needed):
            continue
        http = await console.client(role)
        reply = await http.request(route.route.method, route.path, data={} if route.route.method == "POST" else None)
        assert reply.status_code == 403, route
        assert f"It needs the role {needed}" in reply.text
    assert len(console.audit()) == before


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_sees_the_pages_that_it_may(console: Console, role: AccessRole) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(role)
    seen = 0
    for route in closed_routes():
        if route.route.method == "GET" and route.route.role is not None and role.includes(route.route.role):
            reply = await http.get(route.path)
            assert reply.status_code == 200, (route, reply.text[:2000])
            seen += 1
    assert seen


def test_roles_include_the_ones_before_them() -> None:
    for place, role in enumerate(ROLES):
        assert [role.includes(other) for other in ROLES] == [index <= place for index in range(len(ROLES))]


async def test_an_endpoint_that_takes_no_visit_is_guarded_too(console: Console) -> None:
    screen = Screen(name="extra", title="Extra", path="/extra")

    @screen.get("/extra", role=AccessRole.OWN)
    async def extra() -> Response:
        return Response("secret")

    app = create_app(console.parts, [screen])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        reply = await http.get("/extra")
    assert reply.status_code == 303
    assert "secret" not in reply.text


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_session_ends_at_its_end_and_when_it_is_idle(engine: sa.Engine, redis_url: str, tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_console(engine, redis_url, tmp_path, clock=clock) as console:
        token = console.session(AccessRole.VIEW)
        http = await console.client(None)
        set_session(http, token)
        assert (await http.get("/audit")).status_code == 403
        clock.advance(50 * 60_000)
        assert (await http.get("/audit")).status_code == 403, "its use is recorded"
        clock.advance(11 * 60_000)
        assert (await http.get("/audit")).status_code == 303, "an hour is over"

        token = console.session(AccessRole.VIEW)
        with write(engine) as connection:
            at = console.parts.now() + timedelta(days=3)
            statement = sa.text("UPDATE console_session SET expires_at = :at")
            connection.execute(statement.bindparams(sa.bindparam("at", at, UtcDateTime())))
        http.cookies.clear()
        set_session(http, token)
        assert (await http.get("/")).status_code == 200
        clock.advance(2 * 3_600_000 + 1)
        assert (await http.get("/")).status_code == 303, "it was idle for two hours"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_page_that_refreshes_itself_does_not_keep_a_session(
    engine: sa.Engine, redis_url: str, tmp_path: Path
) -> None:
    clock, settings = FakeClock(), ConsoleSettings(port=0, idle_ms=600_000)
    async with open_console(engine, redis_url, tmp_path, settings, clock=clock) as console:
        http = await console.client(None)
        set_session(http, console.session(AccessRole.VIEW))
        polls = []
        for minute in range(14):
            clock.advance(60_000)
            if minute == 3:
                assert (await http.get("/audit")).status_code == 403, "a person is there"
            polls.append((await http.get("/now/live", headers={"HX-Request": "true"})).status_code)
        assert polls == [200] * 13 + [401]


async def test_an_owner_ends_the_session_of_another(console: Console) -> None:
    owner, other = await console.client(AccessRole.OWN), await console.client(AccessRole.SEND, user="grace")
    page = await owner.get("/access")
    assert "grace" in page.text
    assert (await other.get("/")).status_code == 200
    asked = await owner.get("/access/sessions/2/end")
    assert "End this session?" in asked.text
    assert (await other.get("/")).status_code == 200, "asking changes nothing"
    ended = await owner.post("/access/sessions/2/end", data={})
    assert ended.status_code == 303
    assert (await other.get("/")).status_code == 303
    assert (await owner.get("/")).status_code == 200
    (record,) = console.audit()
    assert (record.actor, record.action, record.target, record.count) == ("own@example.com", "session.end", "grace", 1)
    assert record.origin == "127.0.0.1"
    assert (await owner.post("/access/sessions/2/end", data={})).status_code == 409


async def test_signing_out_ends_the_session_on_the_server(console: Console) -> None:
    http = await console.client(AccessRole.VIEW)
    token = http.cookies[session_cookie_name(secure=False)]
    reply = await http.post("/sign-out", data={})
    assert reply.headers["location"] == "/sign-in"
    set_session(http, token)
    assert (await http.get("/")).status_code == 303


async def test_an_owner_sees_the_keys_of_the_api_and_revokes_one(console: Console) -> None:
    with write(console.engine) as connection:
        made = create_key(connection, "shop", AccessRole.SEND, expires_at=None, now=console.parts.now())
    http = await console.client(AccessRole.OWN)
    page = (await http.get("/access")).text
    assert made.secret[:15] in page
    assert made.secret[16:] not in page
    api = {"Authorization": f"Bearer {made.secret}"}
    assert (await http.get("/api/v1/audiences", headers=api)).status_code == 200
    assert "The next request with it is refused." in (await http.get("/access/keys/shop/revoke")).text
    assert (await http.post("/access/keys/shop/revoke")).status_code == 303
    assert (await http.get("/api/v1/audiences", headers=api)).status_code == 401
    record = console.audit()[0]
    assert (record.action, record.target, record.count) == ("api-key.revoke", "shop", 1)
    assert (await http.post("/access/keys/shop/revoke")).status_code == 409
    assert "revoked <time" in (await http.get("/access")).text


async def test_users_and_keys_are_listed_by_pages_of_their_own(console: Console) -> None:
    names, now = [f"user{number:03}" for number in range(120)], console.parts.now()
    with write(console.engine) as connection:
        for name in names:
            save_user(connection, name, AccessRole.VIEW, "x", now)
            create_key(connection, name, AccessRole.VIEW, expires_at=None, now=now)
    http = await console.client(AccessRole.OWN)
    for what, act in (("users", "users/([^/]+)/remove"), ("API keys", "keys/([^/]+)/revoke")):
        found, path = [], "/access"
        while path:
            page = (await http.get(path)).text
            found += re.findall(f'href="/access/{act}"', page)
            [pager] = re.findall(f'aria-label="Pages of {what}">(.*?)</nav>', page, re.DOTALL)
            following = re.search(r'href="([^"]+)" rel="next"', pager)
            path = unescape(following[1]) if following else ""
        assert found == names, what
    assert (await http.get("/access?users_after=x&keys_after=x")).status_code == 422

"""Sign-in by link and by password, and its limits."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from pydantic import SecretStr

from postroad.console.authorise import session_cookie_name
from postroad.console.links import make_sign_in_link
from postroad.console.passwords import MIN_CHARACTERS, Passwords
from postroad.console.serve import require_sign_in
from postroad.console.visit import local_path
from postroad.errors import ConfigError, UsageError
from postroad.settings import AccessRole, ConsoleSettings, OidcSettings, ProxyHeaderSettings, RateSetting
from postroad.store.audit import Actor
from postroad.store.console_access import find_user, remove_user, save_user, set_password_hash
from postroad.store.engine import read, write
from tests.console.kit import Console, open_console, set_session
from tests.kit.clock import FakeClock

COOKIE = session_cookie_name(secure=False)
PASSWORD = "correct horse battery staple"
ACTOR = Actor(name="root", origin="here")


def link_path(console: Console, role: AccessRole = AccessRole.OWN) -> str:
    now = console.parts.now()
    made = make_sign_in_link(console.engine, console.parts.console, "ada", role, actor=ACTOR, now=now)
    url = urlsplit(made.url)
    assert made.expires_at == now + timedelta(minutes=15)
    return f"{url.path}?{url.query}"


def add_user(console: Console, name: str = "ada", role: AccessRole = AccessRole.OPERATE) -> None:
    with write(console.engine) as connection:
        save_user(connection, name, role, Passwords().hash(PASSWORD), console.parts.now())


def lines_of(engine: sa.Engine) -> str:
    """Return everything that the tables of the console contain, as text."""
    with read(engine) as connection:
        return "\n".join(
            str(row)
            for table in ("console_user", "console_session", "sign_in_link", "audit_record")
            for row in connection.execute(sa.text(f"SELECT * FROM {table}"))
        )


async def test_a_link_signs_in_once(console: Console) -> None:
    path = link_path(console, AccessRole.SEND)
    token = path.partition("token=")[2]
    assert token not in lines_of(console.engine), "it is stored as a hash"
    http = await console.client(None)
    for _ in range(3):  # Previews of mail programs and chats open it too.
        page = await http.get(path)
        assert page.status_code == 200
        assert "set-cookie" not in page.headers
    reply = await http.post("/sign-in/link", data={"token": token})
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "domain" not in cookie
    assert http.cookies[COOKIE] not in lines_of(console.engine)
    assert "ada" in (await http.get("/")).text
    assert (await http.get("/access")).status_code == 403, "its role is send"
    again = await console.client(None)
    assert (await again.get(path)).status_code == 404
    assert (await again.post("/sign-in/link", data={"token": token})).status_code == 404
    assert [record.action for record in console.audit()] == ["session.begin", "link.make"]


async def test_of_concurrent_uses_of_a_link_one_signs_in(console: Console) -> None:
    token = link_path(console).partition("token=")[2]
    clients = [await console.client(None) for _ in range(5)]
    replies = await asyncio.gather(*(http.post("/sign-in/link", data={"token": token}) for http in clients))
    assert sorted(reply.status_code for reply in replies) == [303, 404, 404, 404, 404]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_link_expires(engine: sa.Engine, redis_url: str, tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_console(engine, redis_url, tmp_path, clock=clock) as console:
        path = link_path(console)
        clock.advance(15 * 60_000)
        http = await console.client(None)
        assert (await http.get(path)).status_code == 404
        assert (await http.post("/sign-in/link", data={"token": path.partition("token=")[2]})).status_code == 404


async def test_a_sign_in_gets_a_new_token_and_ends_the_session_before(console: Console) -> None:
    http = await console.client(AccessRole.VIEW)
    planted = http.cookies[COOKIE]
    token = link_path(console).partition("token=")[2]
    await http.post("/sign-in/link", data={"token": token})
    assert http.cookies[COOKIE] != planted
    old = await console.client(None)
    set_session(old, planted)
    assert (await old.get("/")).status_code == 303


async def test_a_password_signs_in_and_returns_to_the_page(console: Console) -> None:
    await asyncio.to_thread(add_user, console)
    http = await console.client(None)
    asked = await http.get("/audit?actor=ada")
    assert asked.headers["location"] == "/sign-in?next=%2Faudit%3Factor%3Dada"
    page = await http.get(asked.headers["location"])
    assert 'value="/audit?actor=ada"' in page.text
    form = {"user": "ada", "password": PASSWORD, "next": "/audit?actor=ada"}
    reply = await http.post("/sign-in", data=form)
    assert (reply.status_code, reply.headers["location"]) == (303, "/audit?actor=ada")
    assert (await http.get("/audit?actor=ada")).status_code == 200
    assert (await http.get("/access")).status_code == 403
    assert PASSWORD not in lines_of(console.engine)


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example/", "/\\evil.example"])
async def test_a_sign_in_leads_to_no_other_site(console: Console, target: str) -> None:
    await asyncio.to_thread(add_user, console)
    http = await console.client(None)
    reply = await http.post("/sign-in", data={"user": "ada", "password": PASSWORD, "next": target})
    assert reply.headers["location"] == "/"


@pytest.mark.parametrize(("user", "password"), [("ada", "not it"), ("grace", PASSWORD), ("", PASSWORD), ("ada", "")])
async def test_a_wrong_sign_in_says_the_same_for_all_reasons(console: Console, user: str, password: str) -> None:
    await asyncio.to_thread(add_user, console)
    http = await console.client(None)
    reply = await http.post("/sign-in", data={"user": user, "password": password})
    assert reply.status_code == 401
    assert "The user or the password is wrong." in reply.text
    assert password not in reply.text or not password
    assert COOKIE not in http.cookies


async def test_a_changed_password_ends_the_sessions_of_its_user(console: Console) -> None:
    await asyncio.to_thread(add_user, console)
    http = await console.client(None)
    await http.post("/sign-in", data={"user": "ada", "password": PASSWORD})
    assert (await http.get("/")).status_code == 200
    await asyncio.to_thread(add_user, console)
    assert (await http.get("/")).status_code == 303
    await http.post("/sign-in", data={"user": "ada", "password": PASSWORD})
    with write(console.engine) as connection:
        assert remove_user(connection, "ada")
    assert (await http.get("/")).status_code == 303


async def test_a_hash_with_old_parameters_is_replaced_at_the_sign_in(console: Console) -> None:
    await asyncio.to_thread(add_user, console)
    with write(console.engine) as connection:
        set_password_hash(connection, "ada", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD))
    http = await console.client(None)
    assert (await http.post("/sign-in", data={"user": "ada", "password": PASSWORD})).status_code == 303
    with read(console.engine) as connection:
        user = find_user(connection, "ada")
    assert user is not None
    assert not Passwords().needs_rehash(user.password_hash)
    assert (await http.get("/")).status_code == 200, "its session continues"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_attempts_of_a_client_are_limited(engine: sa.Engine, redis_url: str, tmp_path: Path) -> None:
    settings = ConsoleSettings(port=0, sign_in_rate=RateSetting(count=3, per_ms=60_000))
    async with open_console(engine, redis_url, tmp_path, settings, clock=FakeClock()) as console:
        await asyncio.to_thread(add_user, console)
        http = await console.client(None)
        statuses = [
            (await http.post("/sign-in", data={"user": f"user{number}", "password": "wrong"})).status_code
            for number in range(4)
        ]
        assert statuses == [401, 401, 401, 429]
        late = await http.post("/sign-in", data={"user": "ada", "password": PASSWORD})
        assert late.status_code == 429, "the right password does not help"
        assert int(late.headers["retry-after"]) > 0
        assert (await http.post("/sign-in/link", data={"token": "x"})).status_code == 429
        assert (await http.get("/sign-in")).status_code == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_attempts_for_a_user_are_limited_over_all_clients(
    engine: sa.Engine, redis_url: str, tmp_path: Path
) -> None:
    settings = ConsoleSettings(port=0, sign_in_rate=RateSetting(count=3, per_ms=60_000), trusted_proxies=("127.0.0.1",))
    async with open_console(engine, redis_url, tmp_path, settings, clock=FakeClock()) as console:
        statuses = []
        for number in range(4):
            http = await console.client(None, headers={"X-Forwarded-For": f"192.0.2.{number}"})
            reply = await http.post("/sign-in", data={"user": "ada", "password": "wrong"})
            statuses.append(reply.status_code)
        assert statuses == [401, 401, 401, 429]


async def test_a_name_that_no_user_can_have_is_not_remembered(console: Console) -> None:
    """Its attempts count for the client alone: a limit that keeps names as long as a form could be filled."""
    http = await console.client(None)
    for name in ("x" * 200_000, "ada\0", " "):
        assert (await http.post("/sign-in", data={"user": name, "password": "wrong"})).status_code == 401
    assert len(console.parts.sign_ins) == 1


@pytest.mark.parametrize("change", ["removed", "changed"])
async def test_a_link_of_a_user_ends_with_the_user_s_access(console: Console, change: str) -> None:
    await asyncio.to_thread(add_user, console)
    path = await asyncio.to_thread(link_path, console)
    if change == "removed":
        http = await console.client(AccessRole.OWN)
        assert (await http.post("/access/users/ada/remove", data={})).status_code == 303
    else:
        await asyncio.to_thread(add_user, console, "ada", AccessRole.VIEW)
    stranger = await console.client(None)
    assert (await stranger.get(path)).status_code == 404
    assert (await stranger.post("/sign-in/link", data={"token": path.partition("token=")[2]})).status_code == 404


async def test_a_link_is_not_in_its_repr(console: Console) -> None:
    now = console.parts.now()
    made = make_sign_in_link(console.engine, console.parts.console, "ada", AccessRole.VIEW, actor=ACTOR, now=now)
    assert made.url.partition("token=")[2] not in repr(made)


async def test_an_unknown_user_takes_as_long_as_a_wrong_password() -> None:
    passwords = Passwords()
    known = passwords.hash(PASSWORD)

    async def seconds(password_hash: str | None) -> float:
        began = time.perf_counter()
        assert not await passwords.verify(password_hash, "wrong")
        return time.perf_counter() - began

    taken = [(await seconds(known), await seconds(None)) for _ in range(7)]
    wrong, unknown = median(pair[0] for pair in taken), median(pair[1] for pair in taken)
    assert 0.5 < unknown / wrong < 2


def test_a_short_password_is_refused_with_its_bounds() -> None:
    with pytest.raises(UsageError, match="11 characters") as caught:
        Passwords().hash("x" * (MIN_CHARACTERS - 1))
    assert "12 to 1,000" in (caught.value.remedy or "")


PROXY = ProxyHeaderSettings(header="X-Remote-User", addresses=("127.0.0.1",))
ROLES = {"ada@example.com": AccessRole.OWN, "*": AccessRole.VIEW}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_trusted_proxy_names_the_user(engine: sa.Engine, redis_url: str, tmp_path: Path) -> None:
    settings = ConsoleSettings(port=0, proxy=PROXY, roles=ROLES)
    async with open_console(engine, redis_url, tmp_path, settings) as console:
        http = await console.client(None)
        assert (await http.get("/")).status_code == 303
        assert (await http.get("/access", headers={"X-Remote-User": "ada@example.com"})).status_code == 200
        assert (await http.get("/access", headers={"X-Remote-User": "grace@example.com"})).status_code == 403
        assert (await http.get("/", headers={"X-Remote-User": "grace@example.com"})).status_code == 200
        twice = [("X-Remote-User", "grace@example.com"), ("X-Remote-User", "ada@example.com")]
        assert (await http.get("/access", headers=httpx.Headers(twice))).status_code == 303


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_header_of_any_other_peer_is_ignored(engine: sa.Engine, redis_url: str, tmp_path: Path) -> None:
    proxy = ProxyHeaderSettings(header="X-Remote-User", addresses=("192.0.2.1",))
    settings = ConsoleSettings(port=0, proxy=proxy, roles=ROLES, trusted_proxies=("127.0.0.1",))
    async with open_console(engine, redis_url, tmp_path, settings) as console:
        headers = {"X-Remote-User": "ada@example.com", "X-Forwarded-For": "192.0.2.1"}
        http = await console.client(None, headers=headers)
        assert (await http.get("/")).status_code == 303


OIDC = OidcSettings(issuer="https://id.example.com", client_id="postroad", client_secret=SecretStr("secret"))
URL = "https://console.example.com"
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (ConsoleSettings(), "console.url is not an https:// URL"),
        (ConsoleSettings(url="http://console.example.com", oidc=OIDC), "console.url is not an https:// URL"),
        (ConsoleSettings(url=URL), "no way to sign in is set"),
        (ConsoleSettings(url=URL, oidc=OIDC), ""),
        (ConsoleSettings(url=URL, proxy=PROXY), ""),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_other_machines_are_served_only_with_a_way_to_sign_in(
    engine: sa.Engine, settings: ConsoleSettings, problem: str
) -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.3.2.1"):
        require_sign_in(engine, settings, host)
    for host in (EVERY_ADDRESS, "::", "192.0.2.1", "console.example.com"):
        if not problem:
            require_sign_in(engine, settings, host)
            continue
        with pytest.raises(ConfigError, match=problem) as caught:
            require_sign_in(engine, settings, host)
        assert caught.value.remedy


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_user_with_a_password_is_a_way_to_sign_in(console: Console) -> None:
    await asyncio.to_thread(add_user, console)
    require_sign_in(console.engine, ConsoleSettings(url=URL), EVERY_ADDRESS)


@pytest.mark.parametrize(
    "text", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "evil", "", "/\r\nx"]
)
def test_a_target_after_the_sign_in_is_on_the_console(text: str) -> None:
    assert local_path(text) == "/"

"""Requests of other sites and to other hosts, headers of every response, and what the log contains."""

from __future__ import annotations

import logging
import re
from html import unescape
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa

from postroad.console.guard import CONTENT_SECURITY_POLICY
from postroad.console.message_frame import FRAME_HEADERS
from postroad.settings import AccessRole, ConsoleSettings
from postroad.store.console_access import save_user, users
from postroad.store.engine import read, write
from tests.console.kit import Console, open_console, press
from tests.console.pages import HOSTILE, closed_routes, routes

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    ],
)
async def test_an_act_from_another_site_is_rejected(console: Console, headers: dict[str, str]) -> None:
    signed_in = await console.client(AccessRole.OWN)
    async with httpx.AsyncClient(base_url=console.url, cookies=signed_in.cookies) as http:
        for route in routes():
            if route.route.method == "POST":
                reply = await http.post(route.path, data={}, headers=headers)
                assert reply.status_code == 403, route
                assert "another site" in reply.text
    assert console.audit() == []
    assert (await signed_in.get("/")).status_code == 200


async def test_an_act_with_only_sec_fetch_site_is_accepted(console: Console) -> None:
    signed_in = await console.client(AccessRole.VIEW)
    async with httpx.AsyncClient(base_url=console.url, cookies=signed_in.cookies) as http:
        reply = await http.post("/theme", data={"theme": "dark"}, headers={"Sec-Fetch-Site": "same-origin"})
    assert reply.status_code == 303


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "", "console.example.com", "[::2]:80", "evil.example:80/healthz?"],
)
async def test_a_request_to_another_host_is_rejected(console: Console, host: str) -> None:
    http = await console.client(AccessRole.OWN)
    reply = await http.get("/", headers={"Host": host})
    assert reply.status_code == 421
    assert "console.url" in reply.text
    assert (await http.get("/healthz", headers={"Host": host})).status_code == 200


async def test_a_host_header_is_no_part_of_the_path(console: Console) -> None:
    """As text before the path, it would make that of an act one of the API, whose origin is free."""
    http = await console.client(AccessRole.OWN)
    headers = {"Host": "localhost:80/api/", "Origin": "https://evil.example"}
    assert (await http.post("/theme", data={"theme": "dark"}, headers=headers)).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:8088", "LOCALHOST:1"])
async def test_names_of_this_machine_are_accepted(console: Console, host: str) -> None:
    http = await console.client(None)
    assert (await http.get("/sign-in", headers={"Host": host})).status_code == 200


async def test_every_response_has_the_security_headers(console: Console) -> None:
    http = await console.client(AccessRole.OWN)
    other = await console.client(None)
    paths = [route.path for route in routes() if route.route.method == "GET"]
    replies = [await http.get(path) for path in (*paths, "/none", "/static/0/none", "/healthz", "/?after=x")]
    replies += [await other.get(path) for path in paths]
    replies.append(await http.get("/", headers={"Host": "evil.example"}))
    replies.append(await http.post("/sign-out", headers={"Origin": "https://evil.example"}))
    framed = 0
    for reply in replies:
        own = {
            "content-security-policy": CONTENT_SECURITY_POLICY,
            "x-frame-options": "DENY",
            "referrer-policy": "same-origin",
        }
        if reply.status_code == 200 and reply.url.path == "/launch/spring/message":
            framed += 1
            own = {name.lower(): value for name, value in FRAME_HEADERS.items()}
        assert {name: reply.headers.get_list(name) for name in own} == {n: [value] for n, value in own.items()}, (
            reply.url
        )
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cross-origin-opener-policy"] == "same-origin"
        assert reply.headers["cache-control"] == "no-store", reply.url
        assert "server" not in reply.headers
    assert framed == 1, "the document of a frame is the only other one"
    assert FRAME_HEADERS["Content-Security-Policy"].endswith("; sandbox")
    assert "script-src" not in FRAME_HEADERS["Content-Security-Policy"]
    assert "unsafe" not in CONTENT_SECURITY_POLICY


async def test_static_files_may_be_kept_and_nothing_else_is_served(console: Console) -> None:
    http = await console.client(None)
    for file in console.parts.templates.static.values():
        reply = await http.get(file.url)
        assert (reply.status_code, reply.content) == (200, file.body)
        assert "immutable" in reply.headers["cache-control"]
    for path in ("/static/0/console.css", "/static/0/..%2fapp.py", "/static/../app.py", "/static/x/../../app.py"):
        assert (await http.get(path)).status_code in (303, 404), path


async def test_a_proxy_with_tls_gets_secure_cookies(engine: sa.Engine, redis_url: str, tmp_path: Path) -> None:
    settings = ConsoleSettings(port=0, url="https://console.example.com")
    async with open_console(engine, redis_url, tmp_path, settings) as console:
        http = await console.client(None, headers={"Host": "console.example.com", "Origin": settings.url or ""})
        reply = await http.post("/theme", data={"theme": "dark"})
        assert reply.status_code == 303
        cookie = reply.headers["set-cookie"].lower()
        assert all(word in cookie for word in ("secure", "httponly", "samesite=strict", "path=/")), cookie
        assert "max-age=31536000" in reply.headers["strict-transport-security"]
        plain = await http.post("/theme", data={}, headers={"Origin": "http://console.example.com"})
        assert plain.status_code == 403


async def test_a_notice_of_another_host_of_the_domain_is_not_shown(
    engine: sa.Engine, redis_url: str, tmp_path: Path
) -> None:
    settings = ConsoleSettings(port=0, url="https://console.example.com")
    async with open_console(engine, redis_url, tmp_path, settings) as console:
        http = await console.client(None, headers={"Host": "console.example.com", "Cookie": "notice=call-us"})
        assert "call-us" not in (await http.get("/sign-in")).text


async def test_the_log_has_no_query(console: Console, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    http = await console.client(None)
    await http.get("/sign-in/link?token=very-secret-token")
    await http.post("/sign-in/link", data={"token": "another-secret-token"})
    await http.post("/sign-in", data={"user": "ada", "password": "a-secret-password"})
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("postroad", "uvicorn"))]
    assert any("GET /sign-in/link 404" in line for line in ours)
    assert "secret" not in "\n".join(ours)


async def test_a_hostile_path_is_one_line_of_the_log(console: Console, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    http = await console.client(None)
    await http.get("/%0a%1b[2Jforged%20line")
    ours = [record.getMessage() for record in caplog.records if record.name == "postroad.console.guard"]
    (line,) = ours
    assert "forged" in line
    assert "\n" not in line
    assert "\x1b" not in line


@pytest.mark.parametrize("name", ["ada?role=own", "ada#1", "50%", "zoë"])
async def test_a_user_with_any_name_is_removed(console: Console, name: str) -> None:
    with write(console.engine) as connection:
        for each in (name, "ada"):
            save_user(connection, each, AccessRole.VIEW, "x", console.parts.now())
    http = await console.client(AccessRole.OWN)
    [path] = [
        unescape(href)
        for href in re.findall(r'href="(/access/users/[^"]+)"', (await http.get("/access")).text)
        if quote(name, safe="") in href
    ]
    assert (await press(http, path)).status_code == 303
    with read(console.engine) as connection:
        assert [user.name for user in users(connection)] == ["ada"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_methods_that_no_route_has_are_refused(console: Console, method: str) -> None:
    http = await console.client(AccessRole.OWN)
    for route in closed_routes():
        assert (await http.request(method, route.path)).status_code == 405, route


async def test_a_form_that_is_too_long_or_no_form_is_refused(console: Console) -> None:
    http = await console.client(AccessRole.OWN)
    assert (await http.post("/theme", content=b"x" * 300)).status_code == 415
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await http.post("/theme", content=b"a=" + b"x" * 300_000, headers=form)).status_code == 413
    assert (await http.post("/theme", content=b"&".join([b"a=1"] * 500), headers=form)).status_code == 400
    assert (await http.post("/theme", content=b"a=\xff", headers=form)).status_code == 400
    assert (await http.post("/theme", json={"theme": "dark"})).status_code == 415


async def test_an_error_page_shows_a_hostile_address_as_text(console: Console) -> None:
    http = await console.client(AccessRole.OWN)
    for path in ("/access/users/{}/remove", "/audit?after={}", "/audit?actor={}", "/sign-in?next={}", "/{}"):
        reply = await http.get(path.format(quote(HOSTILE, safe="")))
        assert "<script>alert" not in reply.text
        assert reply.status_code < 500, (path, reply.status_code)


async def test_a_path_that_no_route_takes_is_answered_in_the_form_of_its_reader(console: Console) -> None:
    http = await console.client()
    program = await http.post("/api/v1/campaigns/a%0Ab/resume")
    assert (program.status_code, program.headers["content-type"]) == (404, "application/problem+json")
    assert program.json()["type"] == "urn:postroad:problem:not-found"
    page = await http.get("/campaigns/a%0Ab")
    assert (page.status_code, page.headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert "content-security-policy" in page.headers

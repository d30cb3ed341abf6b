"""A page of another site cannot use up the sign-in attempts of its visitor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from postroad.console.authorise import session_cookie_name
from postroad.settings import AccessRole, ConsoleSettings, OidcSettings, RateSetting
from tests.api.server import served
from tests.console.kit import Console, open_console
from tests.console.provider import CLIENT_ID, CLIENT_SECRET, a_provider
from tests.console.test_oidc import begin
from tests.console.test_pages import a_browser, signed_in
from tests.console.test_sign_in import PASSWORD, add_user, link_path
from tests.kit.clock import FakeClock

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

ATTEMPTS = 3
RATE = RateSetting(count=ATTEMPTS, per_ms=60_000)
FORM = {"user": "ada", "password": PASSWORD}


@pytest.fixture
async def limited(engine: sa.Engine, redis_url: str, tmp_path: Path) -> AsyncIterator[Console]:
    """A console that allows few attempts, with one user, and a provider."""
    async with a_provider() as provider:
        oidc = OidcSettings(issuer=provider.url, client_id=CLIENT_ID, client_secret=SecretStr(CLIENT_SECRET))
        settings = ConsoleSettings(port=0, sign_in_rate=RATE, oidc=oidc, roles={"ada@example.com": AccessRole.OPERATE})
        async with open_console(engine, redis_url, tmp_path, settings, clock=FakeClock()) as console:
            await asyncio.to_thread(add_user, console)
            yield console


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_what_another_site_asks_for_is_not_counted(limited: Console, site: str) -> None:
    elsewhere = await limited.client(None, headers={"Sec-Fetch-Site": site, "Origin": "https://evil.example"})
    for number in range(5 * ATTEMPTS):
        assert (await elsewhere.get(f"/sign-in/link?token={number}")).status_code == 200
        assert (await elsewhere.post("/sign-in/link", data={"token": "x"})).status_code == 403
        assert (await elsewhere.post("/sign-in", data=FORM)).status_code == 403
        answer = await elsewhere.get("/sign-in/oidc/callback?code=x&state=y")
        assert answer.status_code == 401
        assert "began no sign-in" in answer.text
    assert len(limited.parts.sign_ins) == 0
    http = await limited.client(None)
    assert (await http.post("/sign-in", data=FORM)).status_code == 303


async def test_what_does_not_come_from_another_site_is_counted(limited: Console) -> None:
    http = await limited.client(None)
    for headers in ({}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-origin"}):
        assert (await http.get("/sign-in/link?token=x", headers=headers)).status_code == 404
    assert (await http.post("/sign-in", data=FORM)).status_code == 429


async def test_a_link_from_another_site_is_looked_up_by_its_button(limited: Console) -> None:
    """Without a count, the page must not tell a valid token from another one."""
    token = (await asyncio.to_thread(link_path, limited)).partition("token=")[2]
    http = await limited.client(None)
    pages = []
    for each in (token, "another-token"):
        page = await http.get(f"/sign-in/link?token={each}", headers={"Sec-Fetch-Site": "cross-site"})
        assert page.status_code == 200
        pages.append(page.text.replace(each, "TOKEN"))
    assert pages[0] == pages[1]
    assert (await http.post("/sign-in/link", data={"token": "another-token"})).status_code == 404
    assert (await http.post("/sign-in/link", data={"token": token})).status_code == 303


async def test_another_site_begins_no_sign_in_by_the_provider(limited: Console) -> None:
    http = await limited.client(None)
    led = await http.get("/sign-in/oidc?next=/audit", headers={"Sec-Fetch-Site": "cross-site"})
    assert (led.status_code, led.headers["location"]) == (303, "/sign-in?next=%2Faudit")
    assert "set-cookie" not in led.headers


async def test_responses_of_the_sign_in_that_began_are_counted(limited: Console) -> None:
    http = await limited.client(None)
    planted = (await begin(http)).headers["location"].replace("code=", "code=x")
    from_provider = {"Sec-Fetch-Site": "cross-site"}
    statuses = [(await http.get(planted, headers=from_provider)).status_code for _ in range(ATTEMPTS + 1)]
    assert statuses == [401] * ATTEMPTS + [429]


@pytest.mark.browser
@pytest.mark.timeout(120)
async def test_a_page_that_loads_links_as_images_does_not_lock_its_visitor_out(limited: Console) -> None:
    images = "".join(
        f'<img src="{limited.url}/sign-in/{path}{number}">'
        for number in range(3 * ATTEMPTS)
        for path in ("link?token=", "oidc/callback?code=x&state=")
    )

    async def page_of_another_site(_: Request) -> HTMLResponse:
        return HTMLResponse(f"<title>other</title>{images}")

    async with (
        served(Starlette(routes=[Route("/", page_of_another_site)])) as other,
        a_browser() as browser,
        signed_in(browser, limited, None) as context,
    ):
        page = await context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(other.replace("127.0.0.1", "localhost"), wait_until="load")
        assert len([url for url in asked if url.startswith(limited.url)]) == 6 * ATTEMPTS
        await page.goto("/sign-in")
        await page.get_by_label("User").fill("ada")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("heading", name="Now").wait_for()
        cookies = {cookie["name"] for cookie in await context.cookies()}
        assert session_cookie_name(secure=False) in cookies

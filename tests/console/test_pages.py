"""Every registered page in a real browser: accessible, within its policy, on a phone, in both colours."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from postroad.console.authorise import session_cookie_name
from postroad.settings import AccessRole
from tests.console.kit import Console
from tests.console.pages import HOSTILE, RegisteredRoute, fill, shown_pages
from tests.prefect.browser import OPTIONS, chromium_path

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]


RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
TEMPLATES = files("postroad.console") / "templates"


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=OPTIONS)
        yield browser
        await browser.close()


@asynccontextmanager
async def signed_in(
    browser: Browser, console: Console, role: AccessRole | None = AccessRole.OWN, **options: object
) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(base_url=console.url, **options)  # type: ignore[arg-type]
    if role is not None:
        token = await asyncio.to_thread(console.session, role)
        await context.add_cookies([{"name": session_cookie_name(secure=False), "value": token, "url": console.url}])
    yield context
    await context.close()


ABORTED = "net::ERR_ABORTED"


def watch(page: Page) -> list[str]:
    """Return the list to which the page's errors are added, such as violations of the content security policy."""
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    # A page that is left aborts what it was asking for at that moment.
    page.on("requestfailed", lambda request: None if request.failure == ABORTED else errors.append(request.url))
    page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
    return errors


async def findings(page: Page) -> list[str]:
    """Return what axe-core, which the page has, finds on it. Playwright evaluates it outside the page's policy."""
    result = await page.evaluate("rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES)
    return [
        f"{violation['id']}: {node['target']}: {node['failureSummary']}"
        for violation in result["violations"]
        for node in violation["nodes"]
    ]


def public(route: RegisteredRoute) -> bool:
    return route.route.role is None


VIEWS = [(width, colours) for width in (360, 1440) for colours in ("light", "dark")]
PARTS = 4
"""The pages are checked in so many tests, which run side by side."""


@pytest.mark.parametrize("part", range(PARTS))
async def test_axe_finds_nothing_on_any_page(console: Console, part: int) -> None:
    await asyncio.to_thread(fill, console.engine)
    found: dict[str, list[str]] = {}
    async with (
        a_browser() as browser,
        signed_in(browser, console) as own,
        signed_in(browser, console, None) as stranger,
    ):
        # A page for all routes: each new one is a process of the browser.
        pages = {False: await own.new_page(), True: await stranger.new_page()}
        watched = {key: watch(page) for key, page in pages.items()}
        for route in list(shown_pages())[part::PARTS]:
            page, errors = pages[public(route)], watched[public(route)]
            errors.clear()
            reply = await page.goto(route.path)
            assert reply is not None
            assert reply.status < 400 or public(route), (str(route), reply.status)
            await page.evaluate(AXE_SCRIPT)
            problems = []
            for width, colours in VIEWS:
                await page.set_viewport_size({"width": width, "height": 900})
                await page.emulate_media(color_scheme=colours)  # type: ignore[arg-type]
                await page.evaluate("Promise.allSettled(document.getAnimations().map(each => each.finished))")
                problems += [f"{width} {colours}: {finding}" for finding in await findings(page)]
            problems += [error for error in errors if "404" not in error]
            if problems:
                found[str(route)] = problems
    assert found == {}


@pytest.mark.parametrize("javascript", [True, False])
async def test_no_page_scrolls_sideways_on_a_small_phone(console: Console, javascript: bool) -> None:
    await asyncio.to_thread(fill, console.engine)
    wide = {}
    async with a_browser() as browser:
        viewport = {"width": 320, "height": 640}
        async with signed_in(browser, console, viewport=viewport, java_script_enabled=javascript) as context:
            page = await context.new_page()
            session = await context.new_cdp_session(page)
            for route in shown_pages():
                await page.goto(route.path)
                metrics = await session.send("Page.getLayoutMetrics")
                if metrics["cssContentSize"]["width"] > 320:
                    wide[str(route)] = metrics["cssContentSize"]["width"]
    assert wide == {}


async def test_the_menu_works_on_a_phone_without_script(console: Console) -> None:
    async with a_browser() as browser:
        viewport = {"width": 360, "height": 740}
        async with signed_in(browser, console, viewport=viewport, java_script_enabled=False) as context:
            page = await context.new_page()
            errors = watch(page)
            await page.goto("/")
            link = page.get_by_role("link", name="Audit log")
            assert not await link.is_visible()
            await page.get_by_role("link", name="Menu", exact=True).click()
            await link.click()
            assert await page.locator("h1").text_content() == "Audit log"
            await page.get_by_role("link", name="Menu", exact=True).click()
            await page.get_by_role("button", name="Dark").click()
            assert await page.locator("html").get_attribute("data-theme") == "dark"
            assert page.url == f"{console.url}/audit"
            await page.get_by_role("link", name="Menu", exact=True).click()
            await page.get_by_role("button", name="Sign out").click()
            assert page.url == f"{console.url}/sign-in"
            assert errors == []


async def test_a_page_is_used_by_keyboard(console: Console) -> None:
    async with a_browser() as browser, signed_in(browser, console) as context:
        page = await context.new_page()
        await page.goto("/")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
        assert await page.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"


async def test_the_live_part_of_a_page_is_refreshed(console: Console) -> None:
    async with a_browser() as browser, signed_in(browser, console) as context:
        page = await context.new_page()
        errors = watch(page)
        await page.goto("/")
        async with page.expect_response("**/now/live", timeout=20_000) as reply:
            pass
        assert (await reply.value).status == 200
        await page.get_by_role("heading", name="Findings").wait_for()
        assert await page.locator("main h1").count() == 1
        assert errors == []


async def test_a_hostile_text_is_shown_as_text(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.OWN)
    for route in shown_pages():
        html = (await http.get(route.path)).text
        assert "<script>alert" not in html, route
        assert "onerror=alert(2)>" not in html, route
        assert "\x1b" not in html, route
        assert "\u202e" not in html, route
    page = (await http.get("/audit")).text
    assert "&lt;script&gt;alert(1)" in page
    assert HOSTILE.isprintable() is False


async def test_a_link_of_a_sign_in_works_in_the_browser_without_script(console: Console) -> None:
    from tests.console.test_sign_in import link_path

    path = await asyncio.to_thread(link_path, console)
    async with a_browser() as browser, signed_in(browser, console, None, java_script_enabled=False) as context:
        page = await context.new_page()
        errors = watch(page)
        await page.goto(path)
        await page.get_by_role("button", name="Sign in").click()
        assert await page.locator("h1").text_content() == "Now"
        (cookie,) = [one for one in await context.cookies() if one["name"] == session_cookie_name(secure=False)]
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert errors == []


FORBIDDEN = re.compile(
    r"\|\s*safe\b|\bstyle\s*=|<style|<script(?![^>]*\bsrc=)|\son[a-z]+\s*=|hx-on|hx-vars|js:|javascript:|autoescape",
    re.IGNORECASE,
)


@pytest.mark.parametrize("name", sorted(entry.name for entry in TEMPLATES.iterdir()))
def test_a_template_has_nothing_that_the_policy_forbids(name: str, database_url: str) -> None:
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    assert [found[0] for found in FORBIDDEN.finditer(text)] == []

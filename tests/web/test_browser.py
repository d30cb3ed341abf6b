"""The page in a real browser: on a phone, by keyboard, and in the accessibility tree."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.delivery.queue_of_touches import queued_touches, state_of
from tests.prefect.browser import open_page
from tests.web.conftest import Web, path_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

CONTRAST = """
() => {
  const channel = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = text => { const [r, g, b] = text.match(/[0-9.]+/g).map(Number);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('h1, p, button')].map(element => {
    const style = getComputedStyle(element);
    const own = style.backgroundColor === 'rgba(0, 0, 0, 0)' ? paper : light(style.backgroundColor);
    return ratio(light(style.color), own);
  });
}
"""


async def roles(page: Page) -> list[tuple[str, str]]:
    """What a screen reader meets, in order: role and name."""
    session = await page.context.new_cdp_session(page)
    tree = await session.send("Accessibility.getFullAXTree")
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree["nodes"] if not node["ignored"]
    ]
    return [(role, name) for role, name in found if role in ("main", "heading", "paragraph", "button", "StaticText")]


@pytest.mark.parametrize("colours", ["light", "dark"])
async def test_a_recipient_unsubscribes_on_a_phone_in_their_language(web: Web, colours: str, tmp_path: Path) -> None:
    (touch,) = await queued_touches(web.engine, web.queue, 1)
    url = f"{web.http.base_url}{path_of(touch)}"
    async with open_page() as page:
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        await page.set_viewport_size({"width": 375, "height": 667})
        await page.set_extra_http_headers({"Accept-Language": "de-AT,de;q=0.9"})
        await page.emulate_media(color_scheme="dark" if colours == "dark" else "light")
        await page.goto(url)
        assert await page.locator("html").get_attribute("lang") == "de"
        assert await page.title() == "Abbestellen"
        found = await roles(page)
        assert [role for role, _ in found if role != "StaticText"] == ["main", "heading", "paragraph", "button"]
        assert ("button", "Abbestellen") in found
        assert await page.evaluate("document.documentElement.scrollWidth") == 375, "it scrolls sideways"
        assert min(await page.evaluate(CONTRAST)) >= 4.5, "WCAG 2.2, 1.4.3"
        button = page.get_by_role("button")
        box = await button.bounding_box()
        assert box is not None
        assert min(box["height"], box["width"]) >= 44
        picture = tmp_path / "page.png"
        assert len(await page.screenshot(path=picture)) > 5_000
        assert state_of(web.engine, touch) == "queued", "showing the page changed something"

        await page.keyboard.press("Tab")
        assert await button.evaluate("element => element === document.activeElement")
        assert await button.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="Sie sind abgemeldet").wait_for()
        assert page.url == url, "it was sent elsewhere"
        assert await page.context.cookies() == []
        assert errors == [], "its own policy forbids something of it"
    assert state_of(web.engine, touch) == "suppressed"
    ((audience, reason, source),) = web.suppressed().values()
    assert (audience, reason, source) == (0, "unsubscribe", "unsubscribe page")


@pytest.mark.parametrize("language", ["en", "fr", "es"])
async def test_a_broken_link_says_so_in_every_language(web: Web, language: str) -> None:
    async with open_page() as page:
        await page.set_extra_http_headers({"Accept-Language": language})
        answer = await page.goto(f"{web.http.base_url}/u/1-aaaaaaaaaaaaaaaaaaaa")
        assert answer is not None
        assert answer.status == 404
        assert await page.locator("html").get_attribute("lang") == language
        assert await page.get_by_role("button").count() == 0

"""The pictures of the console in the documentation. `python -m tests.console.pictures` makes them again.

A picture shows the content of a page, without the menu, and belongs to a digest of the HTML of this content. A test
compares the digests of the pages with the stored ones, without a browser. The style sheet is not part of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
from playwright.async_api import async_playwright
from pydantic import SecretStr

from postroad.console.authorise import session_cookie_name
from postroad.doctor import Check
from postroad.event_types import EventType
from postroad.queue import Health
from postroad.settings import AccessRole
from postroad.settings.webhooks_out import WebhookEndpointSettings
from postroad.store.engine import open_engine, write
from postroad.store.migrate import upgrade
from tests.conftest import a_server
from tests.console.kit import WEBHOOK_SECRET, Console, open_console
from tests.console.picture_rows import fill_story
from tests.docs.pages import ROOT
from tests.kit.clock import FakeClock
from tests.prefect.browser import OPTIONS, chromium_path

FOLDER: Final = ROOT / "docs/images"
DIGESTS: Final = FOLDER / "console.json"
COMMAND: Final = "python -m tests.console.pictures"
NOW: Final = datetime(2027, 3, 15, 8, 30, tzinfo=UTC)
WIDTH: Final = 1280
MENU: Final = 216
MAX_HEIGHT: Final = 900
PAGES: Final = {
    "now": "/",
    "campaign": "/campaigns/spring",
    "why": "/why?q=ada.0@example.org",
    "undecided": "/undecided",
    "returned": "/returned",
    "people": "/people",
    "webhook": "/webhooks/shop",
    "returned-mail": f"/returned/mails/{1:064x}",
}
"""By name of a picture: the page that it shows."""
ENDPOINTS: Final = {
    "shop": WebhookEndpointSettings(
        url="https://shop.example.com/postroad",
        secret=SecretStr(WEBHOOK_SECRET),
        events=(EventType.BOUNCED, EventType.COMPLAINED, EventType.UNSUBSCRIBED),
    )
}
CHECKS: Final = (
    Check(part="database", health=Health.OK, seen="revision current"),
    Check(
        part="backup",
        health=Health.WARN,
        seen="the database has no replica",
        remedy="Follow `docs/how-to/run-in-production.md`.",
    ),
)


@asynccontextmanager
async def story_console(folder: Path, redis_url: str) -> AsyncIterator[Console]:
    """Serve the console on the rows of the pictures, at their time."""
    engine = open_engine(f"sqlite:///{folder / 'pictures.db'}")
    try:
        await asyncio.to_thread(upgrade, engine)
        with write(engine) as connection:
            fill_story(connection, NOW)
        clock = FakeClock(int(NOW.timestamp() * 1000))
        async with open_console(
            engine, redis_url, folder / "state", clock=clock, checks=CHECKS, endpoints=ENDPOINTS
        ) as console:
            yield console
    finally:
        engine.dispose()


async def pages(console: Console) -> dict[str, httpx.Response]:
    """Return the page of each picture."""
    http = await console.client(AccessRole.OPERATE, user="grace@example.com")
    return {name: await http.get(path) for name, path in PAGES.items()}


def content_of(page: httpx.Response) -> str:
    """Return the content of a page: what its picture shows."""
    _, begin, rest = page.text.partition('<main id="main"')
    content, end, _ = rest.partition("</main>")
    assert begin, "the page has no content"
    assert end, "the page has no content"
    return content


def digest_of(page: httpx.Response) -> str:
    """Return the digest of the content of a page."""
    return sha256(content_of(page).encode()).hexdigest()


async def take_pictures(console: Console) -> None:
    """Write the picture of each page, and the digests."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=OPTIONS)
        context = await browser.new_context(
            base_url=console.url, viewport={"width": MENU + WIDTH, "height": MAX_HEIGHT}, color_scheme="light"
        )
        token = console.session(AccessRole.OPERATE, "grace@example.com")
        await context.add_cookies([{"name": session_cookie_name(secure=False), "value": token, "url": console.url}])
        page = await context.new_page()
        for name, path in PAGES.items():
            await page.goto(path)
            box = await page.locator("main").bounding_box()
            assert box is not None
            assert box["width"] == WIDTH
            clip = {"x": box["x"], "y": 0, "width": WIDTH, "height": min(box["height"], MAX_HEIGHT)}
            await page.screenshot(path=FOLDER / f"console-{name}.png", clip=clip)  # type: ignore[arg-type]
        await browser.close()
    digests = {name: digest_of(reply) for name, reply in (await pages(console)).items()}
    DIGESTS.write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")


async def main() -> None:
    """Make all pictures again."""
    with TemporaryDirectory() as folder, a_server("valkey") as server:
        async with story_console(Path(folder), server.url) as console:
            await take_pictures(console)
    print(f"{len(PAGES)} pictures are in {FOLDER}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())

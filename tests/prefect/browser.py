"""A real browser: the machine's headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Page, async_playwright

from postroad.local.prefect_access import PrefectAccess
from tests.required import missing

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000
"""A page that the slowest machine of CI has not drawn by then does not come."""


def chromium_path() -> str:
    """Return the path of the machine's Chromium. Skips the test without one."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        missing("chromium", "apt-get install chromium")
    return found


@asynccontextmanager
async def open_page() -> AsyncIterator[Page]:
    """A page in a browser of its own. Nothing is downloaded for it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=OPTIONS)
        page = await browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        await browser.close()


async def sign_in(page: Page, access: PrefectAccess) -> None:
    """Open Prefect's UI and type its password, as `postroad up` prints it."""
    await page.goto(access.url)
    await page.locator("input[type=password]").fill(access.password or "")
    await page.get_by_role("button", name="Login").click()
    await page.get_by_role("link", name="Deployments", exact=True).wait_for()

"""A campaign is started the way a marketer starts it: by a browser, on the page of the deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from postroad.local.prefect_server import PrefectServer
from tests.kit.waiting import until
from tests.prefect.browser import PATIENCE_MS, open_page, sign_in

pytestmark = [pytest.mark.prefect, pytest.mark.browser, pytest.mark.timeout(240)]


@pytest_asyncio.fixture
async def page() -> AsyncIterator[Page]:
    async with open_page() as opened:
        yield opened


async def runs_of_campaign(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    wanted = {"deployments": {"name": {"any_": ["campaign"]}}, "sort": "EXPECTED_START_TIME_DESC"}
    found: list[dict[str, Any]] = (await http.post("flow_runs/filter", json=wanted)).raise_for_status().json()
    return found


async def open_run_form(page: Page, server: PrefectServer) -> None:
    """Go from the front page to the form of `campaign`, by what is there to be clicked."""
    await sign_in(page, server.access())
    await page.get_by_role("link", name="Deployments", exact=True).click()
    # The flow of the same name is a link too.
    await page.locator('a[href*="/deployments/deployment/"]').get_by_text("campaign", exact=True).click()
    await page.get_by_role("button", name="Run", exact=True).click()
    await page.get_by_role("menuitem", name="Custom run").click()


async def test_a_campaign_is_started_from_its_form(page: Page, server: PrefectServer, http: httpx.AsyncClient) -> None:
    before = {run["id"] for run in await runs_of_campaign(http)}
    await open_run_form(page, server)
    await expect(page.get_by_text("The name of the campaign to send")).to_be_visible(timeout=PATIENCE_MS)
    await page.locator("textarea").first.fill("spring-sale")
    await page.get_by_role("button", name="Submit").click()

    async def new_runs() -> list[dict[str, Any]]:
        return [run for run in await runs_of_campaign(http) if run["id"] not in before]

    new = await until(new_runs, within_s=30, every_s=0.5)
    assert [run["parameters"] for run in new] == [
        {"params": {"campaign": "spring-sale", "asked_by": "", "follow_seconds": 30}}
    ]


async def test_the_form_refuses_a_name_that_cannot_be_one(
    page: Page, server: PrefectServer, http: httpx.AsyncClient
) -> None:
    before = len(await runs_of_campaign(http))
    await open_run_form(page, server)
    await page.locator("textarea").first.fill("Spring Sale!")
    await page.get_by_role("button", name="Submit").click()
    await expect(page.get_by_text("does not match").first).to_be_visible(timeout=PATIENCE_MS)
    assert len(await runs_of_campaign(http)) == before


async def test_the_ui_shows_a_stranger_nothing_but_a_login(page: Page, server: PrefectServer) -> None:
    await page.goto(f"{server.url}/deployments")
    await page.locator("input[type=password]").fill("postroad:guess")
    await page.get_by_role("button", name="Login").click()
    await expect(page.get_by_text("Authentication failed").first).to_be_visible(timeout=PATIENCE_MS)
    await expect(page.get_by_text("advance-campaigns")).to_have_count(0)

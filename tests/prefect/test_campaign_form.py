"""The form lists the campaigns that exist, and takes the name of one that it does not list yet."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import sqlalchemy as sa
from playwright.async_api import Page, expect

from postroad.local.campaign_form import DEPLOYMENT, launchable_campaigns, offer_campaigns, with_choices
from postroad.local.prefect_api import PrefectApi
from postroad.local.prefect_server import PrefectServer
from postroad.store.campaign import CampaignState
from postroad.store.engine import write
from tests.commands import run_command
from tests.kit.waiting import until
from tests.prefect.browser import PATIENCE_MS, open_page
from tests.prefect.test_browser import open_run_form, runs_of_campaign
from tests.store.rows import add_campaign

pytestmark = [pytest.mark.timeout(240)]

FIELD = {"title": "Campaign", "description": "Which.", "type": "string", "pattern": "^[a-z]+$"}
SCHEMA = {"type": "object", "definitions": {"CampaignParams": {"properties": {"campaign": FIELD, "other": {}}}}}


def field_of(schema: Any) -> Any:
    return schema["definitions"]["CampaignParams"]["properties"]["campaign"]


@pytest.mark.parametrize("names", [["spring"], ["spring", "autumn"]])
def test_the_field_is_a_list_or_a_name_that_is_typed(names: list[str]) -> None:
    changed = with_choices(SCHEMA, names)
    assert field_of(changed) == {
        "title": "Campaign",
        "description": "Which.",
        "anyOf": [
            {"title": "Listed", "type": "string", "enum": names},
            {"title": "Other", "type": "string", "pattern": "^[a-z]+$"},
        ],
    }
    assert with_choices(changed, names) == changed
    assert with_choices(changed, []) == SCHEMA
    assert field_of(SCHEMA) == FIELD, "what was given is not changed"


def test_only_campaigns_that_a_person_may_launch_are_listed(engine: sa.Engine) -> None:
    with write(engine) as connection:
        for state in CampaignState:
            add_campaign(connection, name=f"of-{state}", state=state)
        seeds, _ = add_campaign(connection, name="of-seeds")
        connection.execute(sa.text("UPDATE campaign SET warmup = true WHERE id = :id"), {"id": seeds})
    assert launchable_campaigns(engine) == ["of-draft", "of-finished", "of-paused", "of-running"]


@pytest_asyncio.fixture
async def listed(api: PrefectApi) -> AsyncIterator[None]:
    """The form of the shared server lists one campaign, until the test ends."""
    plain = await api.schema(DEPLOYMENT)
    await api.set_schema(DEPLOYMENT, with_choices(plain, ["spring-sale"]))
    yield
    await api.set_schema(DEPLOYMENT, plain)


@pytest.mark.prefect
@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("spring-sale", httpx.codes.CREATED),
        ("applied-a-second-ago", httpx.codes.CREATED),
        ("spring-sale\n", httpx.codes.CONFLICT),
        ("\nspring-sale", httpx.codes.CONFLICT),
        ("Spring Sale!", httpx.codes.CONFLICT),
    ],
)
async def test_the_server_takes_a_name_that_is_not_listed_and_no_other_text(
    http: httpx.AsyncClient, name: str, status: int
) -> None:
    assert await create_run(http, "campaign", {"campaign": name}) == status


@pytest.mark.prefect
@pytest.mark.parametrize(
    ("deployment", "params"),
    [
        ("campaign", {"campaign": "welcome\n"}),
        ("import-audience", {"audience": "news\n", "path": "a.csv"}),
        ("import-audience", {"audience": "news", "path": "a.csv\n"}),
        ("import-audience", {"audience": "news", "path": "a\nb.csv"}),
        ("warmup", {"sender": "ada\n"}),
        ("dead-letters", {"cause": "connection failed\n"}),
    ],
)
async def test_a_line_break_in_a_field_is_refused_by_the_form(
    http: httpx.AsyncClient, deployment: str, params: dict[str, str]
) -> None:
    assert await create_run(http, deployment, params) == httpx.codes.CONFLICT
    without = {name: value.replace("\n", "") for name, value in params.items()}
    assert await create_run(http, deployment, without) == httpx.codes.CREATED


async def create_run(http: httpx.AsyncClient, deployment: str, params: dict[str, str]) -> int:
    found = (await http.get(f"deployments/name/{deployment}/{deployment}")).raise_for_status().json()
    never = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2040-01-01T00:00:00Z"}}
    wanted = {"parameters": {"params": params}, "state": never}
    answer = await http.post(f"deployments/{found['id']}/create_flow_run", json=wanted)
    if answer.is_success:
        await http.delete(f"flow_runs/{answer.json()['id']}")
    return answer.status_code


@pytest_asyncio.fixture
async def page() -> AsyncIterator[Page]:
    async with open_page() as opened:
        yield opened


@pytest.mark.prefect
@pytest.mark.browser
@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("name", ["spring-sale", "not-listed"])
async def test_a_campaign_is_chosen_from_the_list_or_typed(
    page: Page, server: PrefectServer, http: httpx.AsyncClient, name: str
) -> None:
    before = {run["id"] for run in await runs_of_campaign(http)}
    await open_run_form(page, server)
    await expect(page.get_by_text("The name of the campaign to send")).to_be_visible(timeout=PATIENCE_MS)
    if name == "not-listed":
        await page.get_by_text("Other", exact=True).click()
        await page.locator("textarea").first.fill(name)
    else:
        await page.get_by_text("Select", exact=True).click()
        await page.get_by_role("option", name=name).click()
    await page.get_by_role("button", name="Submit").click()

    async def new_runs() -> list[dict[str, Any]]:
        return [run for run in await runs_of_campaign(http) if run["id"] not in before]

    new = await until(new_runs, within_s=30, every_s=0.5)
    assert [run["parameters"]["params"]["campaign"] for run in new] == [name]


CAMPAIGN = """
name: {name}
sender: ada
audience: {{name: people}}
steps:
  - {{email: hello, subject: Hello, text: text.txt}}
"""


def write_campaign(folder: Path, name: str) -> str:
    (folder / "text.txt").write_text("Hello\n{{ unsubscribe_url }}\n{{ postal_address }}\n")
    path = folder / f"{name}.yaml"
    path.write_text(CAMPAIGN.format(name=name))
    return str(path)


NEW_AUDIENCE = "warning campaign one: there is no audience named 'people', so an empty one is created.\n"


@pytest.mark.prefect
async def test_apply_lists_the_campaign_in_the_form(
    api: PrefectApi, server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROAD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PREFECT_API_URL", server.api_url)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", server.access().password or "")
    plain = await api.schema(DEPLOYMENT)
    try:
        for names, warning in ((["one"], NEW_AUDIENCE), (["two", "one"], "")):
            done = run_command(server.files, dict(os.environ), "campaign", "apply", write_campaign(tmp_path, names[0]))
            assert done.returncode == 0, done.stderr
            assert done.stderr == warning
            assert field_of(await api.schema(DEPLOYMENT))["anyOf"][0]["enum"] == names
    finally:
        await api.set_schema(DEPLOYMENT, plain)


def test_apply_without_a_prefect_says_so_once_and_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROAD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    files = [write_campaign(tmp_path, name) for name in ("one", "two")]
    root = Path(__file__).parents[2]
    done = run_command(root, dict(os.environ), "campaign", "apply", *files, "--json")
    assert done.returncode == 0
    assert [row["campaign"] for row in json.loads(done.stdout)] == ["one", "two"]
    assert done.stderr.count("Prefect's form is not updated") == 1


@pytest.mark.prefect
async def test_the_list_follows_the_ledger_and_is_left_alone_when_it_is_right(
    api: PrefectApi, engine: sa.Engine
) -> None:
    plain = await api.schema(DEPLOYMENT)
    try:
        assert not await offer_campaigns(engine, api)
        with write(engine) as connection:
            add_campaign(connection, name="spring")
        assert await offer_campaigns(engine, api)
        assert not await offer_campaigns(engine, api)
    finally:
        await api.set_schema(DEPLOYMENT, plain)

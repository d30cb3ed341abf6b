"""A launch from the console on a real Prefect server: one person asks, another approves, the run sends."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from postroad.app.context import open_context
from postroad.embedded import stop_redis
from postroad.local.prefect_server import PrefectServer
from postroad.settings import AccessRole, Settings
from postroad.store.engine import read
from tests.console.kit import Console, open_console_of
from tests.kit.waiting import until
from tests.prefect.test_approval import ENDED, PEOPLE, LaunchProject
from tests.prefect.test_bounces import state

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600), pytest.mark.usefixtures("open_pool")]


@pytest.fixture
async def project(tmp_path: Path, server: PrefectServer, http: httpx.AsyncClient) -> AsyncIterator[LaunchProject]:
    project = LaunchProject(tmp_path, server, http)
    await project.run("campaign", "apply", "campaign.yaml")
    yield project
    stop_redis(tmp_path / ".postroad")


@pytest.fixture
async def console(project: LaunchProject, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Console]:
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.setenv(name, project.environment[name])
    project.configure("[approval]\nsecond_person = true\n")
    async with open_context(Settings.load(project.config)) as context, open_console_of(context) as console:
        yield console


def campaign_state(console: Console) -> str:
    with read(console.engine) as connection:
        return str(connection.execute(sa.text("SELECT state FROM campaign WHERE name = 'spring'")).scalar_one())


async def test_a_second_person_approves_and_the_run_launches(console: Console, project: LaunchProject) -> None:
    carl = await console.client(AccessRole.SEND, user="carl")
    asked = await carl.get("/launch/spring/start")
    assert f">{PEOPLE}<" in asked.text
    assert "Ask for approval" in asked.text
    started = await carl.post("/launch/spring/start")
    assert started.status_code == 303, started.text
    run_id = re.search(r"/launch/spring/run/([0-9a-f-]{36})", started.headers["location"])[1]  # type: ignore[index]
    await project.require_waiting(run_id)
    assert "It waits for an approval" in (await carl.get(f"/launch/spring/run/{run_id}")).text

    own = await carl.post("/launch/spring/approve")
    assert own.status_code == 409
    assert "another person has to approve it" in own.text

    ada = await console.client(AccessRole.SEND, user="ada")
    assert "/launch/spring/approve" in (await ada.get("/launch/spring")).text
    approved = await ada.post("/launch/spring/approve")
    assert approved.status_code == 303, approved.text
    ended = await state(project.http, run_id, *ENDED)
    assert ended["type"] == "COMPLETED", ended
    assert campaign_state(console) == "running"
    acts = {record.action: record for record in console.audit()}
    assert (acts["campaign.launch"].actor, acts["campaign.launch"].count) == ("carl", PEOPLE)
    assert (acts["campaign.approve"].actor, acts["campaign.approve"].count) == ("ada", PEOPLE)

    async def is_shown() -> bool:
        return "Completed" in (await ada.get(f"/launch/spring/run/{run_id}")).text

    await until(is_shown, within_s=30)


async def test_a_refused_launch_stays_a_draft_and_says_why(console: Console, project: LaunchProject) -> None:
    carl = await console.client(AccessRole.SEND, user="carl")
    started = await carl.post("/launch/spring/start")
    run_id = started.headers["location"].rpartition("/")[2]
    await project.require_waiting(run_id)
    ada = await console.client(AccessRole.SEND, user="ada")
    assert (await ada.post("/launch/spring/refuse", data={"reason": ""})).status_code == 422
    refused = await ada.post("/launch/spring/refuse", data={"reason": "Not before Monday"})
    assert refused.status_code == 303, refused.text
    ended = await state(project.http, run_id, *ENDED)
    assert (ended["type"], ended["name"]) == ("COMPLETED", "Refused"), ended
    assert campaign_state(console) == "draft"
    assert "Not before Monday" in (await carl.get(f"/launch/spring/run/{run_id}")).text

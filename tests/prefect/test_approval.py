"""A launch that needs an approval, on a real Prefect server: its run waits until a person approves or refuses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from postroad.app.approval import approve, list_approvals
from postroad.app.context import open_context
from postroad.campaign.approval_decision import Decider
from postroad.embedded import stop_redis
from postroad.local.prefect_server import PrefectServer
from postroad.local.run_watch import pause_stopped
from postroad.settings import Settings
from postroad.store.approval import Approval
from postroad.store.engine import read
from tests.commands import run_command
from tests.kit.waiting import until
from tests.prefect.test_bounces import start, state

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600), pytest.mark.usefixtures("open_pool")]

SETTINGS = """
public_url = "https://mail.example.com"
[dns]
nameservers = ["127.0.0.1:1"]
[senders.ada]
address = "ada@example.com"
postal_address = "1 Post Road, Milestone"
route = "relay"
[routes.relay]
host = "127.0.0.1"
port = 1
tls = "none"
"""
CAMPAIGN = """
name: spring
sender: ada
audience: {name: people, file: people.csv}
approval: always
steps:
  - {email: hello, subject: Hello, text: hello.txt}
"""
PEOPLE = 30
WAITS_OR_ENDED = ("PAUSED", "COMPLETED", "FAILED", "CRASHED", "CANCELLED")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class LaunchProject:
    """A folder with a campaign that needs an approval, and the server that launches it."""

    def __init__(self, folder: Path, server: PrefectServer, http: httpx.AsyncClient) -> None:
        self.config = folder / "postroad.toml"
        self.folder = folder
        self.http = http
        self.environment = {
            **os.environ,
            "POSTROAD_CONFIG": str(self.config),
            "PREFECT_API_URL": server.api_url,
            "PREFECT_API_AUTH_STRING": server.access().password or "",
        }
        self.configure()
        (folder / "hello.txt").write_text("Hello {{ first_name }}\n\n{{ unsubscribe_url }}\n{{ postal_address }}\n")
        rows = [f"reader{n}@gmail.com,Reader {n}" for n in range(PEOPLE)]
        (folder / "people.csv").write_text("\n".join(["address,first_name", *rows]) + "\n")
        (folder / "campaign.yaml").write_text(CAMPAIGN)

    def configure(self, more: str = "") -> None:
        self.config.write_text(SETTINGS + more)

    async def run(self, *words: str, code: int = 0) -> str:
        # The server's form has a field for any name: with an apply it would list the campaigns of this test alone.
        without = {"PREFECT_API_URL": "http://127.0.0.1:1/api"} if words[:2] == ("campaign", "apply") else {}
        done = await asyncio.to_thread(run_command, self.folder, {**self.environment, **without}, *words)
        assert done.returncode == code, (done.stdout, done.stderr)
        return str(done.stdout + done.stderr)

    async def launch(self, by: str = "carl") -> str:
        """Start a run as the form of Prefect does, and return its id once it waits for the approval."""
        params = {"campaign": "spring", "asked_by": by, "follow_seconds": 0}
        run_id = await start(self.http, "campaign", self.config, params=params)
        await self.require_waiting(run_id)
        return run_id

    async def require_waiting(self, run_id: str) -> dict[str, Any]:
        waiting = await state(self.http, run_id, *WAITS_OR_ENDED)
        assert waiting["type"] == "PAUSED", waiting
        return waiting

    async def answer(self, run_id: str, **answer: Any) -> None:
        """Resume a run as the UI does."""

        async def accepted() -> bool:
            # Prefect stores the form a moment after the run is suspended, and refuses an answer until then.
            reply = await self.http.post(f"flow_runs/{run_id}/resume", json={"run_input": answer})
            return bool(reply.raise_for_status().json()["status"] == "ACCEPT")

        await until(accepted, within_s=60, every_s=0.5)

    async def form_of(self, run_id: str) -> str:
        """The description of the form that a run waits with."""

        async def description() -> str:
            run = (await self.http.get(f"flow_runs/{run_id}")).raise_for_status().json()
            key = run["state"]["state_details"]["run_input_keyset"]["description"]
            reply = await self.http.get(f"flow_runs/{run_id}/input/{key}")
            return reply.text if reply.is_success else ""

        return str(await until(description, within_s=60, every_s=0.5))

    async def found(self) -> tuple[str, int, int]:
        """State of the campaign, number of its touches, number of runs that a stop would pause it for."""
        async with open_context(Settings.load(self.config)) as context:
            with read(context.engine) as connection:
                state = connection.execute(sa.text("SELECT state FROM campaign WHERE name = 'spring'")).scalar_one()
                touches = connection.execute(sa.text("SELECT count(*) FROM touch")).scalar_one()
                runs = connection.execute(sa.text("SELECT count(*) FROM campaign_run")).scalar_one()
        return state, touches, runs

    async def approvals(self) -> list[Approval]:
        async with open_context(Settings.load(self.config)) as context:
            return [named.approval for named in await list_approvals(context, "spring", 10)]


@pytest.fixture
async def project(tmp_path: Path, server: PrefectServer, http: httpx.AsyncClient) -> Any:
    project = LaunchProject(tmp_path, server, http)
    await project.run("campaign", "apply", "campaign.yaml")
    return project


@pytest.fixture(autouse=True)
def queue_server(tmp_path: Path) -> Iterator[None]:
    yield
    stop_redis(tmp_path / ".postroad")


async def test_an_approved_launch_continues_in_its_run(project: LaunchProject) -> None:
    run_id = await project.launch()
    assert await project.found() == ("draft", 0, 0), "nothing is frozen, and a stop of the run would pause nothing"
    form = await project.form_of(run_id)
    assert "Send spring to 30 people, as carl asks?" in form
    assert "**30** people get **30** messages" in form
    assert "The preflight found" in form
    assert "its launch waits for an approval that carl asked for" in await project.run("campaign", "status", "spring")

    await project.answer(run_id, approve=True, by="ada", reason="")
    ended = await state(project.http, run_id, *ENDED)
    assert ended["type"] == "COMPLETED", ended
    assert (await project.found())[:2] == ("running", PEOPLE)
    [approval] = await project.approvals()
    assert (approval.state, approval.requested_by, approval.decided_by) == ("approved", "carl", "ada")
    assert approval.decided_from == f"form of the Prefect run {run_id}"
    assert approval.used_at is not None
    assert approval.people == PEOPLE


async def test_a_refused_launch_leaves_a_draft_that_can_be_launched_again(project: LaunchProject) -> None:
    run_id = await project.launch()
    await project.answer(run_id, approve=False, by="ada", reason="Not before Monday")
    ended = await state(project.http, run_id, *ENDED)
    assert (ended["type"], ended["name"]) == ("COMPLETED", "Refused"), ended
    assert "ada refused the launch of spring: Not before Monday" in ended["message"]
    assert (await project.found())[:2] == ("draft", 0)

    again = await project.launch()
    assert [approval.state for approval in await project.approvals()] == ["open", "refused"]
    said = await project.run("campaign", "refuse", "spring", "--by", "bob", "--reason", "no")
    assert "the launch of campaign spring is refused by bob" in said
    ended = await state(project.http, again, *ENDED)
    assert (ended["type"], ended["name"]) == ("COMPLETED", "Refused"), ended
    assert "is refused before by bob" in await project.run("campaign", "refuse", "spring", "--by", "ada")
    assert "was refused by bob: no" in await project.run("campaign", "approve", "spring", "--by", "ada", code=7)


async def test_the_command_approves_and_resumes_the_run(project: LaunchProject) -> None:
    project.configure("[approval]\nsecond_person = true\n")
    run_id = await project.launch("carl@laptop")
    assert "another person has to approve it" in await project.run(
        "campaign", "approve", "spring", "--by", "Carl", code=7
    )
    said = await project.run("campaign", "approve", "spring", "--by", "ada")
    assert "the launch of campaign spring is approved by ada" in said
    assert run_id in said
    assert "is approved before by ada" in await project.run("campaign", "approve", "spring", "--by", "bob")
    ended = await state(project.http, run_id, *ENDED)
    assert ended["type"] == "COMPLETED", ended
    assert (await project.found())[:2] == ("running", PEOPLE)
    [approval] = await project.approvals()
    assert (approval.decided_from or "").startswith("command line of ")


async def test_an_answer_that_is_not_valid_is_asked_for_again(project: LaunchProject) -> None:
    project.configure("[approval]\nsecond_person = true\n")
    run_id = await project.launch("carl")
    await project.answer(run_id, approve=True, by="Carl", reason="")

    async def asked_again() -> bool:
        run = (await project.http.get(f"flow_runs/{run_id}")).raise_for_status().json()
        key = (run["state"]["state_details"].get("pause_key") or "") if run["state"]["type"] == "PAUSED" else ""
        return bool(key.endswith("-2"))

    await until(asked_again, within_s=120, every_s=0.5)
    assert "Not accepted" in await project.form_of(run_id)
    assert (await project.found())[:2] == ("draft", 0)
    await project.answer(run_id, approve=True, by="ada", reason="")
    ended = await state(project.http, run_id, *ENDED)
    assert ended["type"] == "COMPLETED", ended
    assert (await project.found())[:2] == ("running", PEOPLE)


async def test_a_campaign_that_changed_meanwhile_is_asked_about_again(project: LaunchProject) -> None:
    run_id = await project.launch()
    (project.folder / "hello.txt").write_text("Other words.\n\n{{ unsubscribe_url }}\n{{ postal_address }}\n")
    await project.run("campaign", "apply", "campaign.yaml")
    await project.answer(run_id, approve=True, by="ada", reason="")

    async def asked_again() -> bool:
        return [approval.state for approval in await project.approvals()] == ["open", "withdrawn"]

    await until(asked_again, within_s=120, every_s=0.5)
    await project.require_waiting(run_id)
    assert (await project.found())[:2] == ("draft", 0)
    await project.answer(run_id, approve=True, by="ada", reason="")
    ended = await state(project.http, run_id, *ENDED)
    assert ended["type"] == "COMPLETED", ended
    assert (await project.found())[:2] == ("running", PEOPLE)


async def test_the_approval_of_a_cancelled_run_is_not_possible(project: LaunchProject) -> None:
    run_id = await project.launch()
    await cancel(project, run_id)
    assert "so the request is withdrawn" in await project.run("campaign", "approve", "spring", "--by", "ada", code=7)
    assert [approval.state for approval in await project.approvals()] == ["withdrawn"]
    assert "no launch of campaign spring waits" in await project.run(
        "campaign", "approve", "spring", "--by", "ada", code=7
    )


async def test_a_waiting_run_never_pauses_the_campaign_that_another_one_launched(
    project: LaunchProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = await project.launch()
    async with open_context(Settings.load(project.config)) as context:
        await approve(context, "spring", Decider(name="ada", source="test"))  # Without resuming the run.
    params = {"campaign": "spring", "follow_seconds": 0}
    other = await start(project.http, "campaign", project.config, params=params)
    assert (await state(project.http, other, *WAITS_OR_ENDED))["type"] == "COMPLETED"
    await cancel(project, waiting)
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.setenv(name, project.environment[name])
    async with open_context(Settings.load(project.config)) as context:
        assert await pause_stopped(context) == []
    assert (await project.found())[:2] == ("running", PEOPLE)


async def cancel(project: LaunchProject, run_id: str) -> None:
    answer = await project.http.post(f"flow_runs/{run_id}/set_state", json={"state": {"type": "CANCELLED"}})
    assert answer.raise_for_status().json()["status"] == "ACCEPT"

"""Launches by the console and the API on a real Prefect server: a person approves, a run sends, a stop pauses."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa
from aiosmtpd.smtp import SMTP

from postroad.api.app import MOUNT_PATH
from postroad.app.api_keys import create_key
from postroad.app.context import AppContext, open_context
from postroad.app.recorder import run_recorder
from postroad.app.worker import open_worker
from postroad.delivery.job import SEND_QUEUE
from postroad.embedded import stop_redis
from postroad.local.prefect_pool import COMMAND
from postroad.local.prefect_server import PrefectServer
from postroad.local.run_watch import watch_runs
from postroad.settings import AccessRole, Settings
from postroad.store.engine import read, write
from tests.api.installation import Mailbox
from tests.console.kit import Console, open_console_of, press
from tests.kit.waiting import until
from tests.prefect.test_approval import CAMPAIGN, ENDED, PEOPLE, SETTINGS, LaunchProject
from tests.prefect.test_bounces import state

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600), pytest.mark.usefixtures("open_pool")]

WITHOUT_APPROVAL = CAMPAIGN.replace("approval: always\n", "")
WITHIN_S = 60


@asynccontextmanager
async def runs_with(http: httpx.AsyncClient, config: Path) -> AsyncIterator[None]:
    """Let launches run with the settings of a project, in the pool whose runs may have settings of their own."""
    deployment = (await http.get("deployments/name/campaign/campaign")).raise_for_status().json()

    async def move(pool: str, variables: dict[str, object]) -> None:
        changed = {"work_pool_name": pool, "job_variables": variables}
        (await http.patch(f"deployments/{deployment['id']}", json=changed)).raise_for_status()

    await move("own-settings", {"command": COMMAND, "env": {"POSTROAD_CONFIG": str(config)}})
    try:
        yield
    finally:
        await move(deployment["work_pool_name"], deployment["job_variables"] or {})


@asynccontextmanager
async def delivering(context: AppContext) -> AsyncIterator[None]:
    """Deliver mail, record outcomes and watch runs, as the processes of an installation do."""
    stop, queue = asyncio.Event(), await context.queue(SEND_QUEUE)
    limits = context.settings.queue(SEND_QUEUE)
    async with open_worker(context, queue, limits, name="w", idle_ms=50) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        group.create_task(run_recorder(context, "r", stop, background=[partial(watch_runs, context)]))
        yield
        stop.set()


@dataclass
class Launching:
    """A console on a project whose launches run on the Prefect server."""

    project: LaunchProject
    console: Console
    mailbox: Mailbox

    async def apply(self, campaign: str) -> None:
        (self.project.folder / "campaign.yaml").write_text(campaign)
        await self.project.run("campaign", "apply", "campaign.yaml")

    def program(self, name: str) -> httpx.AsyncClient:
        """Return a client of the API with a key of its own."""
        with write(self.console.engine) as connection:
            made = create_key(connection, name, AccessRole.SEND, expires_at=None, now=self.console.parts.now())
        headers = {"Authorization": f"Bearer {made.secret}"}
        return httpx.AsyncClient(base_url=f"{self.console.url}{MOUNT_PATH}", headers=headers, timeout=60)

    async def start(self, http: httpx.AsyncClient) -> str:
        """Press the button of the launch page. Returns the id of the run."""
        started = await press(http, "/launch/spring/start")
        assert started.status_code == 303, started.text
        page, _, run_id = started.headers["location"].partition("?")[0].rpartition("/")
        assert page == "/launch/spring/run"
        return str(run_id)

    async def approve(self, http: httpx.AsyncClient) -> httpx.Response:
        """Press the button of the page that asks."""
        page = await http.get("/launch/spring/approve")
        [request] = re.findall(r'name="request" value="(\d+)"', page.text)
        return await http.post("/launch/spring/approve", data={"request": request})

    async def ended(self, run_id: str) -> tuple[str, str]:
        """Type and name of the state in which a run ended."""
        found = await state(self.project.http, run_id, *ENDED)
        return found["type"], found["name"]

    def campaign_state(self) -> str:
        with read(self.console.engine) as connection:
            return str(connection.execute(sa.text("SELECT state FROM campaign WHERE name = 'spring'")).scalar_one())

    def received(self) -> Counter[str]:
        """How many messages each recipient got."""
        return Counter(str(mail["To"]) for mail in self.mailbox.mails)

    async def require_all_received_once(self) -> None:
        await until(lambda: len(self.received()) == PEOPLE, within_s=WITHIN_S)
        assert set(self.received().values()) == {1}

    async def require_stopped(self) -> int:
        """Return how many messages were received, once no more can leave."""
        queue = await self.console.parts.context.queue(SEND_QUEUE)

        async def landed() -> bool:
            return (await queue.stats()).in_flight == 0

        await until(landed, within_s=WITHIN_S)
        assert (await queue.claim("test", want=1, lease_ms=60_000, nonce=uuid4().hex)).jobs == []
        assert 0 < len(self.received()) < PEOPLE
        return len(self.received())


@pytest.fixture
async def launching(
    tmp_path: Path, server: PrefectServer, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Launching]:
    mailbox = Mailbox()
    mail_server = await asyncio.get_running_loop().create_server(lambda: SMTP(mailbox), "127.0.0.1", 0)
    project = LaunchProject(tmp_path, server, http)
    port = mail_server.sockets[0].getsockname()[1]
    project.config.write_text(SETTINGS.replace("port = 1\n", f"port = {port}\n") + "[approval]\nsecond_person = true\n")
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.setenv(name, project.environment[name])
    async with (
        runs_with(http, project.config),
        open_context(Settings.load(project.config)) as context,
        delivering(context),
        open_console_of(context) as console,
    ):
        yield Launching(project, console, mailbox)
    mail_server.close()
    stop_redis(tmp_path / ".postroad")


async def test_a_second_person_approves_and_the_run_sends(launching: Launching) -> None:
    await launching.apply(CAMPAIGN)
    carl = await launching.console.client(AccessRole.SEND, user="carl")
    asked = await carl.get("/launch/spring/start")
    assert f">{PEOPLE}<" in asked.text
    assert "Ask for approval" in asked.text
    run_id = await launching.start(carl)
    await launching.project.require_waiting(run_id)
    assert "It waits for an approval" in (await carl.get(f"/launch/spring/run/{run_id}")).text
    own = await launching.approve(carl)
    assert own.status_code == 409
    assert "another person has to approve it" in own.text
    assert launching.campaign_state() == "draft"

    ada = await launching.console.client(AccessRole.SEND, user="ada")
    assert "/launch/spring" in (await ada.get("/launch")).text
    assert "/launch/spring/approve" in (await ada.get("/launch/spring")).text
    approved = await launching.approve(ada)
    assert approved.status_code == 303, approved.text
    assert await launching.ended(run_id) == ("COMPLETED", "Completed")
    await launching.require_all_received_once()
    assert launching.campaign_state() in ("running", "finished")
    acts = {record.action: record for record in launching.console.audit()}
    assert (acts["campaign.launch"].actor, acts["campaign.launch"].count) == ("carl", PEOPLE)
    assert (acts["campaign.approve"].actor, acts["campaign.approve"].count) == ("ada", PEOPLE)
    followed = await ada.get(f"/launch/spring/run/{run_id}/live")
    assert "Completed" in followed.text
    assert "It waits for an approval" not in followed.text


async def test_a_refused_launch_is_completed_with_that_word(launching: Launching) -> None:
    await launching.apply(CAMPAIGN)
    carl = await launching.console.client(AccessRole.SEND, user="carl")
    run_id = await launching.start(carl)
    await launching.project.require_waiting(run_id)
    ada = await launching.console.client(AccessRole.SEND, user="ada")
    assert (await ada.post("/launch/spring/refuse", data={"reason": ""})).status_code == 422
    refused = await ada.post("/launch/spring/refuse", data={"reason": "Not before Monday"})
    assert refused.status_code == 303, refused.text
    assert await launching.ended(run_id) == ("COMPLETED", "Refused")
    assert launching.campaign_state() == "draft"
    assert "Not before Monday" in (await carl.get(f"/launch/spring/run/{run_id}")).text
    assert launching.received() == {}


async def test_a_cancelled_run_pauses_the_campaign_until_a_person_resumes_it(launching: Launching) -> None:
    await launching.apply(WITHOUT_APPROVAL)
    await launching.project.run("queue", "gate", "set", "campaign:spring", "--rate", "2/1s", "--burst", "2")
    carl = await launching.console.client(AccessRole.SEND, user="carl")
    assert "Launch it" in (await carl.get("/launch/spring/start")).text
    run_id = await launching.start(carl)
    await until(lambda: len(launching.received()) >= 2, within_s=2 * WITHIN_S)
    cancelled = {"state": {"type": "CANCELLING"}}
    answer = await launching.project.http.post(f"flow_runs/{run_id}/set_state", json=cancelled)
    assert answer.raise_for_status().json()["status"] == "ACCEPT"
    await until(lambda: launching.campaign_state() == "paused", within_s=WITHIN_S, every_s=0.1)
    page = await carl.get("/campaigns/spring")
    assert f"its Prefect run {run_id}, which was cancelled" in page.text
    before = await launching.require_stopped()
    assert await launching.ended(run_id) == ("CANCELLED", "Cancelled")
    assert "Cancelled" in (await carl.get(f"/launch/spring/run/{run_id}/live")).text

    assert (await carl.post("/campaigns/spring/resume")).status_code == 303
    await until(lambda: len(launching.received()) > before, within_s=WITHIN_S)
    assert (await carl.post("/campaigns/spring/pause", data={"note": "The link is wrong"})).status_code == 303
    assert "carl in the console: The link is wrong" in (await carl.get("/campaigns/spring")).text
    await launching.require_stopped()
    assert (await carl.post("/campaigns/spring/resume")).status_code == 303
    await launching.project.run("queue", "gate", "set", "campaign:spring", "--rate", "1000/1s", "--burst", "1000")
    await launching.require_all_received_once()


async def test_a_program_launches_once_for_its_key_and_another_key_approves(launching: Launching) -> None:
    await launching.apply(CAMPAIGN)
    async with launching.program("shop") as shop, launching.program("office") as office:
        key = {"Idempotency-Key": "spring-1"}
        answers = [await shop.post("/campaigns/spring/launch", headers=key) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202], answers[0].text
        [run_id] = {answer.json()["flow_run"] for answer in answers}
        assert answers[0].json()["needs_approval"] is True
        await launching.project.require_waiting(run_id)
        assert (await shop.get(f"/launches/{run_id}")).json()["ended"] is False
        [waiting] = (await office.get("/approvals")).json()["items"]
        wanted = {"request": waiting["id"]}
        assert (await shop.post("/campaigns/spring/approve", json=wanted)).status_code == 409
        approved = await office.post("/campaigns/spring/approve", json=wanted)
        assert (approved.status_code, approved.json()["flow_run"]) == (200, run_id), approved.text
        assert await launching.ended(run_id) == ("COMPLETED", "Completed")
        await launching.require_all_received_once()
        followed = (await shop.get(f"/launches/{run_id}")).json()
        assert (followed["state"], followed["ended"], followed["completed"]) == ("Completed", True, True)
        assert (await shop.get(f"/launches/{uuid4()}")).status_code == 404

        async def recorded() -> bool:
            campaign = (await shop.get("/campaigns/spring")).raise_for_status().json()
            return (campaign["audience"], campaign["counts"]["accepted"]) == (PEOPLE, PEOPLE)

        await until(recorded, within_s=WITHIN_S, every_s=0.2)
    actors = {record.action: record.actor for record in launching.console.audit()}
    assert (actors["campaign.launch"], actors["campaign.approve"]) == ("key shop", "key office")


async def test_of_two_launches_at_once_one_begins_and_the_other_names_its_run(launching: Launching) -> None:
    await launching.apply(WITHOUT_APPROVAL)
    await launching.project.run("queue", "gate", "set", "campaign:spring", "--rate", "1/1s", "--burst", "1")
    carl = await launching.console.client(AccessRole.SEND, user="carl")
    async with launching.program("shop") as shop:
        answers = await asyncio.gather(*(shop.post("/campaigns/spring/launch") for _ in range(2)))
    page = (await carl.get("/launch/spring")).text
    is_draft = launching.campaign_state() == "draft"
    assert sorted(answer.status_code for answer in answers) == [202, 409], [answer.text for answer in answers]
    [run_id] = [answer.json()["flow_run"] for answer in answers if answer.status_code == 202]
    [refused] = [answer.json() for answer in answers if answer.status_code == 409]
    assert refused["type"] == "urn:postroad:problem:conflict"
    assert f"/runs/flow-run/{run_id}: campaign spring is being launched by another run" in refused["detail"]
    assert "cancel the run in Prefect" in refused["remedy"]
    if is_draft:  # It was one when the page was made: a campaign does not become a draft again.
        assert f'href="/launch/spring/run/{run_id}"' in page
        assert 'href="/launch/spring/start"' not in page
    asked = await carl.get("/launch/spring/start")
    assert asked.headers["location"] == f"/launch/spring/run/{run_id}"
    assert "is being launched by another run" in await launching.project.run("campaign", "launch", "spring", code=7)
    await launching.project.run("queue", "gate", "set", "campaign:spring", "--rate", "1000/1s", "--burst", "1000")
    assert await launching.ended(run_id) == ("COMPLETED", "Completed")
    await launching.require_all_received_once()

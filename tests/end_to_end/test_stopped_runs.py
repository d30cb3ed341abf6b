"""Cancelling or suspending a campaign's run in Prefect stops its mail, also when Prefect's worker is dead."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from postroad.delivery.job import SEND_QUEUE
from postroad.embedded import ensure_redis
from postroad.local.prefect_api import PrefectApi
from postroad.local.stack import LocalStack, start_stack
from postroad.queue import Queue
from postroad.sandbox import accepted
from postroad.settings import CONFIG_VARIABLE, Settings
from tests.commands import run_command
from tests.kit.waiting import until

ROOT = Path(__file__).parents[2]
RECIPIENTS = 400

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="session")]


class Running:
    """What `postroad up` starts. It keeps running when a process dies."""

    def __init__(self, stack: LocalStack, prefect: PrefectApi, campaigns: Path) -> None:
        self.stack = stack
        self.prefect = prefect
        self.campaigns = campaigns

    def postroad(self, *arguments: str) -> Any:
        done = run_command(ROOT, dict(os.environ), *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    def status(self, name: str) -> Any:
        return self.postroad("campaign", "status", name, "--json")

    def apply_campaign(self, name: str, more: str = "") -> None:
        folder = self.campaigns / name
        folder.mkdir()
        rows = [f"{name}-{n}@mailbox.example,Reader {n}" for n in range(RECIPIENTS)]
        (folder / "people.csv").write_text("\n".join(["address,first_name", *rows]))
        (folder / "text.txt").write_text("Hello {{ first_name }}\n{{ unsubscribe_url }}\n{{ postal_address }}\n")
        (folder / "campaign.yaml").write_text(
            f"name: {name}\nsender: ada\naudience: {{name: {name}, file: people.csv}}\n"
            'steps:\n  - {email: hello, subject: "Hello {{ first_name }}", text: text.txt}\n' + more
        )
        self.postroad("campaign", "apply", str(folder / "campaign.yaml"))

    async def launch_slowly(self, name: str) -> UUID:
        """Start a campaign whose mail takes a while, by a run that stays; return once some of it was delivered."""
        self.apply_campaign(name)
        self.postroad("queue", "gate", "set", f"campaign:{name}", "--rate", "4/1s", "--burst", "4")
        run = await self.run(name, follow_seconds=3600)

        async def some() -> bool:
            state = await self.prefect.state(run)
            assert not state.terminal, state
            return len(self.received(name)) >= 4

        await until(some, within_s=240, every_s=0.5)
        return run

    async def run(self, name: str, follow_seconds: int = 0) -> UUID:
        parameters = {"params": {"campaign": name, "follow_seconds": follow_seconds}}
        return await self.prefect.run_deployment("campaign/campaign", parameters)

    async def set_state(self, run: UUID, **state: str) -> None:
        """Do what the buttons of Prefect's UI do."""
        async with self.stack.prefect.access().http(timeout_s=60) as http:
            answer = await http.post(f"flow_runs/{run}/set_state", json={"state": state})
        assert answer.json()["status"] == "ACCEPT", answer.text

    async def kill(self, name: str) -> None:
        """Kill a process and all that it started."""
        [child] = [child for child in self.stack.supervisor.children if child.name == name]
        child.signal_group(signal.SIGKILL)
        await self.stack.supervisor.end(child)

    async def log_of(self, run: UUID) -> str:
        wanted = {"logs": {"flow_run_id": {"any_": [str(run)]}}}
        async with self.stack.prefect.access().http(timeout_s=60) as http:
            found = (await http.post("logs/filter", json=wanted)).raise_for_status().json()
        return "\n".join(line["message"] for line in found)

    def received(self, name: str) -> Counter[str]:
        assert self.stack.sandbox_dir is not None
        found = accepted(self.stack.sandbox_dir / "accepted.jsonl")
        return Counter(message.recipient for message in found if message.recipient.startswith(f"{name}-"))

    async def require_stopped(self, name: str, run: UUID, why: str) -> None:
        """Return once the campaign is paused by this run and no message of it can leave."""

        async def paused() -> bool:
            return bool(self.status(name)["state"] == "paused")

        await until(paused, within_s=60, every_s=0.5)
        assert self.status(name)["paused_by"] == f"its Prefect run {run}, which {why}"
        assert f"`postroad campaign resume {name}`" in self.postroad("campaign", "status", name)
        async with Queue.open(ensure_redis(self.stack.settings.state_dir), SEND_QUEUE) as queue:

            async def landed() -> bool:
                return (await queue.stats()).in_flight == 0

            await until(landed, within_s=60, every_s=0.5)
            assert (await queue.claim("test", want=1, lease_ms=60_000, nonce=name)).jobs == []
            assert (await queue.stats()).queued > 0
        assert 0 < len(self.received(name)) < RECIPIENTS

        async def said() -> bool:
            return f"Mail of campaign {name} has stopped: this run {why}" in await self.log_of(run)

        await until(said, within_s=60, every_s=0.5)

    async def require_delivered_once(self, name: str) -> None:
        self.postroad("queue", "gate", "set", f"campaign:{name}", "--rate", "1000/1s", "--burst", "1000")

        async def everybody() -> bool:
            return len(self.received(name)) == RECIPIENTS

        await until(everybody, within_s=120, every_s=0.5)
        assert set(self.received(name).values()) == {1}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    state_dir = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        # start_stack writes what it chose into the environment of this process.
        for name in (
            "PREFECT_API_URL",
            "POSTROAD_ROUTES__sandbox__PORT",
            "POSTROAD_WEB__PORT",
            "POSTROAD_CONSOLE__PORT",
            "POSTROAD_PUBLIC_URL",
        ):
            patch.setenv(name, "")
            patch.delenv(name)
        patch.setenv(CONFIG_VARIABLE, str(ROOT / "postroad.toml"))
        patch.setenv("POSTROAD_STATE_DIR", str(state_dir))
        settings = Settings.load(ROOT / "postroad.toml")
        async with start_stack(settings, lambda _: None) as stack, stack.prefect.client() as prefect:
            yield Running(stack, prefect, tmp_path_factory.mktemp("campaigns"))


async def test_cancelling_the_run_stops_the_mail_and_resume_sends_the_rest(running: Running) -> None:
    run = await running.launch_slowly("cancelled")
    await running.set_state(run, type="CANCELLING")
    await running.require_stopped("cancelled", run, "was cancelled")
    running.postroad("campaign", "resume", "cancelled")
    await running.require_delivered_once("cancelled")


async def test_suspending_the_run_stops_the_mail_and_starting_again_sends_the_rest(running: Running) -> None:
    run = await running.launch_slowly("suspended")
    await running.set_state(run, type="PAUSED", name="Suspended")
    await running.require_stopped("suspended", run, "was suspended")
    again = await running.run("suspended")
    assert (await running.prefect.follow(again, within_s=120)).completed
    await running.require_delivered_once("suspended")


async def test_a_launch_waits_for_its_approval_also_while_the_worker_restarts(running: Running) -> None:
    running.apply_campaign("approved", "approval: {from: 100}\n")
    run = await running.run("approved")

    async def waits() -> bool:
        state = await running.prefect.state(run)
        assert not state.terminal, state
        return state.kind == "PAUSED"

    await until(waits, within_s=240, every_s=0.5)
    await running.kill("prefect-worker")
    assert running.status("approved")["state"] == "draft"
    await running.stack.supervisor.start(running.stack.prefect.worker_command(), ready=running.prefect.has_worker)
    done = running.postroad("campaign", "approve", "approved", "--by", "ada", "--json")
    assert (done["state"], done["by"], done["flow_run"]) == ("approved", "ada", str(run))
    assert (await running.prefect.follow(run, within_s=240)).completed
    await running.require_delivered_once("approved")


async def test_cancelling_stops_the_mail_also_when_the_worker_was_killed(running: Running) -> None:
    run = await running.launch_slowly("orphaned")
    await running.kill("prefect-worker")
    await running.set_state(run, type="CANCELLING")
    await running.require_stopped("orphaned", run, "was cancelled")


async def test_the_automation_stops_the_mail_where_no_recorder_watches(running: Running) -> None:
    supervisor = running.stack.supervisor
    if not any(child.name == "prefect-worker" for child in supervisor.children):
        await supervisor.start(running.stack.prefect.worker_command(), ready=running.prefect.has_worker)
    run = await running.launch_slowly("unwatched")
    await running.kill("recorder")
    await running.set_state(run, type="CANCELLING")
    await running.require_stopped("unwatched", run, "was cancelled")

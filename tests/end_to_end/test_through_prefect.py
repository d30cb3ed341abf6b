"""Campaigns that are started where people start them: through a real Prefect server, its API and its UI."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from postroad.delivery.job import SEND_QUEUE
from postroad.embedded import ensure_redis
from postroad.local.prefect_access import PrefectAccess, password_of
from postroad.local.prefect_api import PrefectApi
from postroad.local.prefect_server import choose_port
from postroad.queue import Queue
from postroad.sandbox import accepted
from tests.commands import run_command
from tests.events_out.receiver import SECRET, receiving
from tests.kit.waiting import until
from tests.prefect.browser import open_page, sign_in

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class RunningStack:
    """`postroad up`, as a process of its own."""

    process: subprocess.Popen[bytes]
    state_dir: Path
    url: str
    environment: dict[str, str]
    campaigns: Path
    webhook_port: int

    @property
    def access(self) -> PrefectAccess:
        return PrefectAccess(url=self.url, password=password_of(self.state_dir))

    def postroad(self, *arguments: str) -> Any:
        done = run_command(ROOT, self.environment, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def apply_campaign(self, name: str, recipients: int, tag: str = "") -> None:
        """Apply a campaign of this name, with an audience of its own. Without a tag it accepts all mail."""
        folder = self.campaigns / name
        folder.mkdir()
        rows = [f"{name}-{n}{tag}@mailbox.example,Reader {n}" for n in range(recipients)]
        (folder / "people.csv").write_text("\n".join(["address,first_name", *rows]))
        (folder / "text.txt").write_text("Hello {{ first_name }}\n{{ unsubscribe_url }}\n{{ postal_address }}\n")
        (folder / "campaign.yaml").write_text(
            f"name: {name}\nsender: ada\naudience: {{name: {name}, file: people.csv}}\n"
            'steps:\n  - {email: hello, subject: "Hello {{ first_name }}", text: text.txt}\n'
        )
        self.postroad("campaign", "apply", str(folder / "campaign.yaml"))

    def received(self, name: str) -> Counter[str]:
        """How often the provider accepted mail for each recipient of a campaign made by apply_campaign."""
        found = accepted(self.state_dir / "sandbox" / "accepted.jsonl")
        return Counter(message.recipient for message in found if message.recipient.startswith(f"{name}-"))


def endpoint_of_bounces(port: int) -> dict[str, str]:
    """Settings of an endpoint that gets the events of bounced messages alone."""
    settings = {
        "URL": f"http://127.0.0.1:{port}/hooks",
        "ALLOW_NETWORKS": '["127.0.0.0/8"]',
        "EVENTS": '["message.bounced"]',
        "SECRET": SECRET,
    }
    return {f"POSTROAD_WEBHOOKS_OUT__shop__{name}": value for name, value in settings.items()}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    state_dir = tmp_path_factory.mktemp("stack")
    log = state_dir / "up.log"
    webhook_port = choose_port(preferred=0)
    environment = {**os.environ, "POSTROAD_STATE_DIR": str(state_dir), **endpoint_of_bounces(webhook_port)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "postroad", "up"], env=environment, cwd=ROOT, stdout=output, stderr=output
        )
    try:
        end = time.monotonic() + 120
        while (found := re.search(r"Prefect UI +(\S+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield RunningStack(
            process,
            state_dir,
            found[1],
            {**environment, "PREFECT_API_URL": f"{found[1]}/api"},
            tmp_path_factory.mktemp("campaigns"),
            webhook_port,
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
        left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert str(state_dir) not in left, "Ctrl-C left a process behind"
    finally:
        process.kill()
        process.wait()


async def run_of(stack: RunningStack, campaign: str, follow_seconds: int = 30) -> UUID:
    async with PrefectApi(stack.access) as prefect:
        parameters = {"params": {"campaign": campaign, "follow_seconds": follow_seconds}}
        return await prefect.run_deployment("campaign/campaign", parameters)


async def ended(stack: RunningStack, run_id: UUID) -> str:
    async with PrefectApi(stack.access) as prefect:
        state = await prefect.follow(run_id, within_s=240)
        return f"{state.name}: {state.message}"


async def test_run_started_through_the_api_delivers_to_everybody(stack: RunningStack) -> None:
    stack.apply_campaign("by-api", 300)
    assert (await ended(stack, await run_of(stack, "by-api"))).startswith("Completed")
    status = stack.postroad("campaign", "status", "by-api")
    assert status["counts"]["accepted"] == status["audience"] == 300
    received = stack.received("by-api")
    assert len(received) == 300
    assert set(received.values()) == {1}
    again = await ended(stack, await run_of(stack, "by-api"))
    assert "0 handed to the queue" in again
    assert stack.received("by-api") == received


async def test_run_leaves_progress_table_and_markdown(stack: RunningStack) -> None:
    stack.apply_campaign("artifacts", 50)
    await ended(stack, await run_of(stack, "artifacts"))
    async with stack.access.http(60) as http:
        found = (await http.post("artifacts/filter", json={})).raise_for_status().json()
    kinds = {artifact["key"]: artifact for artifact in found if artifact["key"]}
    assert kinds["delivery-artifacts"]["type"] == "progress"
    assert kinds["completeness-artifacts"]["type"] == "table"
    rows = json.loads(kinds["completeness-artifacts"]["data"])
    assert {"step": "hello", "state": "accepted", "people": 50, "percent": 100.0} in rows
    assert kinds["result-artifacts"]["type"] == "markdown"


async def test_preflight_failure_fails_the_run_and_sends_no_mail(stack: RunningStack) -> None:
    stack.apply_campaign("broken", 20)
    text = stack.campaigns / "broken" / "text.txt"
    text.write_text("Hello {{ nickname }}\n{{ unsubscribe_url }}\n{{ postal_address }}\n")
    stack.postroad("campaign", "apply", str(stack.campaigns / "broken" / "campaign.yaml"))
    outcome = await ended(stack, await run_of(stack, "broken"))
    assert outcome.startswith("Failed")
    assert "nickname" in outcome
    assert not stack.received("broken")
    status = stack.postroad("campaign", "status", "broken")
    assert status["state"] == "draft"
    assert "nickname" in status["launch_error"]
    text.write_text("Hello\n{{ unsubscribe_url }}\n{{ postal_address }}\n")
    stack.postroad("campaign", "apply", str(stack.campaigns / "broken" / "campaign.yaml"))
    assert (await ended(stack, await run_of(stack, "broken"))).startswith("Completed")
    assert stack.postroad("campaign", "status", "broken")["launch_error"] is None


async def test_events_of_a_campaign_reach_an_endpoint(stack: RunningStack) -> None:
    async with receiving(port=stack.webhook_port) as receiver:
        stack.apply_campaign("returned", 30, tag="+bounce")
        assert (await ended(stack, await run_of(stack, "returned"))).startswith("Completed")
        await until(lambda: len(receiver.requests) >= 30, within_s=60)
        recipients = Counter(body["data"]["recipient"] for _, body in receiver.requests)
        assert {body["type"] for _, body in receiver.requests} == {"message.bounced"}
    assert recipients == Counter(f"returned-{number}+bounce@mailbox.example" for number in range(30))

    def delivered() -> bool:
        [endpoint] = stack.postroad("webhook", "list")
        return (endpoint["waiting"], endpoint["dead"]) == (0, 0)

    await until(delivered, within_s=60, every_s=0.5)


async def test_maintenance_finds_nothing_missing_and_shows_the_queues(stack: RunningStack) -> None:
    outcome = "Cancelled"
    while outcome.startswith("Cancelled"):  # as it is while a run of its schedule is under way
        async with PrefectApi(stack.access) as prefect:
            run_id = await prefect.run_deployment("maintenance/maintenance", {})
        outcome = await ended(stack, run_id)
    assert outcome.startswith("Completed")
    assert "no job is missing" in outcome
    async with stack.access.http(60) as http:
        found = (await http.post("artifacts/filter", json={})).raise_for_status().json()
    table = next(json.loads(artifact["data"]) for artifact in found if artifact["key"] == "queues")
    assert [row["queue"] for row in table] == ["email:send", "email:warmup", "bounce:process", "webhook:out"]


@pytest.mark.browser
async def test_run_started_from_the_form_in_a_browser_delivers(stack: RunningStack) -> None:
    stack.apply_campaign("by-hand", 100)
    async with open_page() as page:
        await sign_in(page, stack.access)
        await page.get_by_role("link", name="Deployments", exact=True).click()
        await page.locator('a[href*="/deployments/deployment/"]').get_by_text("campaign", exact=True).click()
        await page.get_by_role("button", name="Run", exact=True).click()
        await page.get_by_role("menuitem", name="Custom run").click()
        await page.get_by_text("Select", exact=True).click()
        await page.get_by_role("option", name="by-hand").click()
        await page.get_by_role("button", name="Submit").click()
        async with asyncio.timeout(90):
            while len(stack.received("by-hand")) < 100:
                await asyncio.sleep(0.2)
    assert set(stack.received("by-hand").values()) == {1}


async def test_flow_run_killed_between_slices_and_run_again_repeats_nothing(stack: RunningStack) -> None:
    recipients = 12_000
    stack.apply_campaign("killed", recipients)
    async with Queue.open(ensure_redis(stack.state_dir), SEND_QUEUE) as queue:

        async def enqueued() -> int:
            return (await queue.stats()).counters.get("enqueued", 0)

        before = await enqueued()
        run_id = await run_of(stack, "killed", follow_seconds=0)
        async with asyncio.timeout(120):
            while await enqueued() == before:
                await asyncio.sleep(0.002)
        for pid in flow_processes(stack):
            os.kill(pid, signal.SIGKILL)
        first = await enqueued() - before
        assert 0 < first < recipients, "it was killed too late to show anything"
    assert (await ended(stack, run_id)).startswith("Crashed")
    assert (await ended(stack, await run_of(stack, "killed", follow_seconds=0))).startswith("Completed")
    async with asyncio.timeout(120):
        while stack.postroad("campaign", "status", "killed")["counts"]["accepted"] < recipients:
            await asyncio.sleep(0.5)
    async with Queue.open(ensure_redis(stack.state_dir), SEND_QUEUE) as queue:
        total = (await queue.stats()).counters["enqueued"] - before
    assert total == recipients, "the second run enqueued what the first had not, and nothing else"
    received = stack.received("killed")
    assert len(received) == recipients
    assert set(received.values()) == {1}


def flow_processes(stack: RunningStack) -> list[int]:
    """Processes that run flows for this stack's worker."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if b"prefect.engine" in arguments and str(stack.state_dir).encode() in environment:
            found.append(int(process.name))
    return found


async def test_a_sender_that_warms_up_has_a_schedule_a_run_and_its_curve(stack: RunningStack) -> None:
    async with stack.access.http(timeout_s=60) as http:
        deployment = (await http.get("/deployments/name/warmup/warmup")).raise_for_status().json()
        [schedule] = deployment["schedules"]
        assert schedule["parameters"] == {"params": {"sender": "grace"}}
        assert (schedule["active"], schedule["schedule"]["cron"]) == (True, "20 4 * * *")
        wanted = {
            "flow_runs": {"deployment_id": {"any_": [deployment["id"]]}, "state": {"type": {"any_": ["COMPLETED"]}}}
        }

        async def completed() -> bool:
            return bool((await http.post("/flow_runs/filter", json=wanted)).raise_for_status().json())

        await until(completed, within_s=120, every_s=0.5)
        artifact = (await http.get("/artifacts/warmup-grace/latest")).raise_for_status().json()
    assert artifact["type"] == "markdown"
    assert "The curve of the plan" in artifact["data"]
    assert artifact["data"].count("█\n") >= 29

"""Commands of the queue while workers run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from postroad.cli.app import app
from postroad.queue import Gate, Job, Lane, Queue, Uncertain
from postroad.queue.redis.client import connect
from tests.conftest import RedisServer
from tests.kit.waiting import until
from tests.queue.conftest import jobs

LANE = Lane(name="a", gates=("g",), group="spring")
ROOT = Path(__file__).parents[2]
Run = Callable[..., Any]


@pytest.fixture(params=["valkey", "redis"])
def shared_redis(request: pytest.FixtureRequest, redis_servers: Callable[[str], RedisServer]) -> RedisServer:
    """No cluster: processes start slowly, and use only the URL."""
    return redis_servers(request.param)


@pytest.fixture
def run(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a thread, like a separate process. Returns its JSON output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POSTROAD_REDIS_URL", redis_url)
    monkeypatch.setenv("POSTROAD_STATE_DIR", str(tmp_path / "state"))

    async def run(*arguments: str, queue: str = "commands", fails: bool = False) -> Any:
        group = [] if arguments[0] == "unknown" else ["queue"]
        command = [*group, *arguments, "--queue", queue, "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert (result.exit_code != 0) == fails, result.output
        return result.exception if fails else json.loads(result.stdout)

    return run


@contextmanager
def workers(url: str, queue: str, names: list[str]) -> Iterator[None]:
    processes = [
        subprocess.Popen([sys.executable, "-m", "tests.queue.holding_worker", url, queue, name], cwd=ROOT)
        for name in names
    ]
    try:
        yield
        for process in processes:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(20) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def test_a_new_limit_applies_to_two_running_workers_at_once(redis_url: str, run: Run) -> None:
    async with Queue.open(redis_url, "gated") as queue:
        await queue.set_gate(Gate(name="g", concurrency=0))
        for n in range(40):
            await queue.enqueue(Lane(name=f"{n}", gates=("g",)), [Job(id=f"{n}", payload=b"")])

        async def in_flight(wanted: int) -> None:
            async def is_so() -> bool:
                flying = (await queue.stats()).in_flight
                assert flying <= max(wanted, allowed)
                return flying == wanted

            await until(is_so)

        with workers(redis_url, "gated", ["one", "two"]):
            allowed = 0
            for limit in (3, 30):
                state = await run("gate", "set", "g", "--concurrency", str(limit), queue="gated")
                assert state["gate"]["concurrency"] == limit
                # Exactly the concurrency of the gate, although each worker has twenty slots.
                await in_flight(limit)
                allowed = limit
            found = [(await queue.find(f"{n}")).worker for n in range(40)]
            assert {name and name.rpartition("/")[0] for name in found} == {"one", "two", None}
            await run("gate", "set", "g", "--concurrency", "0", queue="gated")
            client = connect(redis_url)
            await client.set("go:gated", "1")
            await in_flight(0)
            assert (await queue.stats()).queued == 10
            await run("gate", "set", "g", "--rate", "1000/1s", "--burst", "5", queue="gated")

            async def all_done() -> bool:
                return (await queue.stats()).counters["done"] == 40

            await until(all_done)
            await client.aclose()
        assert await queue.audit() == []


async def test_a_gate_is_set_as_a_whole_and_rejects_invalid_limits(run: Run) -> None:
    state = await run(
        "gate", "set", "s", "--rate", "30/1h", "--burst", "2", "--quota", "1000", "--until", "24h", "--new"
    )
    assert state["gate"]["rate"] == {"count": 30.0, "per_ms": 3_600_000, "burst": 2}
    assert state["gate"]["quota"]["left"] == 1000
    state = await run("gate", "set", "s", "--concurrency", "5")
    assert (state["gate"]["rate"], state["gate"]["quota"], state["gate"]["concurrency"]) == (None, None, 5)
    for wrong in (["--burst", "2"], ["--quota", "5"], ["--rate", "many"], ["--quota", "1", "--until", "tomorrow"]):
        await run("gate", "set", "s", *wrong, fails=True)


async def test_a_job_is_shown_explained_rescheduled_and_cancelled(redis_url: str, run: Run) -> None:
    async with Queue.open(redis_url, "commands") as queue:
        now_ms = (await queue.find("nobody")).now_ms
        await queue.enqueue(LANE, jobs("later", due_ms=now_ms + 3_600_000))
        shown = await run("job", "later")
        assert (shown["state"], shown["lane"], shown["attempts"], shown["history"]) == ("scheduled", "a", 0, [])
        assert await run("reschedule", "later", "--to", "2999-01-01T00:00Z") == {"rescheduled": 1}
        assert "due at 2999-01-01 00:00:00 UTC" in (await run("explain", "later"))["words"][0]
        assert await run("reschedule", "later", "--to", "0s") == {"rescheduled": 1}
        await queue.pause_gate("g", None)
        said = await run("explain", "later")
        assert (said["held_by"], said["not_before_ms"], said["ahead"]) == ("gate g", None, 0)
        assert await run("cancel", "later", "nobody") == {"cancelled": 1}
        shown = await run("job", "later")
        assert [event["event"] for event in shown["history"]] == ["cancelled"]
        await queue.resume_gate("g")
    for words in (
        ("job", "nobody"),
        ("explain", "nobody"),
        ("cancel", "nobody"),
        ("reschedule", "nobody", "--to", "1h"),
    ):
        await run(*words, fails=True)


async def test_uncertain_jobs_are_listed_and_resolved(redis_url: str, run: Run) -> None:
    async with Queue.open(redis_url, "commands") as queue:
        await queue.enqueue(LANE, jobs("u1", "u2", "u3"))
        held = (await queue.claim("w", want=3, lease_ms=60_000, nonce="n")).jobs
        await queue.settle("w", [(job, Uncertain(cause="c")) for job in held])
        assert [row["id"] for row in await run("unknown", "list")] == ["u1", "u2", "u3"]
        for job, how in (("u1", "accepted"), ("u2", "not-sent"), ("u3", "dead")):
            resolved = await run("unknown", "resolve", job, "--as", how, "--by", "ada")
            assert resolved == {"id": job, "resolved": how, "by": "ada"}
        assert [str(state) for state in await queue.states(["u1", "u2", "u3"])] == ["remembered", "queued", "dead"]
        await run("unknown", "resolve", "u1", "--as", "dead", fails=True)
        assert await run("unknown", "list") == []


async def test_uncertain_jobs_of_any_queue_can_be_resolved(redis_url: str, run: Run) -> None:
    async with Queue.open(redis_url, "uncertain") as queue:
        await queue.enqueue(LANE, jobs("v1", "v2", "v3"))
        held = (await queue.claim("w", want=3, lease_ms=60_000, nonce="n")).jobs
        await queue.settle("w", [(job, Uncertain(cause="c")) for job in held])
        found = await run("uncertain", "list", queue="uncertain")
        assert [(row["id"], row["lane"]) for row in found] == [("v1", "a"), ("v2", "a"), ("v3", "a")]
        for job, how in (("v1", "done"), ("v2", "release"), ("v3", "dead")):
            resolved = await run("uncertain", "resolve", job, how, "--by", "ada", queue="uncertain")
            assert resolved == {"id": job, "resolved": how, "by": "ada"}
        assert [str(state) for state in await queue.states(["v1", "v2", "v3"])] == ["remembered", "queued", "dead"]
        await run("uncertain", "resolve", "v1", "dead", queue="uncertain", fails=True)
        assert await run("uncertain", "list", queue="uncertain") == []


def start(folder: Path, redis_url: str, *command: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "POSTROAD_REDIS_URL": redis_url, "POSTROAD_STATE_DIR": str(folder / "state")}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "postroad", *command], cwd=folder, env=environment, stdout=log, stderr=log
        )


@pytest.mark.parametrize("command", ["worker --queue email:send --concurrency 10 --rate 100/1s", "recorder"])
async def test_a_process_serves_its_metrics(redis_url: str, tmp_path: Path, command: str) -> None:
    process = start(tmp_path, redis_url, *command.split(), "--metrics-port", "0")
    log = tmp_path / "log"
    try:

        async def serves() -> bool:
            assert process.poll() is None, log.read_text()
            return "metrics and health at http://" in log.read_text()

        await until(serves)
        found = re.search(r"http://127.0.0.1:\d+", log.read_text())
        assert found
        assert "/metrics" in log.read_text()
        metrics = f"{found.group()}/metrics"
        async with httpx.AsyncClient() as client:

            async def shows(metric: str) -> bool:
                return metric in (await client.get(metrics)).text

            await until(lambda: shows('postroad_queue_up{queue="email:send"} 1.0'))
            if command == "recorder":
                await until(lambda: shows("postroad_recorder_lag_seconds 0.0"))
        process.terminate()
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        process.kill()
        process.wait()

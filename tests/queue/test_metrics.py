"""Prometheus metrics: exposed and documented ones are equal, and the values are those of the queue."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import RedisError

from postroad.errors import ConfigError
from postroad.queue import Dead, Done, Gate, Lane, Lease, Queue, Rate, Verdict, Worker
from postroad.queue.metrics import QueueMetrics, serve_metrics, used_ratio
from postroad.queue.redis.client import connect
from tests.conftest import RedisServer
from tests.kit.waiting import until
from tests.queue.conftest import Bench, jobs, running

LANE = Lane(name="a", gates=("g",), group="x")
PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"


def values(text: str) -> dict[str, float]:
    """Return each sample as `name{label values}`, with the queue's label first."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = [sample.labels["queue"], *(v for k, v in sample.labels.items() if k != "queue")]
            found[f"{sample.name}{{{','.join(labels)}}}"] = sample.value
    return found


async def get(port: int, path: str = "/metrics") -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://127.0.0.1:{port}{path}")


async def test_metrics_count_the_work_of_queue_and_worker(redis_url: str) -> None:
    async def handle(lease: Lease) -> Verdict:
        return Done() if lease.job.id != "bad" else Dead(cause="c")

    metrics = QueueMetrics()
    async with Queue.open(redis_url, "measured", metrics=metrics) as queue:
        await queue.set_gate(Gate(name="shut", concurrency=0))
        await queue.read_events("recorder", "c", count=1, block_ms=0)
        await queue.enqueue(LANE, jobs("1", "2", "bad"))
        await queue.enqueue(Lane(name="b", gates=("shut",)), jobs("waits"))
        await queue.pause_group("paused")
        await queue.pause_gate("stopped", None)
        await queue.set_gate(Gate(name="resumed", concurrency=5, paused_until_ms=1))

        async def ended() -> bool:
            return (await queue.stats()).queued == 1

        async with running(Worker(queue, handle)):
            await until(ended)
        async with serve_metrics(metrics, [queue], host="127.0.0.1", port=0) as port:
            response = await get(port)
            assert (await get(port, "/")).status_code == 404
    assert response.headers["content-type"].startswith("text/plain")
    found = values(response.text)
    wanted = {
        "postroad_queue_up{measured}": 1,
        "postroad_queue_jobs{measured,queued}": 1,
        "postroad_queue_jobs{measured,dead}": 1,
        "postroad_queue_depth{measured,normal}": 1,
        "postroad_queue_lanes{measured,parked}": 1,
        "postroad_queue_paused_groups{measured}": 1,
        "postroad_queue_jobs_total{measured,enqueued}": 4,
        "postroad_queue_jobs_total{measured,done}": 2,
        "postroad_queue_events_unrecorded{measured,recorder}": 3,
        "postroad_queue_gate_used_ratio{measured,shut}": 1,
        "postroad_queue_gate_parked_lanes{measured,shut}": 1,
        "postroad_queue_gate_paused{measured,resumed}": 0,
        "postroad_queue_gate_paused{measured,stopped}": 1,
        "postroad_queue_claimed_total{measured}": 3,
        "postroad_queue_settled_total{measured,done}": 2,
        "postroad_queue_settled_total{measured,dead}": 1,
        "postroad_queue_script_seconds_count{measured,enqueue}": 2,
    }
    assert {name: found.get(name) for name in wanted} == wanted


async def test_exposed_and_documented_queue_metrics_are_equal(bench: Bench) -> None:
    metrics = QueueMetrics()
    await bench.queue.set_gate(Gate(name="g", concurrency=5))
    await bench.queue.enqueue(LANE, jobs("1", "2"))
    await bench.claim(1)
    metrics.script_ran("q", "claim", 0.1)
    metrics.worked("q", claimed=1, settled=["done"], stale=1)
    metrics.watchdog_tripped("q")
    await bench.queue.read_events("g", "c", count=1, block_ms=0)
    await metrics.refresh([bench.queue])
    exposed = {
        # The name of a counter's family has no suffix.
        family.name + ("_total" if family.type == "counter" else ""): {
            label for sample in family.samples for label in sample.labels if label != "le"
        }
        for family in text_string_to_metric_families(metrics.text().decode())
        if family.samples and not family.name.endswith("_created")
    }
    rows = re.findall(
        r"^\| `(postroad_queue_\w+)` \| \w+ \| ([^|]*) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == exposed


async def test_an_unavailable_server_is_reported_as_down(own_redis: RedisServer) -> None:
    metrics = QueueMetrics()
    async with Queue.open(own_redis.url, "away", metrics=metrics) as queue:
        await metrics.refresh([queue])
        own_redis.kill()
        async with serve_metrics(metrics, [queue], host="127.0.0.1", port=0) as port:
            found = values((await get(port)).text)
            with pytest.raises(ConfigError):
                async with serve_metrics(metrics, [queue], host="127.0.0.1", port=port):
                    pass
    assert found["postroad_queue_up{away}"] == 0
    assert "postroad_queue_jobs{away,queued}" not in found


async def test_memory_and_disk_of_the_server_are_reported(own_redis: RedisServer) -> None:
    metrics = QueueMetrics()
    client = connect(own_redis.url)
    async with Queue.open(own_redis.url, "q", metrics=metrics) as queue:

        async def found() -> tuple[float, float]:
            await metrics.refresh([queue])
            exposed = values(metrics.text().decode())
            return exposed["postroad_queue_memory_used_ratio{q}"], exposed["postroad_queue_persists{q}"]

        of_host, persists = await found()
        assert (0 < of_host < 0.2, persists) == (True, 1)
        used = (await queue.stats()).server.memory_used_bytes
        await client.execute_command("CONFIG", "SET", "maxmemory", 2 * used)
        assert 0.4 < (await found())[0] < 0.6

        # A rewrite of the append-only file fails as on a full disk.
        files = own_redis.folder / "appendonlydir"
        moved = files.rename(own_redis.folder / "moved")
        files.touch()
        with suppress(RedisError):
            await client.execute_command("BGREWRITEAOF")
        await until(lambda: _reports(found, 0))
        files.unlink()
        moved.rename(files)
        await client.execute_command("BGREWRITEAOF")
        await until(lambda: _reports(found, 1))
    await client.aclose()


async def _reports(found: Callable[[], Awaitable[tuple[float, float]]], persists: float) -> bool:
    return (await found())[1] == persists


async def test_the_use_of_a_gate_is_that_of_its_most_used_limit(bench: Bench) -> None:
    await bench.queue.set_gate(Gate(name="g", concurrency=4, rate=Rate(count=1, per_ms=60_000, burst=10)))
    await bench.queue.enqueue(LANE, jobs(*"12345"))

    async def used() -> float:
        [state] = await bench.queue.gates()
        return used_ratio(state)

    seen = [await used()]
    for _ in range(4):
        await bench.claim(1)
        seen.append(await used())
    assert seen == [0, 0.25, 0.5, 0.75, 1]
    await bench.queue.set_gate(Gate(name="g", rate=Rate(count=1, per_ms=60_000, burst=10)))
    assert await used() == 0.4

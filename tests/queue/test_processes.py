"""Processes send heartbeats to their queue, and count as gone without them."""

from __future__ import annotations

import asyncio

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from postroad.errors import UnavailableError
from postroad.queue import Beat, Queue, beating, this_process
from postroad.queue.metrics import QueueMetrics
from postroad.queue.processes import ALIVE_MS, FORGET_MS, MAX_PROCESSES
from tests.kit.waiting import until
from tests.queue.conftest import Bench


def a_process(number: int = 0, role: str = "worker") -> Beat:
    return msgspec.structs.replace(this_process(role), id=f"{role}-{number}", name=f"w{number}")


async def test_a_process_is_alive_until_its_heartbeats_stop(bench: Bench) -> None:
    await bench.queue.beat(a_process())
    bench.clock.advance(ALIVE_MS - 1)
    [process] = await bench.queue.processes()
    assert process.alive
    assert (process.role, process.name, process.queue) == ("worker", "w0", bench.queue.name)
    assert process.beat_age_ms == ALIVE_MS - 1
    bench.clock.advance(1)
    assert [process.alive for process in await bench.queue.processes()] == [False]
    await bench.queue.beat(a_process())
    assert [process.alive for process in await bench.queue.processes()] == [True]


async def test_a_stopped_process_is_not_shown(bench: Bench) -> None:
    await bench.queue.beat(a_process(1))
    await bench.queue.beat(a_process(2))
    await bench.queue.leave("worker-1")
    assert [process.name for process in await bench.queue.processes()] == ["w2"]


async def test_a_process_without_heartbeats_is_deleted(bench: Bench) -> None:
    await bench.queue.beat(a_process(1))
    bench.clock.advance(FORGET_MS)
    await bench.queue.beat(a_process(2))
    assert [process.name for process in await bench.queue.processes()] == ["w2"]
    assert await bench.client.hlen(bench.key("processes")) == 1


async def test_the_number_of_stored_processes_is_bounded(bench: Bench) -> None:
    for number in range(MAX_PROCESSES + 5):
        await bench.queue.beat(a_process(number))
        bench.clock.advance(1)
    found = await bench.queue.processes()
    assert len(found) == MAX_PROCESSES
    assert found[0].name == f"w{MAX_PROCESSES + 4}"
    assert await bench.client.hlen(bench.key("processes")) == MAX_PROCESSES


async def test_a_clock_step_back_makes_ages_zero(bench: Bench) -> None:
    await bench.queue.beat(a_process())
    bench.clock.advance(-60_000)
    assert [process.beat_age_ms for process in await bench.queue.processes()] == [0]


async def test_heartbeats_continue_after_an_outage_of_the_server(bench: Bench) -> None:
    calls = 0

    async def opened() -> Queue:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise UnavailableError("away")
        return bench.queue

    async def shown() -> bool:
        return len(await bench.queue.processes()) == 1

    async with beating(opened, this_process("web")):
        async with asyncio.timeout(20):
            await until(shown)
    assert await bench.queue.processes() == []


async def test_metrics_count_live_processes_by_role(bench: Bench) -> None:
    await bench.queue.beat(a_process(1))
    await bench.queue.beat(a_process(1, "recorder"))
    bench.clock.advance(ALIVE_MS)
    await bench.queue.beat(a_process(2))
    metrics = QueueMetrics()
    await metrics.refresh([bench.queue])
    found = {
        sample.labels["role"]: sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if sample.name == "postroad_processes"
    }
    assert found == {"worker": 1, "recorder": 0}

"""A worker that is idle while jobs are ready reconnects. A legitimately idle worker does not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroad.queue import (
    Done,
    Gate,
    JobState,
    Lane,
    Lease,
    Queue,
    QueueOptions,
    Retention,
    Verdict,
    Worker,
    WorkerOptions,
)
from postroad.queue.metrics import QueueMetrics
from postroad.queue.watchdog import Watchdog
from tests.conftest import RedisServer
from tests.kit.waiting import until
from tests.queue.conftest import Bench, jobs, running

LANE = Lane(name="a", gates=("g",))


async def done(lease: Lease) -> Verdict:
    return Done()


class Address:
    """A proxy that connects to one server, and later to another."""

    def __init__(self, folder: Path) -> None:
        self._link = folder / "now"
        self.url = f"unix://{self._link}"

    def leads_to(self, server: RedisServer) -> None:
        draft = self._link.with_suffix(".next")
        draft.symlink_to(server.socket)
        draft.replace(self._link)


@pytest.fixture
def address() -> Iterator[Address]:
    with tempfile.TemporaryDirectory(prefix="pr-") as folder:
        yield Address(Path(folder))


async def test_a_worker_with_a_stale_connection_finds_the_new_server(
    shared_redis: RedisServer, own_redis: RedisServer, address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = QueueMetrics()
    address.leads_to(shared_redis)
    async with (
        Queue.open(address.url, "failover", metrics=metrics) as queue,
        running(Worker(queue, done, options=WorkerOptions(watchdog_ms=200))),
    ):
        address.leads_to(own_redis)
        async with Queue.open(address.url, "failover") as new:
            await new.enqueue(LANE, jobs("1", "2"))

            async def ended() -> bool:
                return await new.states(["1", "2"]) == [JobState.REMEMBERED] * 2

            await until(ended)
    assert caplog.text.count("; reconnecting") == 1
    assert b'postroad_queue_watchdog_trips_total{queue="failover"} 1.0' in metrics.text()


async def looked_three_times(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    probe = queue.probe

    async def counted() -> object:
        nonlocal looks
        looks += 1
        return await probe()

    monkeypatch.setattr(queue, "probe", counted)

    async def enough() -> bool:
        return looks >= 3

    await until(enough)


@pytest.mark.parametrize("why", ["nothing is ready", "a gate holds it", "the events are full"])
async def test_a_legitimately_idle_worker_does_not_reconnect(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    metrics = QueueMetrics()
    options = QueueOptions(retention=Retention(events=100))
    async with Queue.open(redis_url, f"idle {why}", options=options, metrics=metrics) as queue:
        await queue.set_gate(Gate(name="g", concurrency=0 if "gate" in why else None))
        if "nothing" not in why:
            await queue.enqueue(LANE, jobs("1"))
        if "full" in why:
            await queue.read_events("g", "c", count=1, block_ms=0)
            for n in range(100):
                await queue.record_late_outcome(f"{n}", n, b"")
        async with running(Worker(queue, done, options=WorkerOptions(watchdog_ms=20))):
            await looked_three_times(queue, monkeypatch)
        assert b"postroad_queue_watchdog_trips_total{" not in metrics.text()
        assert "; reconnecting" not in caplog.text


async def test_a_claim_between_two_checks_resets_the_watchdog(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    watchdog = Watchdog(bench.queue, "w", 20)  # Each check finds ready jobs and no claim, unless it was reset.
    probe = bench.queue.probe

    async def fed_meanwhile() -> object:
        watchdog.claimed()
        return await probe()

    with monkeypatch.context() as patch:
        patch.setattr(bench.queue, "probe", fed_meanwhile)
        async with watchdog.watching(lambda: True):
            await looked_three_times(bench.queue, monkeypatch)
    assert watchdog.trips == 0

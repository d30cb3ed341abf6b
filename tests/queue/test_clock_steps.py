"""The clock of the queue's server steps: no delay becomes longer than its duration."""

from __future__ import annotations

import re
from itertools import count

import pytest

from postroad.queue import Defer, Done, Gate, JobState, Lane, Lease, Queue, Quota, Rate, Verdict, Worker, WorkerOptions
from postroad.queue.metrics import QueueMetrics
from tests.kit.clock import FakeClock
from tests.kit.waiting import until
from tests.queue.conftest import Bench, ids, jobs, running, scripts_of

LANE = Lane(name="a", gates=("g",), group="x")
OTHER = Lane(name="b", gates=(), group="y")
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
STEPS = [700, HOUR_MS, DAY_MS]


async def done(lease: Lease) -> Verdict:
    return Done()


@pytest.mark.parametrize("back_ms", STEPS)
async def test_a_rate_admits_again_after_its_burst(bench: Bench, back_ms: int) -> None:
    await bench.queue.set_gate(Gate(name="g", rate=Rate(count=1, per_ms=10_000, burst=2)))
    await bench.queue.enqueue(LANE, jobs(*map(str, range(6))))
    assert len(await bench.claim()) == 2
    assert await bench.claim() == []
    bench.clock.advance(-back_ms)
    await bench.claim()
    bench.clock.advance(10_000 + 1_000)
    assert len(await bench.claim()) == 1
    bench.clock.advance(10_000)
    assert len(await bench.claim()) == 1
    assert await bench.queue.audit() == []


@pytest.mark.parametrize("back_ms", STEPS)
async def test_a_pause_lasts_no_longer_than_its_duration(bench: Bench, back_ms: int) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    await bench.queue.pause_gate_for("g", 5_000)
    assert await bench.claim() == []
    bench.clock.advance(-back_ms)
    await bench.claim()
    bench.clock.advance(5_000 + 1_000)
    assert ids(await bench.claim()) == ["1"]


async def test_a_pause_without_an_end_stays(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    await bench.queue.pause_gate("g", None)
    bench.clock.advance(-DAY_MS)
    assert await bench.claim() == []
    bench.clock.advance(2 * DAY_MS)
    assert await bench.claim() == []
    await bench.queue.resume_gate("g")
    assert ids(await bench.claim()) == ["1"]


@pytest.mark.parametrize("back_ms", [HOUR_MS, DAY_MS])
async def test_jobs_of_a_dead_worker_return_after_its_lease(bench: Bench, back_ms: int) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    assert len(await bench.claim(lease_ms=60_000)) == 1
    bench.clock.advance(-back_ms)
    await bench.claim(worker="other")
    bench.clock.advance(60_000 + 1_000)
    assert ids(await bench.claim(worker="other")) == ["1"]


async def test_freed_capacity_is_used_at_once(bench: Bench) -> None:
    await bench.queue.set_gate(
        Gate(name="g", concurrency=1, quota=Quota(left=10, until_ms=bench.clock.now_ms() + DAY_MS))
    )
    await bench.queue.enqueue(LANE, jobs("1", "2"))
    first = await bench.claim()
    assert ids(first) == ["1"]
    bench.clock.advance(-HOUR_MS)
    assert await bench.settle(Done(), *first) == []
    assert ids(await bench.claim()) == ["2"]


async def test_claims_complete_a_cancellation_after_a_clock_step(bench: Bench, redis_url: str) -> None:
    await bench.queue.enqueue(OTHER, jobs("1", "2"))
    assert len(await bench.claim(1)) == 1
    bench.clock.advance(-HOUR_MS)
    async with scripts_of(redis_url, bench.queue.name, bench.clock) as scripts:
        await scripts.cancel_group("y", "over", 0, 100)  # the caller died before the rest
    assert await bench.claim() == []
    assert await bench.queue.states(["2"]) == [JobState.REMEMBERED]


@pytest.mark.parametrize("ms", [HOUR_MS, DAY_MS])
async def test_a_step_forward_and_back_delays_nothing(bench: Bench, ms: int) -> None:
    await bench.queue.set_gate(Gate(name="g", rate=Rate(count=1, per_ms=1_000)))
    await bench.queue.enqueue(LANE, jobs(*map(str, range(5))))
    bench.clock.advance(ms)
    assert len(await bench.claim()) == 1
    await bench.queue.pause_gate_for("g", 5_000)
    bench.clock.advance(-ms)
    await bench.claim()
    bench.clock.advance(6_000)
    assert len(await bench.claim()) == 1
    assert await bench.queue.audit() == []


async def test_a_delay_uses_the_clock_of_the_server(redis_url: str) -> None:
    """No client clock is used: a delay is a duration, and the server stores its start."""
    async with Queue.open(redis_url, "one-clock") as queue:
        await queue.enqueue(OTHER, jobs("1"))
        batch = await queue.claim("w", want=1, lease_ms=60_000, nonce="n")
        assert (await queue.settle("w", [(batch.jobs[0], Defer(cause="c", delay_ms=1))])).stale == []
        nonces = count()

        async def again() -> bool:
            return bool((await queue.claim("w", want=1, lease_ms=60_000, nonce=f"again {next(nonces)}")).jobs)

        await until(again)


async def test_the_watchdog_and_a_metric_report_a_clock_step(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    clock, metrics = FakeClock(), QueueMetrics()
    async with Queue.open(redis_url, "stepping", clock=clock, metrics=metrics) as queue:
        await queue.enqueue(OTHER, jobs("1"))
        async with running(Worker(queue, done, clock=clock, options=WorkerOptions(watchdog_ms=50))):

            async def ended(job: str) -> bool:
                return await queue.states([job]) == [JobState.REMEMBERED]

            await until(lambda: ended("1"))

            async def is_logged() -> bool:
                # The first check only reads the earlier total.
                clock.advance(-HOUR_MS)
                return "stepped back by" in caplog.text

            await until(is_logged)
        await metrics.refresh([queue])
    text = metrics.text().decode()
    stepped_s = re.search(r'postroad_queue_clock_stepped_back_seconds_total\{queue="stepping"\} (\S+)', text)
    assert stepped_s is not None
    assert float(stepped_s[1]) >= HOUR_MS / 1000
    assert "clock_step" not in "".join(
        line for line in text.splitlines() if line.startswith("postroad_queue_jobs_total")
    )

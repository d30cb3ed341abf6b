"""Tests of JobRunner, whose tasks handle jobs in sequence."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

from postroad.queue import Done, Lane, Lease, Release, Verdict
from postroad.queue.job_runner import Backoff, Handle, JobRunner
from tests.queue.conftest import Bench, jobs

LANE = Lane(name="a", gates=())


def runner_of(bench: Bench, handle: Handle) -> JobRunner:
    return JobRunner(bench.queue, handle, None, 60_000, Backoff(Random(1), first_s=0.01, most_s=0.1))


async def outcomes(runner: JobRunner, count: int) -> list[tuple[str, Verdict]]:
    async with asyncio.timeout(10):
        while len(runner.outbox) < count:
            await runner.outcome_ready.wait()
            runner.outcome_ready.clear()
    found, runner.outbox = runner.outbox, []
    return [(outcome.job.id, outcome.verdict) for outcome in found]


async def test_a_cancelled_job_leaves_its_task_usable(bench: Bench) -> None:
    started = asyncio.Event()
    tasks: list[asyncio.Task[object]] = []

    async def handle(lease: Lease) -> Verdict:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        if lease.job.id == "lost":
            started.set()
            await asyncio.Event().wait()
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return Done()

    runner = runner_of(bench, handle)
    await bench.queue.enqueue(LANE, jobs("lost"))
    runner.accept(await bench.claim())
    await started.wait()
    bench.clock.advance(60_000)
    await bench.queue.reap()
    await runner.renew_now()
    assert await outcomes(runner, 1) == [("lost", Release())]
    await asyncio.sleep(0)
    await bench.queue.enqueue(LANE, jobs("next"))
    runner.accept([job for job in await bench.claim() if job.id == "next"])
    assert await outcomes(runner, 1) == [("next", Done())]
    assert tasks[0] is tasks[1]
    assert not tasks[0].cancelling()
    await runner.aclose()
    assert tasks[0].done()


async def test_short_jobs_share_a_task_and_slow_ones_do_not(bench: Bench) -> None:
    by_task: Counter[asyncio.Task[object] | None] = Counter()
    go_on = asyncio.Event()

    async def handle(lease: Lease) -> Verdict:
        by_task[asyncio.current_task()] += 1
        if lease.job.id.startswith("slow"):
            await go_on.wait()
        return Done()

    runner = runner_of(bench, handle)
    await bench.queue.enqueue(LANE, jobs(*(f"quick{n}" for n in range(50))))
    runner.accept(await bench.claim())
    await outcomes(runner, 50)
    assert list(by_task.values()) == [50]
    by_task.clear()
    await bench.queue.enqueue(LANE, jobs(*(f"slow{n}" for n in range(50))))
    runner.accept(await bench.claim())
    async with asyncio.timeout(10):
        while by_task.total() < 50:
            await asyncio.sleep(0)
    assert len(by_task) == 50
    go_on.set()
    assert len(await outcomes(runner, 50)) == 50
    await runner.drain(5)
    assert len(runner) == 0
    await runner.aclose()


async def test_a_drain_releases_jobs_that_did_not_begin(bench: Bench) -> None:
    begun: list[str] = []

    async def handle(lease: Lease) -> Verdict:
        begun.append(lease.job.id)
        return Done()

    runner = runner_of(bench, handle)
    await bench.queue.enqueue(LANE, jobs("1", "2"))
    runner.accept(await bench.claim())
    await runner.drain(5)
    assert await outcomes(runner, 2) == [("1", Release()), ("2", Release())]
    assert begun == []
    await runner.aclose()

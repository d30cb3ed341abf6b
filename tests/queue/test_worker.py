from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from postroad.queue import (
    ClaimedJob,
    Defer,
    Done,
    Gate,
    JobState,
    Lane,
    Lease,
    LeaseLostError,
    Queue,
    Verdict,
    Worker,
    WorkerOptions,
    WorkerReport,
)
from tests.kit.waiting import until
from tests.queue.conftest import Bench, all_events, jobs, running

LANE = Lane(name="a", gates=("g",))
NAMES = [f"{n}" for n in range(50)]


async def done(lease: Lease) -> Verdict:
    return Done(note=lease.job.payload)


async def done_marked(lease: Lease) -> Verdict:
    await lease.mark()
    return Done(note=b"250")


async def states(queue: Queue) -> set[JobState | None]:
    return set(await queue.states(NAMES))


async def test_every_job_is_handled_once_and_settled(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs(*NAMES))
    async with running(Worker(bench.queue, done_marked, clock=bench.clock)) as (stop, task):
        await until(lambda: _is(bench.queue, {JobState.REMEMBERED}))
        stop.set()
        report = await task
    assert report == WorkerReport(claimed=50, settled={"done": 50}, stale=0, unsettled=0)
    assert sorted(event.id for event in await all_events(bench.queue)) == sorted(NAMES)


async def _is(queue: Queue, wanted: set[JobState]) -> bool:
    return await states(queue) == wanted


async def test_no_more_jobs_run_than_the_concurrency_allows(bench: Bench) -> None:
    now = most = 0

    async def count(lease: Lease) -> Verdict:
        nonlocal now, most
        now += 1
        most = max(most, now)
        assert (await bench.queue.stats()).in_flight <= 4
        now -= 1
        return Done()

    await bench.queue.enqueue(LANE, jobs(*NAMES))
    async with running(Worker(bench.queue, count, concurrency=4, clock=bench.clock)):
        await until(lambda: _is(bench.queue, {JobState.REMEMBERED}))
    assert most == 4


async def test_marks_of_many_jobs_share_round_trips(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    mark = bench.queue.mark

    async def counted(batch: Sequence[ClaimedJob]) -> list[bool]:
        sizes.append(len(batch))
        return await mark(batch)

    monkeypatch.setattr(bench.queue, "mark", counted)
    await bench.queue.enqueue(LANE, jobs(*NAMES))
    async with running(Worker(bench.queue, done_marked, concurrency=50, clock=bench.clock)):
        await until(lambda: _is(bench.queue, {JobState.REMEMBERED}))
    assert sum(sizes) == 50
    assert len(sizes) <= 5


async def test_a_failed_handler_is_retried_or_uncertain_by_its_mark(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(lease: Lease) -> Verdict:
        if lease.job.id == "marked":
            await lease.mark()
        raise ValueError("boom")

    await bench.queue.enqueue(LANE, jobs("marked", "unmarked"))
    wanted = [JobState.UNCERTAIN, JobState.SCHEDULED]

    async def concluded() -> bool:
        return await bench.queue.states(["marked", "unmarked"]) == wanted

    async with running(Worker(bench.queue, fail, clock=bench.clock)):
        await until(concluded)
    assert {(event.id, event.kind, event.cause) for event in await all_events(bench.queue)} == {
        ("marked", "uncertain", "handler"),
        ("unmarked", "retry", "handler"),
    }
    assert caplog.text.count("boom") >= 2


async def test_a_handler_that_returns_no_verdict_is_a_failure(bench: Bench) -> None:
    async def nothing(lease: Lease) -> Verdict:
        return None  # type: ignore[return-value]

    await bench.queue.enqueue(LANE, jobs(*NAMES))
    async with running(Worker(bench.queue, nothing, clock=bench.clock)):
        await until(lambda: _is(bench.queue, {JobState.SCHEDULED}))


async def test_jobs_with_a_verdict_of_prepare_are_not_handled(bench: Bench) -> None:
    handled: list[str] = []
    batches: list[int] = []

    async def prepare(batch: Sequence[ClaimedJob]) -> Mapping[str, Verdict]:
        batches.append(len(batch))
        return {job.id: Defer(at_ms=bench.clock.now_ms() + 1, cause="p") for job in batch if job.id in "02468"}

    async def handle(lease: Lease) -> Verdict:
        handled.append(lease.job.id)
        return Done()

    await bench.queue.enqueue(LANE, jobs(*"0123456789"))

    async def settled() -> bool:
        return (await bench.queue.stats()).counters.get("done") == 5

    async with running(Worker(bench.queue, handle, prepare=prepare, clock=bench.clock)):
        await until(settled)
    assert sorted(handled) == list("13579")
    assert batches == [10]
    assert await bench.queue.states(["0", "1"]) == [JobState.SCHEDULED, JobState.REMEMBERED]


async def test_a_batch_whose_preparation_fails_is_released(bench: Bench) -> None:
    failures = 1

    async def prepare(batch: Sequence[ClaimedJob]) -> Mapping[str, Verdict]:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError("the database is away")
        assert all(job.claim == 2 and job.attempt == 1 for job in batch)
        return {}

    await bench.queue.enqueue(LANE, jobs(*NAMES[:10]))

    async def settled() -> bool:
        return (await bench.queue.stats()).counters.get("done") == 10

    async with running(Worker(bench.queue, done, prepare=prepare, clock=bench.clock)):
        await until(settled)


async def test_stop_releases_the_unmarked_and_waits_for_the_marked(bench: Bench) -> None:
    go_on = asyncio.Event()
    marked = asyncio.Event()

    async def handle(lease: Lease) -> Verdict:
        if lease.job.id == "marked":
            await lease.mark()
            marked.set()
            await go_on.wait()
            return Done()
        await asyncio.Event().wait()
        raise AssertionError

    await bench.queue.enqueue(LANE, jobs("marked", "unmarked"))
    async with running(Worker(bench.queue, handle, clock=bench.clock)) as (stop, task):
        await marked.wait()
        stop.set()

        async def released() -> bool:
            return await bench.queue.states(["unmarked"]) == [JobState.QUEUED]

        await until(released)
        assert not task.done()
        go_on.set()
        report = await task
    assert report.settled == {"release": 1, "done": 1}
    [job] = await bench.claim()
    assert (job.id, job.attempt, job.claim) == ("unmarked", 1, 2)


async def test_a_marked_job_that_outlasts_the_drain_is_uncertain(bench: Bench) -> None:
    marked = asyncio.Event()

    async def hang(lease: Lease) -> Verdict:
        await lease.mark()
        marked.set()
        await asyncio.Event().wait()
        raise AssertionError

    await bench.queue.enqueue(LANE, jobs("1"))
    async with running(Worker(bench.queue, hang, clock=bench.clock, options=WorkerOptions(drain_ms=50))) as (
        stop,
        task,
    ):
        await marked.wait()
        stop.set()
        report = await task
    assert report.settled == {"uncertain": 1}
    assert await bench.queue.states(["1"]) == [JobState.UNCERTAIN]


async def test_a_lease_is_renewed_while_its_handler_runs(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    renewals = 0
    go_on = asyncio.Event()

    async def handle(lease: Lease) -> Verdict:
        await go_on.wait()
        await lease.mark()
        return Done()

    async with Queue.open(redis_url, "renewed") as queue:
        await queue.enqueue(LANE, jobs("1"))
        extend = queue.extend

        async def counted(batch: Sequence[ClaimedJob], lease_ms: int) -> list[bool]:
            nonlocal renewals
            renewals += 1
            if renewals == 5:
                go_on.set()
            return await extend(batch, lease_ms)

        monkeypatch.setattr(queue, "extend", counted)
        async with running(Worker(queue, handle, options=WorkerOptions(lease_ms=300))) as (stop, task):

            async def remembered() -> bool:
                return await queue.states(["1"]) == [JobState.REMEMBERED]

            await until(remembered)
            stop.set()
            report = await task
        assert report == WorkerReport(claimed=1, settled={"done": 1}, stale=0, unsettled=0)


async def test_a_handler_without_its_lease_does_not_act(bench: Bench) -> None:
    acted: list[str] = []
    lost = asyncio.Event()
    started = asyncio.Event()
    go_on = asyncio.Event()

    async def handle(lease: Lease) -> Verdict:
        started.set()
        await go_on.wait()
        try:
            await lease.mark()
        except LeaseLostError:
            lost.set()
            raise
        acted.append(lease.job.id)
        return Done()

    await bench.queue.enqueue(LANE, jobs("1"))
    async with running(Worker(bench.queue, handle, clock=bench.clock)) as (stop, task):
        await started.wait()
        bench.clock.advance(60_000)
        [taken] = await bench.claim(worker="other")
        go_on.set()
        await lost.wait()
        stop.set()
        report = await task
    assert acted == []
    assert report.settled == {}
    assert await bench.settle(Done(), taken) == []


async def test_a_gate_limits_all_workers_together(bench: Bench) -> None:
    now = most = 0

    async def count(lease: Lease) -> Verdict:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await lease.mark()
        now -= 1
        return Done()

    await bench.queue.set_gate(Gate(name="g", concurrency=3))
    await bench.queue.enqueue(LANE, jobs(*NAMES))
    async with (
        running(Worker(bench.queue, count, clock=bench.clock)),
        running(Worker(bench.queue, count, clock=bench.clock)),
    ):
        await until(lambda: _is(bench.queue, {JobState.REMEMBERED}))
    assert most == 3

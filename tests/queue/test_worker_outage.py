"""The server stops, restarts, or restarts empty while a worker runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from postroad.errors import UnavailableError
from postroad.queue import Done, JobState, Lane, Lease, Queue, Verdict, Worker, WorkerOptions, WorkerReport
from postroad.queue.redis.client import connect
from tests.conftest import RedisServer
from tests.kit.clock import FakeClock
from tests.kit.waiting import until
from tests.queue.conftest import all_events, jobs, running

LANE = Lane(name="a", gates=("g",))
NAMES = [f"{n}" for n in range(50)]


async def test_a_restart_of_the_server_loses_no_verdict(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    go_on, ten_marked = asyncio.Event(), asyncio.Barrier(11)

    async def handle(lease: Lease) -> Verdict:
        await lease.mark()
        if not go_on.is_set():
            await ten_marked.wait()
        await go_on.wait()
        return Done(note=b"250")

    async with Queue.open(own_redis.url, "q") as queue:
        await queue.enqueue(LANE, jobs(*NAMES))
        async with running(Worker(queue, handle)) as (stop, task):
            await ten_marked.wait()
            # SIGTERM writes the append-only file to the end.
            own_redis.kill(signal.SIGTERM)
            go_on.set()

            async def noticed() -> bool:
                return "the queue is unavailable" in caplog.text

            await until(noticed)
            own_redis.start()

            async def ended() -> bool:
                return set(await queue.states(NAMES)) == {JobState.REMEMBERED}

            await until(ended)
            stop.set()
            report = await task
        assert report == WorkerReport(claimed=50, settled={"done": 50}, stale=0, unsettled=0)
        assert sorted(event.id for event in await all_events(queue)) == sorted(NAMES)
        assert await queue.audit() == []
        assert caplog.text.count("the queue is unavailable") == 1


async def test_an_unanswered_mark_releases_the_job(own_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    async def away() -> bool:
        return "the queue is unavailable" in caplog.text

    acted: list[int] = []
    go_on, started = asyncio.Event(), asyncio.Event()

    async def handle(lease: Lease) -> Verdict:
        started.set()
        await go_on.wait()
        await lease.mark()
        acted.append(lease.job.attempt)
        return Done()

    async with Queue.open(own_redis.url, "q") as queue:
        await queue.enqueue(LANE, jobs("1"))
        async with running(Worker(queue, handle)) as (stop, task):
            await started.wait()
            own_redis.kill(signal.SIGTERM)
            go_on.set()

            await until(away)
            own_redis.start()

            async def ended() -> bool:
                return await queue.states(["1"]) == [JobState.REMEMBERED]

            await until(ended)
            stop.set()
            await task
        # Retried without using an attempt.
        assert acted == [1]


async def test_outcomes_are_reported_to_an_emptied_server(own_redis: RedisServer) -> None:
    go_on, ten_marked = asyncio.Event(), asyncio.Barrier(11)

    async def handle(lease: Lease) -> Verdict:
        await lease.mark()
        if not go_on.is_set():
            await ten_marked.wait()
        await go_on.wait()
        return Done(note=b"250 " + lease.job.id.encode())

    async with Queue.open(own_redis.url, "q") as queue:
        await queue.enqueue(LANE, jobs(*NAMES))
        async with running(Worker(queue, handle)) as (stop, task):
            await ten_marked.wait()
            client = connect(own_redis.url)
            flushall: Callable[[], Awaitable[object]] = client.flushall
            await flushall()
            await client.aclose()
            go_on.set()

            async def reported() -> bool:
                return (await queue.stats()).counters.get("late") == 10

            await until(reported)
            # The worker is alive and claims new jobs.
            await queue.enqueue(LANE, jobs("new"))

            async def handled() -> bool:
                return await queue.states(["new"]) == [JobState.REMEMBERED]

            await until(handled)
            stop.set()
            report = await task
        events = await all_events(queue)
        late = {event.note for event in events if event.kind == "late"}
        assert late == {b"250 " + name.encode() for name in NAMES[:10]}
        assert (report.stale, report.unsettled) == (10, 0)
        assert await queue.audit() == []


async def test_a_worker_stops_while_the_server_is_unavailable(own_redis: RedisServer) -> None:
    started = asyncio.Event()

    async def handle(lease: Lease) -> Verdict:
        await lease.mark()
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with Queue.open(own_redis.url, "q") as queue:
        await queue.enqueue(LANE, jobs("1"))
        async with running(Worker(queue, handle, options=WorkerOptions(drain_ms=50))) as (stop, task):
            await started.wait()
            own_redis.kill()
            stop.set()
            report = await task
        assert report.unsettled == 1
        own_redis.start()


async def test_a_delayed_worker_reports_that_it_did_not_act(own_redis: RedisServer, clock: FakeClock) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()
    acted: list[int] = []

    async def handle(lease: Lease) -> Verdict:
        started.set()
        await go_on.wait()
        await lease.mark()
        acted.append(lease.job.claim)
        return Done()

    # A separate connection for the worker, which can be cut while the test's is open.
    way = own_redis.folder / "w.sock"
    way.symlink_to(own_redis.socket)
    async with (
        Queue.open(own_redis.url, "q", clock=clock) as queue,
        Queue.open(f"unix://{way}", "q", clock=clock) as workers_queue,
    ):
        await queue.enqueue(LANE, jobs("1"))
        async with running(Worker(workers_queue, handle, options=WorkerOptions(lease_ms=60_000))) as (stop, task):
            await started.wait()
            way.unlink()
            own_redis.kill()
            own_redis.start()
            # The lease expires before it is renewed, and a restarted server cannot know whether the worker acted.
            clock.advance(60_000)

            async def held() -> bool:
                try:
                    return (await queue.reap()).uncertain == 1 or bool(await queue.uncertain())
                except UnavailableError:
                    return False

            await until(held)
            way.symlink_to(own_redis.socket)
            go_on.set()

            async def ended() -> bool:
                return await queue.states(["1"]) == [JobState.REMEMBERED]

            await until(ended)
            stop.set()
            await task
    assert acted == [2]

"""The tasks of a worker that handle one job after the other."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

from postroad.queue import Done, Lane, Lease, Release, Verdict
from postroad.queue.backoff import Backoff
from postroad.queue.hands import Handle, Hands
from tests.queue.conftest import Bench, jobs

LANE = Lane(name="a", gates=())


def hands_of(bench: Bench, handle: Handle) -> Hands:
    return Hands(bench.queue, handle, None, 60_000, Backoff(Random(1), first_s=0.01, most_s=0.1))


async def outcomes(hands: Hands, count: int) -> list[tuple[str, Verdict]]:
    async with asyncio.timeout(10):
        while len(hands.outbox) < count:
            await hands.news.wait()
            hands.news.clear()
    found, hands.outbox = hands.outbox, []
    return [(outcome.job.id, outcome.verdict) for outcome in found]


async def test_a_job_that_is_cancelled_leaves_its_hand_fit_for_the_next(bench: Bench) -> None:
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

    hands = hands_of(bench, handle)
    await bench.queue.enqueue(LANE, jobs("lost"))
    hands.accept(await bench.claim())
    await started.wait()
    bench.clock.advance(60_000)
    await bench.queue.reap()
    await hands.renew_now()
    assert await outcomes(hands, 1) == [("lost", Release())]
    await asyncio.sleep(0)
    await bench.queue.enqueue(LANE, jobs("next"))
    hands.accept([job for job in await bench.claim() if job.id == "next"])
    assert await outcomes(hands, 1) == [("next", Done())]
    assert tasks[0] is tasks[1]
    assert not tasks[0].cancelling()
    await hands.aclose()
    assert tasks[0].done()


async def test_jobs_that_take_no_time_share_a_hand_and_others_have_one_each(bench: Bench) -> None:
    by_hand: Counter[asyncio.Task[object] | None] = Counter()
    go_on = asyncio.Event()

    async def handle(lease: Lease) -> Verdict:
        by_hand[asyncio.current_task()] += 1
        if lease.job.id.startswith("slow"):
            await go_on.wait()
        return Done()

    hands = hands_of(bench, handle)
    await bench.queue.enqueue(LANE, jobs(*(f"quick{n}" for n in range(50))))
    hands.accept(await bench.claim())
    await outcomes(hands, 50)
    assert list(by_hand.values()) == [50]
    by_hand.clear()
    await bench.queue.enqueue(LANE, jobs(*(f"slow{n}" for n in range(50))))
    hands.accept(await bench.claim())
    async with asyncio.timeout(10):
        while by_hand.total() < 50:
            await asyncio.sleep(0)
    assert len(by_hand) == 50
    go_on.set()
    assert len(await outcomes(hands, 50)) == 50
    await hands.drain(5)
    assert len(hands) == 0
    await hands.aclose()


async def test_a_drain_gives_back_what_no_hand_has_begun(bench: Bench) -> None:
    begun: list[str] = []

    async def handle(lease: Lease) -> Verdict:
        begun.append(lease.job.id)
        return Done()

    hands = hands_of(bench, handle)
    await bench.queue.enqueue(LANE, jobs("1", "2"))
    hands.accept(await bench.claim())
    await hands.drain(5)
    assert await outcomes(hands, 2) == [("1", Release()), ("2", Release())]
    assert begun == []
    await hands.aclose()

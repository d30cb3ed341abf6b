"""An audit reads in steps while jobs move. It raises no false alarm, finds faults, and blocks no other call."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from postroad.queue import Dead, Defer, Done, Gate, Job, Lane, Queue, Rate, Release, Retry
from postroad.queue.audit import STEP
from postroad.queue.redis.client import connect
from postroad.queue.types import Verdict
from tests.queue.conftest import scripts_of

JOBS = 1_500
LANES = 7


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue.open(redis_url, f"moving-{uuid.uuid4().hex}") as opened:
        yield opened


def lane(n: int) -> Lane:
    return Lane(name=f"lane-{n}", gates=("all", f"gate-{n}"), group=f"group-{n % 3}")


async def fill(queue: Queue, first: int, last: int) -> None:
    for n in range(LANES):
        await queue.enqueue(lane(n), [Job(id=f"j{i}", payload=b"x" * 50) for i in range(first + n, last, LANES)])


async def move(queue: Queue, stop: asyncio.Event) -> int:
    """Claim, settle in every way, pause, resume, cancel and enqueue until the stop. Returns how many jobs moved."""
    moved, number = 0, JOBS
    verdicts: list[Verdict] = [
        Done(),
        Release(),
        Retry(cause="c", at_ms=1),
        Defer(cause="c", at_ms=1),
        Dead(cause="c"),
        Done(),
        Done(),
    ]
    for turn in range(1_000_000):
        if stop.is_set():
            return moved
        batch = await queue.claim("w", want=40, lease_ms=60_000, nonce=f"n{turn}")
        await queue.settle("w", [(job, verdicts[i % len(verdicts)]) for i, job in enumerate(batch.jobs)])
        moved += len(batch.jobs)
        await fill(queue, number, number + 30)
        number += 30
        group = f"group-{turn % 3}"
        await queue.pause_group(group)
        await queue.resume_group(group)
        if turn % 20 == 19:
            await queue.cancel_group(group, "over")
        if turn % 7 == 0:
            await queue.replay()
    raise AssertionError


async def test_moving_jobs_raise_no_false_alarm(queue: Queue) -> None:
    await queue.set_gate(Gate(name="gate-0", rate=Rate(count=100, per_ms=1_000)))
    await fill(queue, 0, JOBS)
    stop = asyncio.Event()
    moving = asyncio.create_task(move(queue, stop))
    try:
        found = [await queue.audit() for _ in range(6)]
    finally:
        stop.set()
    assert await moving > 100
    assert found == [[]] * 6
    assert await queue.audit() == []


async def test_a_lost_job_is_found_while_others_move(queue: Queue, redis_url: str) -> None:
    await queue.set_gate(Gate(name="shut", concurrency=0))
    await queue.enqueue(Lane(name="still", gates=("shut",)), [Job(id="lost", payload=b""), Job(id="kept", payload=b"")])
    await fill(queue, 0, JOBS)
    client = connect(redis_url)
    assert await client.lrem(f"pr:{{{queue.name}}}:lane:1", 1, "lost") == 1
    await client.aclose()
    stop = asyncio.Event()
    moving = asyncio.create_task(move(queue, stop))
    try:
        found = await queue.audit()
    finally:
        stop.set()
        await moving
    assert "job lost is nowhere" in found


async def test_an_id_twice_in_a_long_list_is_found_while_others_move(queue: Queue, redis_url: str) -> None:
    await queue.set_gate(Gate(name="shut", concurrency=0))
    await queue.enqueue(Lane(name="still", gates=("shut",)), [Job(id=f"s{n}", payload=b"") for n in range(STEP * 3)])
    await fill(queue, 0, JOBS)
    client = connect(redis_url)
    await client.rpush(f"pr:{{{queue.name}}}:lane:1", "s5")  # Steps read from the tail: the other one is in the last.
    await client.aclose()
    stop = asyncio.Event()
    moving = asyncio.create_task(move(queue, stop))
    try:
        found = await queue.audit()
    finally:
        stop.set()
        await moving
    assert "job s5 is both queued and queued" in found


async def test_every_audit_step_reads_a_bounded_number_of_items(queue: Queue, redis_url: str) -> None:
    """The work of one script call is independent of the number of jobs."""
    efforts = []
    for last in (STEP * 4, STEP * 20):
        await queue.enqueue(Lane(name="one", gates=()), [Job(id=f"j{i}", payload=b"") for i in range(last)])
        efforts.append(await _effort_of_audit(queue, redis_url))
    scripts, commands = (after - before for before, after in zip(*efforts, strict=True))
    assert scripts == pytest.approx(2 * (STEP * 16) / STEP, rel=0.2)  # One call for each step of jobs and of lists.
    assert commands <= scripts * 8 * STEP


async def _effort_of_audit(queue: Queue, redis_url: str) -> tuple[int, int]:
    """Return the number of script calls of one audit, and of their commands."""
    client = connect(redis_url)
    await client.config_resetstat()
    assert await queue.audit() == []
    stats = await client.info("commandstats")
    await client.aclose()
    scripts = int(stats["cmdstat_evalsha"]["calls"])
    return scripts, sum(int(of["calls"]) for of in stats.values()) - scripts


async def test_many_lanes_are_paused_resumed_and_cancelled_in_steps(queue: Queue) -> None:
    lanes = STEP * 2 + 10
    for n in range(lanes):
        await queue.enqueue(Lane(name=f"l{n}", gates=(), group="large"), [Job(id=f"j{n}", payload=b"")])
    await queue.pause_group("large")
    assert not (await queue.claim("w", want=1000, lease_ms=60_000, nonce="1")).jobs
    assert await queue.audit() == []
    assert await queue.resume_group("large")
    assert not await queue.resume_group("large")
    assert await queue.audit() == []
    assert len((await queue.claim("w", want=5, lease_ms=60_000, nonce="2")).jobs) == 5
    assert await queue.cancel_group("large", "over") == lanes - 5
    assert await queue.audit() == []


async def test_claims_complete_a_resume_whose_caller_died(queue: Queue, redis_url: str) -> None:
    for n in range(20):
        await queue.enqueue(Lane(name=f"l{n}", gates=(), group="large"), [Job(id=f"j{n}", payload=b"")])
    await queue.pause_group("large")
    async with scripts_of(redis_url, queue.name) as scripts:
        assert await scripts.resume_group("large", 5) == 1
    assert await queue.audit() == []
    claimed: set[str] = set()
    async with asyncio.timeout(30):
        while len(claimed) < 20:
            batch = await queue.claim("w", want=100, lease_ms=60_000, nonce=uuid.uuid4().hex)
            claimed |= {job.id for job in batch.jobs}
            await asyncio.sleep(0.05)
    assert await queue.audit() == []

"""`benchmarks growth`: what a job costs when the queue is long, and when its lanes are many."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

from msgspec import Struct

from benchmarks.figures import Figure, Measure, alone, median
from benchmarks.server import Server
from postroad.queue import Done, Job, Lane, Queue

FLAT = 1.3
BATCH = 100
PAYLOAD = b"0" * 100


class Effort(Struct, frozen=True, kw_only=True):
    """Levels from the smallest to the largest, jobs in the lanes, and samples of this many batches."""

    queued: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    lanes: tuple[int, ...] = (1, 10, 100, 1_000, 10_000)
    queued_in_lanes: int = 100_000
    samples: int = 9
    batches: int = 20


QUICK = Effort(queued=(2_000, 20_000), lanes=(1, 10, 100), queued_in_lanes=5_000, samples=3, batches=5)


class Cost(NamedTuple):
    """Of one job claimed and settled, µs."""

    wall_us: float
    cpu_us: float


def measures(effort: Effort) -> list[Measure]:
    queued = f"from {effort.queued[0]:,} to {effort.queued[-1]:,} queued jobs"
    lanes = f"from {effort.lanes[0]:,} to {effort.lanes[-1]:,} lanes"
    return [
        Measure(name=f"growth of {what} per job {between}, last : first", bar=FLAT)
        for between in (queued, lanes)
        for what in ("time", "Redis CPU")
    ]


async def grow(server: Server, effort: Effort) -> tuple[list[Figure], dict[str, list[Cost]]]:
    """Returns the figures, and the cost at every level by what grew."""
    costs = {
        "queued jobs": await _costs(server, effort, [(1, queued) for queued in effort.queued]),
        "lanes": await _costs(server, effort, [(lanes, effort.queued_in_lanes) for lanes in effort.lanes]),
    }
    ratios = [ratio for levels in costs.values() for ratio in _growth(levels)]
    return [alone(measure, ratio) for measure, ratio in zip(measures(effort), ratios, strict=True)], costs


def _growth(levels: Sequence[Cost]) -> tuple[float, float]:
    first, last = levels[0], levels[-1]
    return last.wall_us / first.wall_us, last.cpu_us / first.cpu_us


async def _costs(server: Server, effort: Effort, levels: Sequence[tuple[int, int]]) -> list[Cost]:
    """Of each level (lanes, queued jobs). All stand at once and take turns: a bad minute falls on all of them."""
    await server.empty()
    async with AsyncExitStack() as stack:
        standing = []
        for lanes, queued in levels:
            queue = await stack.enter_async_context(Queue.open(server.url, f"growth-{lanes}-{queued}"))
            await _fill(queue, lanes, range(queued))
            standing.append(_Standing(queue, lanes, queued))
        # The first turn warms up.
        turns = [[await _sample(server, effort, one, n) for one in standing] for n in range(effort.samples + 1)][1:]
    return [Cost(median([c.wall_us for c in of]), median([c.cpu_us for c in of])) for of in zip(*turns, strict=True)]


class _Standing(NamedTuple):
    queue: Queue
    lanes: int
    queued: int


async def _sample(server: Server, effort: Effort, one: _Standing, n: int) -> Cost:
    """Claim and settle some batches, then put as many jobs back: the level stays what it is."""
    jobs = effort.batches * BATCH
    cpu_s, start_s = await server.cpu_s(), time.perf_counter()
    await _work(one.queue, effort.batches, f"{n}")
    took_s = time.perf_counter() - start_s
    cost = Cost(took_s / jobs * 1e6, (await server.cpu_s() - cpu_s) / jobs * 1e6)
    await _fill(one.queue, one.lanes, range(one.queued + n * jobs, one.queued + (n + 1) * jobs))
    return cost


async def _fill(queue: Queue, lanes: int, numbers: range) -> None:
    for lane in range(min(lanes, len(numbers))):
        jobs = [Job(id=f"t{n}", payload=PAYLOAD) for n in numbers[lane::lanes]]
        await queue.enqueue(Lane(name=f"lane-{lane}", gates=("queue", f"gate-{lane}")), jobs)


async def _work(queue: Queue, batches: int, nonce: str) -> None:
    batch = await queue.claim("w", want=BATCH, lease_ms=60_000, nonce=f"{nonce}-claim")
    for n in range(batches):
        assert len(batch.jobs) == BATCH, f"{len(batch.jobs)} of {BATCH} were claimed"
        verdicts = [(job, Done()) for job in batch.jobs]
        want = BATCH if n + 1 < batches else 0
        batch = (await queue.settle("w", verdicts, want=want, nonce=f"{nonce}-{n}")).batch

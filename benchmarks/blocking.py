"""`benchmarks blocking`: unlimited jobs, queued after many throttled ones."""

from __future__ import annotations

import asyncio
import time

from msgspec import Struct

from benchmarks.figures import Figure, Measure, alone, median
from benchmarks.server import Server
from postroad.queue import Done, Gate, Job, Lane, Lease, Queue, Rate, Verdict, Worker

FREE, THROTTLED = 400, 2_000
BAR_MS = 50.0

SHAPES = {"one lane": 1, "2,000 lanes": THROTTLED}
"""Number of lanes of the throttled jobs; all share one gate."""


class Effort(Struct, frozen=True, kw_only=True):
    rounds: int = 9


QUICK = Effort(rounds=2)


def measures() -> list[Measure]:
    return [
        Measure(
            name=f"{FREE} unlimited jobs after {THROTTLED:,} of a throttled gate in {shape}, ms to drain", bar=BAR_MS
        )
        for shape in SHAPES
    ]


async def block(server: Server, effort: Effort) -> list[Figure]:
    figures = []
    for measure, lanes in zip(measures(), SHAPES.values(), strict=True):
        # The first round loads the scripts.
        samples = [await _drain_ms(server, f"blocking-{lanes}-{n}", lanes) for n in range(effort.rounds + 1)]
        figures.append(alone(measure, median(samples[1:])))
    return figures


async def _drain_ms(server: Server, name: str, lanes: int) -> float:
    """From the start of a worker until the last free job is in its handler."""
    await server.empty()
    drained = asyncio.Event()
    free, ended_s = 0, 0.0

    async def handle(lease: Lease) -> Verdict:
        nonlocal free, ended_s
        free += lease.job.lane == "free"
        if free == FREE and not drained.is_set():
            ended_s = time.perf_counter()
            drained.set()
        return Done()

    async with Queue.open(server.url, name) as queue:
        await queue.set_gate(Gate(name="slow", rate=Rate(count=1, per_ms=60_000)))
        for n in range(lanes):
            jobs = [Job(id=f"slow-{i}", payload=b"") for i in range(n, THROTTLED, lanes)]
            await queue.enqueue(Lane(name=f"slow-{n}", gates=("slow",)), jobs)
        await queue.enqueue(Lane(name="free", gates=("fast",)), [Job(id=f"free-{i}", payload=b"") for i in range(FREE)])
        stop = asyncio.Event()
        start_s = time.perf_counter()
        working = asyncio.create_task(Worker(queue, handle, concurrency=100).run(stop))
        async with asyncio.timeout(30):
            await drained.wait()
        stop.set()
        await working
    return (ended_s - start_s) * 1000

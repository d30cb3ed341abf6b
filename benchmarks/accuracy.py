"""`benchmarks accuracy`: how close four worker processes together come to the rate of one gate."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from msgspec import Struct

from benchmarks.contestants import ours
from benchmarks.figures import Figure, Measure, alone
from benchmarks.ours import LIMITED, NAME
from benchmarks.server import Server
from postroad.queue import Gate, Job, Queue, Rate

WORKERS = 4
POLL_S = 0.01


class Effort(Struct, frozen=True, kw_only=True):
    """``rates``: jobs/s and burst of the gates, each measured for ``window_s`` after ``warm_s``."""

    rates: tuple[tuple[int, int], ...] = ((10, 1), (100, 10), (1000, 100))
    warm_s: float = 2.0
    window_s: float = 10.0


QUICK = Effort(rates=((100, 10),), warm_s=1.0, window_s=2.0)


class Seen(NamedTuple):
    """Jobs that the gate had admitted at a time of the server's clock."""

    at_s: float
    admitted: int


def measures(effort: Effort) -> list[Measure]:
    found = []
    for count, burst in effort.rates:
        gate = f"gate of {count}/s, burst {burst}, {WORKERS} processes"
        found.append(Measure(name=f"{gate}: jobs above the limit in any window", bar=0))
        found.append(Measure(name=f"{gate}: below the limit over {effort.window_s:g} s, %", bar=2))
    return found


async def weigh(server: Server, effort: Effort) -> list[Figure]:
    values: list[float] = []
    for count, burst in effort.rates:
        seen = await _watch(server, effort, count, burst)
        values += [_most_above(seen, count, burst), _below_percent(seen, count)]
    return [alone(measure, value) for measure, value in zip(measures(effort), values, strict=True)]


def _most_above(seen: Sequence[Seen], count: int, burst: int) -> float:
    """Jobs beyond ``burst + w * count``, in the worst of all windows w, at least 0."""
    return max(0.0, *(b.admitted - a.admitted - burst - (b.at_s - a.at_s) * count for a, b in combinations(seen, 2)))


def _below_percent(seen: Sequence[Seen], count: int) -> float:
    first, last = seen[0], seen[-1]
    due = (last.at_s - first.at_s) * count
    return max(0.0, (1 - (last.admitted - first.admitted) / due) * 100)


async def _watch(server: Server, effort: Effort, count: int, burst: int) -> list[Seen]:
    """Start the workers, and look at the queue's own count of claims for the length of the window."""
    await server.empty()
    jobs = round(count * (effort.warm_s + effort.window_s) * 1.5) + burst
    seen: list[Seen] = []
    latest = 0
    async with Queue.open(server.url, NAME) as queue:
        await queue.set_gate(Gate(name=LIMITED.gates[0], rate=Rate(count=count, per_ms=1000, burst=burst)))
        await queue.enqueue(LIMITED, [Job(id=f"t{n}", payload=b"") for n in range(jobs)])
        # They never come to the end of the jobs: that they work until the watch is over is all that is asked.
        working = asyncio.create_task(ours().work(server.url, warm=0, jobs=jobs, workers=WORKERS))
        try:
            while not (seen and seen[-1].at_s - seen[0].at_s >= effort.window_s):
                assert not working.done(), "the workers ended early"
                now = await _look(server)
                # Only when the count has moved: a window that ends between two jobs would seem too slow. At first
                # no worker runs yet, then the burst of the start is in the count.
                if now.admitted > max(latest, burst + count * effort.warm_s / 2):
                    seen.append(now)
                latest = now.admitted
                await asyncio.sleep(POLL_S)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    return seen


async def _look(server: Server) -> Seen:
    # In one transaction: the count belongs to exactly this instant.
    async with server.client.pipeline(transaction=True) as together:
        together.time()
        together.hget(f"pr:{{{NAME}}}:counters", "claimed")
        (seconds, micros), claimed = await together.execute()
    return Seen(seconds + micros / 1e6, int(claimed or 0))

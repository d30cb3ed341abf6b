"""Postroad's queue as a contestant: one lane, no limit on it; idempotent ids, events and memory of ids on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

from benchmarks.contract import Contestant, Put, Tally, run
from postroad.queue import Done, Job, Lane, Lease, Queue, Verdict, Worker

NAME = "bench"
LANE = Lane(name="bench", gates=())
LIMITED = Lane(name="limited", gates=("limit",))


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Put]:
    async with Queue.open(url, NAME) as queue:
        # Ids as the delivery makes them: a letter and the number of a row. They continue those of an earlier producer.
        ids = count((await queue.stats()).counters.get("enqueued", 0))

        async def put(payloads: Sequence[str]) -> None:
            jobs = [Job(id=f"t{n}", payload=payload.encode()) for payload, n in zip(payloads, ids, strict=False)]
            accepted = (await queue.enqueue(LANE, jobs)).accepted
            assert accepted == len(jobs), f"{accepted} of {len(jobs)} jobs were accepted"

        yield put


async def work(url: str, tally: Tally) -> None:
    async def handle(lease: Lease) -> Verdict:
        tally.add()
        return Done()

    async with Queue.open(url, NAME) as queue:
        await Worker(queue, handle, concurrency=100).run(asyncio.Event())


if __name__ == "__main__":
    run(
        Contestant(
            packages=("postroad", "redis", "hiredis"),
            enqueue="Queue.enqueue, 1000 jobs a call, ids checked",
            worker="Worker, concurrency 100, every outcome an event, ids remembered",
            source="docs/",
            producer=producer,
            work=work,
        )
    )

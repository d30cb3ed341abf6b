"""BullMQ for Python: https://docs.bullmq.io/python/introduction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bullmq import Queue, Worker  # type: ignore[import-not-found, unused-ignore]

from benchmarks.contract import Contestant, Put, Tally, chunks, run

OPTIONS = {"removeOnComplete": True}


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Put]:
    queue = Queue("bench", {"connection": url})

    async def put(payloads: Sequence[str]) -> None:
        for chunk in chunks(payloads):
            await queue.addBulk([{"name": "noop", "data": {"payload": payload}, "opts": OPTIONS} for payload in chunk])

    yield put
    await queue.close()


async def work(url: str, tally: Tally) -> None:
    async def noop(_job: Any, _token: str) -> None:
        tally.add()

    worker = Worker("bench", noop, {"connection": url, "concurrency": 100})
    try:
        await asyncio.Event().wait()
    finally:
        await worker.close()


if __name__ == "__main__":
    run(
        Contestant(
            packages=("bullmq", "redis"),
            enqueue="addBulk, 1000 jobs a call",
            worker="concurrency 100, removeOnComplete",
            source="https://docs.bullmq.io/guide/parallelism-and-concurrency",
            producer=producer,
            work=work,
        )
    )

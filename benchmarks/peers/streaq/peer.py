"""streaQ: https://streaq.readthedocs.io."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from streaq import Worker  # type: ignore[import-not-found, unused-ignore]

from benchmarks.contract import Contestant, Put, Tally, chunks, run


def _worker(url: str, tally: Tally) -> tuple[Worker[Any], Any]:
    worker: Worker[Any] = Worker(redis_url=url, concurrency=100, handle_signals=False)

    @worker.task(name="noop", ttl=0)  # type: ignore[untyped-decorator, unused-ignore]
    async def noop(payload: str) -> None:
        tally.add()

    return worker, noop


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Put]:
    worker, noop = _worker(url, Tally())

    async def put(payloads: Sequence[str]) -> None:
        for chunk in chunks(payloads):
            await worker.enqueue_many([noop.enqueue(payload) for payload in chunk])

    async with worker:
        yield put


async def work(url: str, tally: Tally) -> None:
    worker, _ = _worker(url, tally)
    await worker.run_async()


if __name__ == "__main__":
    run(
        Contestant(
            packages=("streaq", "coredis"),
            enqueue="enqueue_many, 1000 tasks a call",
            worker="concurrency 100, no result kept",
            source="https://github.com/tastyware/streaq/tree/master/benchmarks",
            producer=producer,
            work=work,
        )
    )

"""saq: https://saq-py.readthedocs.io. It has no bulk call, so a thousand single ones are under way at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from saq import Queue, Worker  # type: ignore[import-not-found, unused-ignore]

from benchmarks.contract import Contestant, Put, Tally, chunks, run


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Put]:
    queue = Queue.from_url(url, max_concurrent_ops=100)
    await queue.connect()

    async def put(payloads: Sequence[str]) -> None:
        for chunk in chunks(payloads):
            await asyncio.gather(*(queue.enqueue("noop", payload=payload, ttl=-1) for payload in chunk))

    yield put
    await queue.disconnect()


async def work(url: str, tally: Tally) -> None:
    async def noop(_: Any, *, payload: str) -> None:
        tally.add()

    queue = Queue.from_url(url)
    await Worker(queue, [("noop", noop)], concurrency=100).start()


if __name__ == "__main__":
    run(
        Contestant(
            packages=("saq", "redis", "hiredis"),
            enqueue="enqueue, 100 at once (no bulk call), no result kept",
            worker="concurrency 100",
            source="https://saq-py.readthedocs.io",
            producer=producer,
            work=work,
        )
    )

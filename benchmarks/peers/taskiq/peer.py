"""taskiq with taskiq-redis: https://taskiq-python.github.io. The stream broker: the list's is at-most-once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from taskiq.api import run_receiver_task  # type: ignore[import-not-found, unused-ignore]
from taskiq_redis import RedisStreamBroker  # type: ignore[import-not-found, unused-ignore]

from benchmarks.contract import Contestant, Put, Tally, run

AT_ONCE = 100


def _broker(url: str, tally: Tally) -> tuple[Any, Any]:
    # The group begins at the start of the stream: jobs are enqueued before there is a worker.
    broker = RedisStreamBroker(url, consumer_id="0", max_connection_pool_size=AT_ONCE)

    @broker.task(task_name="noop")  # type: ignore[untyped-decorator, unused-ignore]
    async def noop(payload: str) -> None:
        tally.add()

    return broker, noop


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Put]:
    broker, noop = _broker(url, Tally())
    await broker.startup()

    async def put(payloads: Sequence[str]) -> None:
        for start in range(0, len(payloads), AT_ONCE):
            await asyncio.gather(*(noop.kiq(payload) for payload in payloads[start : start + AT_ONCE]))

    yield put
    await broker.shutdown()


async def work(url: str, tally: Tally) -> None:
    broker, _ = _broker(url, tally)
    await run_receiver_task(broker, max_async_tasks=100, max_prefetch=100, run_startup=True)


if __name__ == "__main__":
    run(
        Contestant(
            packages=("taskiq", "taskiq-redis", "redis"),
            enqueue=f"kiq, {AT_ONCE} at once (no bulk call)",
            worker="RedisStreamBroker, max_async_tasks 100, max_prefetch 100, no result backend",
            source="https://taskiq-python.github.io/guide/cli.html",
            producer=producer,
            work=work,
        )
    )

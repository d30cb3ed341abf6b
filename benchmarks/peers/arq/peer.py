"""arq: https://arq-docs.helpmanual.io. It has no bulk call, so a hundred single ones are under way at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from arq import create_pool, func  # type: ignore[import-not-found, unused-ignore]
from arq.connections import RedisSettings  # type: ignore[import-not-found, unused-ignore]
from arq.worker import Worker  # type: ignore[import-not-found, unused-ignore]

from benchmarks.contract import Contestant, Put, Tally, run

AT_ONCE = 100


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Put]:
    pool = await create_pool(RedisSettings.from_dsn(url))

    async def put(payloads: Sequence[str]) -> None:
        for start in range(0, len(payloads), AT_ONCE):
            calls = (pool.enqueue_job("noop", payload) for payload in payloads[start : start + AT_ONCE])
            await asyncio.gather(*calls)

    yield put
    await pool.aclose()


async def work(url: str, tally: Tally) -> None:
    async def noop(_: Any, payload: str) -> None:
        tally.add()

    worker = Worker(
        functions=[func(noop, name="noop", keep_result=0)],
        redis_settings=RedisSettings.from_dsn(url),
        max_jobs=100,
        queue_read_limit=500,
        poll_delay=0.001,
    )
    await worker.async_run()


if __name__ == "__main__":
    run(
        Contestant(
            packages=("arq", "redis", "hiredis"),
            enqueue=f"enqueue_job, {AT_ONCE} at once (no bulk call)",
            worker="max_jobs 100, queue_read_limit 500, poll_delay 1 ms, no result kept",
            source="https://arq-docs.helpmanual.io",
            producer=producer,
            work=work,
        )
    )

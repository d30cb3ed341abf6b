"""Dramatiq: https://dramatiq.io. Synchronous, in threads; its groups enqueue one message after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import dramatiq  # type: ignore[import-not-found, unused-ignore]
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found, unused-ignore]

from benchmarks.contract import Contestant, Put, Tally, run


def _broker(url: str, tally: Tally) -> tuple[Any, Any]:
    broker = RedisBroker(url=url)

    @dramatiq.actor(broker=broker, actor_name="noop")  # type: ignore[untyped-decorator, unused-ignore]
    def noop(payload: str) -> None:
        tally.add()

    return broker, noop


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Put]:
    broker, noop = _broker(url, Tally())

    async def put(payloads: Sequence[str]) -> None:
        for payload in payloads:
            broker.enqueue(noop.message(payload))

    yield put
    broker.close()


async def work(url: str, tally: Tally) -> None:
    broker, _ = _broker(url, tally)
    dramatiq.Worker(broker, worker_threads=8).start()


if __name__ == "__main__":
    run(
        Contestant(
            packages=("dramatiq", "redis"),
            enqueue="broker.enqueue, one after the other (no bulk call)",
            worker="8 threads, prefetch 16 (its defaults)",
            source="https://dramatiq.io/reference.html#workers",
            producer=producer,
            work=work,
        )
    )

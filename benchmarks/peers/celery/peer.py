"""Celery: https://docs.celeryq.dev. Settings from its page on optimizing, for many short tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery  # type: ignore[import-not-found, unused-ignore]

from benchmarks.contract import Contestant, Put, Tally, run

WORKER = "worker --pool=solo --without-gossip --without-mingle --without-heartbeat --loglevel=ERROR"


def _app(url: str, tally: Tally) -> tuple[Any, Any]:
    app = Celery("bench", broker=url)
    app.conf.update(
        task_ignore_result=True,
        worker_prefetch_multiplier=128,
        worker_disable_rate_limits=True,
        worker_redirect_stdouts=False,
    )

    @app.task(name="noop")  # type: ignore[untyped-decorator, unused-ignore]
    def noop(payload: str) -> None:
        tally.add()

    return app, noop


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Put]:
    app, noop = _app(url, Tally())

    async def put(payloads: Sequence[str]) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            for payload in payloads:
                noop.apply_async((payload,), producer=producer)

    yield put
    app.close()


async def work(url: str, tally: Tally) -> None:
    app, _ = _app(url, tally)
    app.worker_main(WORKER.split())


if __name__ == "__main__":
    run(
        Contestant(
            packages=("celery", "kombu", "redis"),
            enqueue="apply_async over one producer, one after the other (no bulk call)",
            worker="solo pool, prefetch multiplier 128, no results, no gossip, mingle or heartbeat",
            source="https://docs.celeryq.dev/en/stable/userguide/optimizing.html",
            producer=producer,
            work=work,
        )
    )

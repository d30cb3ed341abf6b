"""Celery with the standard library's smtplib and EmailMessage, and dkimpy: https://docs.celeryq.dev.

The environment says how: SMTP_PORT, CONCURRENCY, and DKIM_KEY (a file) to sign. Settings from Celery's page on
optimizing, for many short tasks. A pool of threads, or at concurrency 1 the solo pool; a connection is kept for each.
The prefork pool is several processes, and gevent was no faster: making the message is what takes the time.
"""

from __future__ import annotations

import os
import smtplib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery  # type: ignore[import-not-found, unused-ignore]

from benchmarks.contract import Contestant, Put, Tally, run
from benchmarks.same_message import Job, Outgoing, Writer, job_of, signed_words

WORKER = "worker --without-gossip --without-mingle --without-heartbeat --loglevel=ERROR"


class Connections:
    """Idle sessions: at most as many as there were concurrent threads."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: deque[smtplib.SMTP] = deque()

    def send(self, message: Outgoing) -> None:
        try:
            session = self._idle.pop()
        except IndexError:
            session = smtplib.SMTP("127.0.0.1", self._port, local_hostname="sender.example")
        session.sendmail(message.return_path, [message.recipient], message.content)
        self._idle.append(session)


def _app(url: str, tally: Tally) -> tuple[Any, Any]:
    app = Celery("bench", broker=url)
    app.conf.update(
        task_ignore_result=True,
        worker_prefetch_multiplier=128,
        worker_disable_rate_limits=True,
        worker_redirect_stdouts=False,
    )
    writer, connections = Writer.of_environment(), Connections(int(os.environ["SMTP_PORT"]))

    @app.task(name="send")  # type: ignore[untyped-decorator, unused-ignore]
    def send(touch: int, address: str, fields: dict[str, str]) -> None:
        connections.send(writer.write(Job(touch, address, fields)))
        tally.add()

    return app, send


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Put]:
    app, send = _app(url, Tally())

    async def put(payloads: Sequence[str]) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            for payload in payloads:
                send.apply_async(tuple(job_of(payload)), producer=producer)

    yield put
    app.close()


def _pool(concurrency: int) -> list[str]:
    return ["--pool=solo"] if concurrency == 1 else ["--pool=threads", f"--concurrency={concurrency}"]


async def work(url: str, tally: Tally) -> None:
    app, _ = _app(url, tally)
    app.worker_main([*WORKER.split(), *_pool(int(os.environ["CONCURRENCY"]))])


def _words() -> str:
    pool = " ".join(_pool(int(os.environ["CONCURRENCY"])))
    return (
        f"{pool}, prefetch multiplier 128, a connection kept for each thread, no results, gossip, mingle or heartbeat"
    )


if __name__ == "__main__":
    run(
        Contestant(
            packages=("celery", "kombu", "redis", "dkimpy"),
            enqueue="apply_async over one producer, one after the other (no bulk call)",
            worker=_words() + signed_words(),
            source="https://docs.celeryq.dev/en/stable/userguide/optimizing.html",
            producer=producer,
            work=work,
        )
    )

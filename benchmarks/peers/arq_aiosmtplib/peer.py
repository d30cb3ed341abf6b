"""arq with aiosmtplib, EmailMessage and dkimpy: https://arq-docs.helpmanual.io, https://aiosmtplib.readthedocs.io.

The environment says how: SMTP_PORT, CONCURRENCY, and DKIM_KEY (a file) to sign. As many jobs at once as there are
connections, which stay open.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiosmtplib
from arq import create_pool, func  # type: ignore[import-not-found, unused-ignore]
from arq.connections import RedisSettings  # type: ignore[import-not-found, unused-ignore]
from arq.worker import Worker  # type: ignore[import-not-found, unused-ignore]

from benchmarks.contract import Contestant, Put, Tally, run
from benchmarks.same_message import Job, Writer, job_of, signed_words

AT_ONCE = 100


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Put]:
    pool = await create_pool(RedisSettings.from_dsn(url))

    async def put(payloads: Sequence[str]) -> None:
        for start in range(0, len(payloads), AT_ONCE):
            jobs = map(job_of, payloads[start : start + AT_ONCE])
            await asyncio.gather(*(pool.enqueue_job("send", *job) for job in jobs))

    yield put
    await pool.aclose()


async def work(url: str, tally: Tally) -> None:
    concurrency, port = int(os.environ["CONCURRENCY"]), int(os.environ["SMTP_PORT"])
    writer = Writer.of_environment()
    idle: list[aiosmtplib.SMTP] = []

    async def send(_: Any, touch: int, address: str, fields: dict[str, str]) -> None:
        message = writer.write(Job(touch, address, fields))
        session = idle.pop() if idle else await _connected(port)
        await session.sendmail(message.return_path, [message.recipient], message.content)
        idle.append(session)
        tally.add()

    worker = Worker(
        functions=[func(send, name="send", keep_result=0)],
        redis_settings=RedisSettings.from_dsn(url),
        max_jobs=concurrency,
        queue_read_limit=500,
        poll_delay=0.001,
    )
    await worker.async_run()


async def _connected(port: int) -> aiosmtplib.SMTP:
    session = aiosmtplib.SMTP(
        hostname="127.0.0.1", port=port, local_hostname="sender.example", use_tls=False, start_tls=False
    )
    await session.connect()
    return session


def _words() -> str:
    concurrency = os.environ["CONCURRENCY"]
    return f"max_jobs {concurrency}, as many kept connections, queue_read_limit 500, poll_delay 1 ms, no result kept"


if __name__ == "__main__":
    run(
        Contestant(
            packages=("arq", "redis", "hiredis", "aiosmtplib", "dkimpy"),
            enqueue=f"enqueue_job, {AT_ONCE} at once (no bulk call)",
            worker=_words() + signed_words(),
            source="https://arq-docs.helpmanual.io, https://aiosmtplib.readthedocs.io",
            producer=producer,
            work=work,
        )
    )

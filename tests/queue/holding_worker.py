"""A worker process that holds every job until the key `go:QUEUE` exists. Arguments: URL, QUEUE, name of the worker."""

from __future__ import annotations

import asyncio
import signal
import sys

from postroad.queue import Done, Lease, Queue, Verdict, Worker, WorkerOptions
from postroad.queue.redis.client import connect


async def main(url: str, name: str, worker_name: str) -> None:
    client = connect(url)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async def hold(lease: Lease) -> Verdict:
        while not await client.exists(f"go:{name}"):
            await asyncio.sleep(0.01)
        return Done(note=worker_name.encode())

    async with Queue.open(url, name) as queue:
        await Worker(queue, hold, concurrency=20, options=WorkerOptions(name=worker_name)).run(stop)
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

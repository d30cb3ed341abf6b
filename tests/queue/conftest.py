from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import cast

import pytest
from redis.asyncio import Redis

from postroad.clock import Clock
from postroad.embedded import server_binary
from postroad.queue import Batch, ClaimedJob, Event, Job, Queue, Verdict, Worker, WorkerReport
from postroad.queue.redis.client import connect
from postroad.queue.scripts import Scripts, ServerConnections
from tests.conftest import RedisServer
from tests.kit.clock import FakeClock
from tests.on_uvloop import pytest_asyncio_loop_factories  # noqa: F401
from tests.queue.nodes import free_port

_names = count()


@asynccontextmanager
async def scripts_of(url: str, name: str, clock: Clock | None = None) -> AsyncIterator[Scripts]:
    """Open the scripts of a queue on a connection of their own, to run one step as a client that dies after it."""
    connections = ServerConnections(url, f"pr:{{{name}}}", clock, None)
    try:
        yield connections.scripts
    finally:
        await connections.aclose()


class Bench:
    """A queue with short methods for tests."""

    def __init__(self, queue: Queue, clock: FakeClock, client: Redis) -> None:
        self.queue = queue
        self.clock = clock
        self.client = client
        self._nonces = count()

    def key(self, suffix: str) -> str:
        return f"pr:{{{self.queue.name}}}:{suffix}"

    async def batch(self, want: int = 100, *, worker: str = "w", lease_ms: int = 60_000) -> Batch:
        return await self.queue.claim(worker, want=want, lease_ms=lease_ms, nonce=f"n{next(self._nonces)}")

    async def claim(self, want: int = 100, *, worker: str = "w", lease_ms: int = 60_000) -> list[ClaimedJob]:
        return (await self.batch(want, worker=worker, lease_ms=lease_ms)).jobs

    async def settle(self, verdict: Verdict, *jobs: ClaimedJob) -> list[str]:
        return (await self.queue.settle("w", [(job, verdict) for job in jobs])).stale

    async def empty_server(self) -> None:
        await cast("Callable[[], Awaitable[object]]", self.client.flushall)()

    async def kinds(self) -> list[str]:
        events = await self.queue.read_events("test", "c", count=1000, block_ms=0)
        await self.queue.acknowledge("test", events)
        return [str(event.kind) for event in events]


def jobs(*ids: str, payload: bytes = b"p", due_ms: int = 0, expires_ms: int = 0) -> list[Job]:
    return [Job(id=name, payload=payload, due_ms=due_ms, expires_ms=expires_ms) for name in ids]


def ids(batch: Sequence[ClaimedJob]) -> list[str]:
    return [job.id for job in batch]


@pytest.fixture(scope="session")
def lone_cluster() -> Iterator[RedisServer]:
    """A cluster of one node, which tests share."""
    with tempfile.TemporaryDirectory(prefix="pr-") as folder:
        server = RedisServer(server_binary(), Path(folder))
        port = free_port()
        server.start("--appendonly", "yes", "--port", f"{port}", "--bind", "127.0.0.1", "--cluster-enabled", "yes")
        asyncio.run(_give_all_slots(server.url))
        server.url = f"redis+cluster://127.0.0.1:{port}"
        yield server
        server.kill()


@pytest.fixture(params=["valkey", "redis", "cluster"])
def shared_redis(request: pytest.FixtureRequest, redis_servers: Callable[[str], RedisServer]) -> RedisServer:
    """A shared server, or a shared cluster of one node. Each test must use its own queue."""
    if request.param == "cluster":
        cluster: RedisServer = request.getfixturevalue("lone_cluster")
        return cluster
    return redis_servers(request.param)


async def _give_all_slots(url: str) -> None:
    client = connect(url)
    await client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    async with asyncio.timeout(20):
        while b"cluster_state:ok" not in await client.execute_command("CLUSTER", "INFO"):
            await asyncio.sleep(0.02)
    await client.aclose()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def bench(redis_url: str, clock: FakeClock) -> AsyncIterator[Bench]:
    client = connect(redis_url)
    async with Queue.open(redis_url, f"q{next(_names)}", clock=clock) as queue:
        bench = Bench(queue, clock, client)
        yield bench
        assert await queue.audit() == []
        await bench.empty_server()
    await client.aclose()


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[tuple[asyncio.Event, asyncio.Task[WorkerReport]]]:
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield stop, task
    finally:
        stop.set()
        await task


async def all_events(queue: Queue) -> list[Event]:
    found: list[Event] = []
    while events := await queue.read_events("test", "c", count=1000, block_ms=0):
        found += events
    return found

"""Calls that were executed without a reply."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from postroad.errors import UnavailableError
from postroad.queue import Done, Job, Lane, Queue
from tests.chaos.proxy import Proxy
from tests.conftest import RedisServer

LANE = Lane(name="a", gates=())


@pytest.fixture
async def line(redis: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy.open(redis.folder / "p.sock", redis.socket) as proxy:
        yield proxy


@pytest.fixture
async def queue(line: Proxy, redis: RedisServer) -> AsyncIterator[Queue]:
    async with Queue.open(redis.url, "other") as other:
        # The server learns the scripts: else that it does not know them would be the answer that is lost.
        await other.enqueue(LANE, jobs(1))
        await other.claim("w", want=1, lease_ms=60_000, nonce="1")
        await other.settle("w", [])
    async with Queue.open(f"unix://{redis.folder / 'p.sock'}", "q") as queue:
        yield queue


def jobs(n: int) -> list[Job]:
    return [Job(id=f"{i}", payload=b"") for i in range(n)]


async def test_a_repeated_enqueue_has_no_effect(queue: Queue, line: Proxy) -> None:
    line.drop_replies()
    with pytest.raises(UnavailableError):
        await queue.enqueue(LANE, jobs(3))
    enqueued = await queue.enqueue(LANE, jobs(3))
    assert (enqueued.accepted, enqueued.known, line.replies_dropped) == (0, 3, 1)


async def test_an_unanswered_settle_is_repeated_with_its_nonce(queue: Queue, line: Proxy) -> None:
    await queue.enqueue(LANE, jobs(3))
    [first] = (await queue.claim("w", want=1, lease_ms=60_000, nonce="1")).jobs
    line.drop_replies()
    with pytest.raises(UnavailableError):
        await queue.settle("w", [(first, Done())], want=1, nonce="2")
    settled = await queue.settle("w", [(first, Done())], want=1, nonce="2")
    assert settled.stale == []
    assert [job.id for job in settled.batch.jobs] == ["1"], "the job that was claimed without the worker knowing"
    stats = await queue.stats()
    assert (stats.counters["done"], stats.in_flight) == (1, 1)


async def test_a_settle_that_arrives_after_its_repetition_is_ignored(
    queue: Queue, line: Proxy, redis: RedisServer
) -> None:
    await queue.enqueue(LANE, jobs(3))
    [first] = (await queue.claim("w", want=1, lease_ms=60_000, nonce="1")).jobs
    line.delay_requests(0.2)
    with pytest.raises(UnavailableError):
        await queue.settle("w", [(first, Done())], nonce="2")
    [second] = (await queue.settle("w", [(first, Done())], want=1, nonce="2")).batch.jobs
    await queue.settle("w", [(second, Done())], nonce="3")
    await line.delivered()
    assert line.requests_delayed == 1
    stats = await queue.stats()
    assert (stats.counters["done"], stats.counters["stale"], stats.queued) == (2, 1, 1)
    assert await queue.audit() == []


async def test_events_of_a_lost_reply_are_read_again_at_once(queue: Queue, line: Proxy) -> None:
    await queue.enqueue(LANE, jobs(2))
    batch = await queue.claim("w", want=2, lease_ms=60_000, nonce="1")
    assert await queue.read_events("g", "c", count=9, block_ms=0) == []
    await queue.settle("w", [(job, Done()) for job in batch.jobs])
    line.drop_replies()
    with pytest.raises(UnavailableError):
        await queue.read_events("g", "c", count=9, block_ms=0)
    assert [event.id for event in await queue.read_events("g", "c", count=9, block_ms=0)] == ["0", "1"]


async def test_a_connection_without_a_listener_is_closed(tmp_path: Path) -> None:
    async with Proxy.open(tmp_path / "p", tmp_path / "nobody"):
        with pytest.raises(UnavailableError):
            async with Queue.open(f"unix://{tmp_path / 'p'}", "q"):
                pass

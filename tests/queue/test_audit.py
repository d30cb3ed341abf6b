"""Each invariant is violated directly on the server, and the audit must report it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from postroad.queue import Dead, Done, Gate, Lane, Queue
from postroad.queue.redis.client import connect
from tests.kit.clock import FakeClock
from tests.queue.conftest import jobs, scripts_of

LANE = Lane(name="a", gates=("g",))

PLANTED: list[tuple[str, list[tuple[Any, ...]], str]] = [
    ("an id in two places", [("ZADD", "scheduled", 1, "flying")], "job flying is both"),
    ("an id in a lane twice", [("RPUSH", "lane:1", "queued")], "job queued is both queued and queued"),
    ("an id that fell out of its lane", [("LREM", "lane:1", 1, "queued")], "job queued is nowhere"),
    (
        "a lane entry without a record",
        [("RPUSH", "lane:1", "ghost")],
        "job ghost is queued and has no record",
    ),
    (
        "a live id that is remembered",
        [("HSET", "remembered", "queued", 1)],
        "job queued lives and is remembered",
    ),
    (
        "a cancelled id that stands nowhere",
        [("HSET", "cancelled", "ghost", 1)],
        "0 cancelled ids stand in lanes",
    ),
    ("a class that miscounts", [("HINCRBY", "depth", "normal", 1)], "class normal counts"),
    ("a lane without a state", [("HDEL", "home", "1")], "its state is false"),
    ("a lane lost from ready", [("ZREM", "ready:normal", "1")], "lane 1 is not where its state says"),
    ("a lane ready and parked", [("ZADD", "parked:g:normal", 0, "1")], "lane 1 is in"),
    (
        "a gate that nobody will wake",
        [("ZREM", "wake", "shut")],
        "gate shut has 1 lanes parked, wake says false",
    ),
    ("a gate woken for nobody", [("ZADD", "wake", 1, "g")], "gate g has 0 lanes parked"),
    (
        "a lease without a flight",
        [("ZREM", "inflight", "flying")],
        "job flying has a lease and is not in flight",
    ),
    ("a flight without a lease", [("HDEL", "leases", "flying")], "0 jobs have leases, 1 are in flight"),
    (
        "a held job that is not uncertain",
        [("ZREM", "uncertain", "unsure")],
        "job unsure has a lease and is not uncertain",
    ),
    ("a token from the future", [("SET", "token", 1)], "token of job flying is newer"),
    ("a dead job without its letter", [("HDEL", "letters", "dead")], "dead job dead has no letter"),
    ("a gate that miscounts", [("HSET", "gate:g", "in_flight", 5)], "gate g counts 5 in flight, there are 1"),
    (
        "a gate below zero",
        [("HSET", "gate:shut", "in_flight", -1)],
        "gate shut counts -1 in flight, there are 0",
    ),
    ("a job counted twice", [("HINCRBY", "counters", "done", 1)], "were enqueued"),
    ("a lane that miscounts its jobs", [("HINCRBY", "live", "1", 1)], "lane 1 counts 6 live jobs, there are 5"),
    ("a lane idle with jobs", [("ZADD", "idle", 1, "1")], "lane 1 has 5 live jobs and is idle wrongly"),
    ("a lane that fell out of its group", [("ZREM", "group:paused", "3")], "lane 3 is not in its group"),
    ("a paused lane that is ready", [("HSET", "home", "3", "r")], "lane 3 holds 1 ids back and its state is r"),
    ("a cancelled lane that nobody drains", [("ZREM", "drain", "4")], "lane 4 holds 1 ids and drains wrongly"),
    ("a cancelled lane that takes jobs", [("HDEL", "doomed", "4")], "lane 4 is cancelled and takes jobs, or is not"),
    ("a clock that ran ahead", [("HSET", "vtime", "lanes:normal", 1000)], "is behind the clock of its class"),
]


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    """A valid queue with a job in every state."""
    clock = FakeClock()
    async with Queue.open(redis_url, "audited", clock=clock) as queue:
        await queue.set_gate(Gate(name="shut", concurrency=0))
        await queue.enqueue(LANE, jobs("gone"))
        await queue.enqueue(Lane(name="b", gates=("shut",)), jobs("parked"))
        [gone] = (await queue.claim("w", want=2, lease_ms=1000, nonce="1")).jobs
        await queue.enqueue(LANE, jobs("dead", "unsure", "flying", "queued"))
        await queue.enqueue(LANE, jobs("waiting", due_ms=clock.now_ms() + 1_000_000))
        await queue.enqueue(Lane(name="c", gates=(), group="paused"), jobs("paused"))
        await queue.pause_group("paused")
        await queue.enqueue(Lane(name="d", gates=(), group="doomed"), jobs("doomed"))
        async with scripts_of(redis_url, "audited", clock) as scripts:
            await scripts.cancel_group("doomed", "over", 0, 100)
        dead, unsure, _ = (await queue.claim("w", want=3, lease_ms=1000, nonce="2")).jobs
        await queue.settle("w", [(gone, Done()), (dead, Dead(cause="c"))])
        await queue.mark([unsure])
        clock.advance(500)
        await queue.extend([unsure], 0)
        await queue.reap()
        assert await queue.audit() == []
        yield queue
        client = connect(redis_url)
        for key in await client.keys("pr:{audited}:*"):
            await client.delete(key)
        await client.aclose()


@pytest.mark.parametrize(("commands", "words"), [case[1:] for case in PLANTED], ids=[case[0] for case in PLANTED])
async def test_a_planted_fault_is_found(
    queue: Queue, redis_url: str, commands: list[tuple[Any, ...]], words: str
) -> None:
    client = connect(redis_url)
    for command, key, *args in commands:
        await client.execute_command(command, f"pr:{{audited}}:{key}", *args)
    await client.aclose()
    assert any(words in wrong for wrong in await queue.audit()), await queue.audit()


async def test_an_audit_changes_nothing(queue: Queue, redis_url: str) -> None:
    client = connect(redis_url)

    async def everything() -> dict[bytes | str, bytes | None]:
        keys = sorted(await client.keys("pr:{audited}:*"))
        return {key: await client.dump(key) for key in keys}

    before = await everything()
    await queue.audit()
    await queue.stats()
    await queue.gates()
    assert await everything() == before
    await client.aclose()

from __future__ import annotations

import asyncio

import pytest

from postroad.errors import UnavailableError
from postroad.queue import Done, GroupLag, Lane, Queue
from tests.conftest import RedisServer
from tests.queue.conftest import Bench, ids, jobs

LANE = Lane(name="a", gates=("g",))


async def end(bench: Bench, *names: str) -> None:
    await bench.queue.enqueue(LANE, jobs(*names))
    await bench.settle(Done(note=b"250 ok"), *await bench.claim())


async def test_an_event_says_what_happened(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    [job] = await bench.claim()
    await bench.settle(Done(note=b"\xff\x00"), job)
    [event] = await bench.queue.read_events("g", "c", count=10, block_ms=0)
    assert event.uid == f"1:{job.token}:done"
    assert (event.at_ms, event.attempt, event.note) == (bench.clock.now_ms(), 1, b"\xff\x00")


async def test_each_group_sees_every_event_and_the_slowest_holds_the_stream(bench: Bench) -> None:
    await end(bench, *"123")
    fast = await bench.queue.read_events("fast", "c", count=10, block_ms=0)
    slow = await bench.queue.read_events("slow", "c", count=2, block_ms=0)
    assert [event.id for event in fast] == ["1", "2", "3"]
    await bench.queue.acknowledge("fast", fast)
    assert (await bench.queue.stats()).events == 3
    await bench.queue.acknowledge("slow", slow[:1])
    assert (await bench.queue.stats()).events == 2
    await bench.queue.acknowledge("slow", slow[1:])
    assert [event.id for event in await bench.queue.read_events("slow", "c", count=9, block_ms=0)] == ["3"]
    stats = await bench.queue.stats()
    assert stats.events == 1
    assert {group.name: (group.pending, group.unread) for group in stats.groups} == {
        "fast": (0, 0),
        "slow": (1, 0),
    }


async def test_a_consumer_that_crashed_first_gets_what_it_had_read(bench: Bench, redis_url: str) -> None:
    await end(bench, *"12345")
    read = await bench.queue.read_events("g", "c", count=4, block_ms=0)
    await bench.queue.acknowledge("g", read[:1])
    async with Queue.open(redis_url, bench.queue.name, clock=bench.clock) as reborn:
        assert [e.id for e in await reborn.read_events("g", "c", count=2, block_ms=0)] == ["2", "3"]
        assert [e.id for e in await reborn.read_events("g", "c", count=2, block_ms=0)] == ["4"]
        assert [e.id for e in await reborn.read_events("g", "c", count=2, block_ms=0)] == ["5"]


async def test_an_acknowledgement_that_got_no_answer_is_not_waited_for(own_redis: RedisServer) -> None:
    async with Queue.open(own_redis.url, "q") as queue:
        await queue.enqueue(LANE, jobs(*"123"))
        batch = await queue.claim("w", want=3, lease_ms=60_000, nonce="n")
        await queue.settle("w", [(job, Done()) for job in batch.jobs])
        read = await queue.read_events("g", "c", count=2, block_ms=0)
        assert [event.id for event in read] == ["1", "2"]
        own_redis.kill()
        with pytest.raises(UnavailableError):
            await queue.acknowledge("g", read)
        own_redis.start()
        assert await queue.read_events("g", "c", count=9, block_ms=0) == read
        await queue.acknowledge("g", read)
        assert [event.id for event in await queue.read_events("g", "c", count=9, block_ms=0)] == ["3"]


async def test_what_a_dead_consumer_had_read_goes_to_another(bench: Bench) -> None:
    await end(bench, *"123")
    await bench.queue.read_events("g", "dead", count=2, block_ms=0)
    assert [e.id for e in await bench.queue.read_events("g", "c", count=9, block_ms=0)] == ["3"]
    taken = await bench.queue.read_events("g", "other", count=9, block_ms=0, idle_ms=0)
    assert [event.id for event in taken] == ["1", "2", "3"]


async def test_a_waiting_read_ends_when_something_happens(bench: Bench) -> None:
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(bench.queue.read_events("g", "c", count=10, block_ms=20_000))
        await end(bench, "1")
    assert [event.id for event in reading.result()] == ["1"]
    assert await bench.queue.read_events("g", "c", count=10, block_ms=1) == []


async def test_a_late_outcome_is_an_event_of_its_own(bench: Bench) -> None:
    await bench.queue.append_late("1", 42, b"250 ok")
    [event] = await bench.queue.read_events("g", "c", count=10, block_ms=0)
    assert (event.uid, event.note) == ("1:42:late", b"250 ok")


async def test_the_log_survives_a_server_that_was_emptied(bench: Bench) -> None:
    await end(bench, "1")
    before = await bench.queue.read_events("g", "c", count=10, block_ms=0)
    await bench.empty_server()
    await bench.queue.acknowledge("g", before)
    await bench.queue.enqueue(LANE, jobs("1"))
    batch = await bench.claim()
    await bench.settle(Done(), *batch)
    assert ids(batch) == ["1"]
    after = await bench.queue.read_events("g", "c", count=10, block_ms=0)
    assert [event.id for event in after] == ["1"]
    # Tokens come from the clock, so the same job in its second life is told from the first.
    assert after[0].uid != before[0].uid or bench.clock.now_ms() == before[0].at_ms


async def test_a_server_that_died_between_a_read_and_its_acknowledgement_counts_what_is_unread(
    own_redis: RedisServer,
) -> None:
    async def lag() -> list[GroupLag]:
        async with Queue.open(own_redis.url, "q") as queue:
            return (await queue.stats()).groups

    async with Queue.open(own_redis.url, "q") as queue:
        await queue.enqueue(LANE, jobs(*"123456"))
        for n in range(6):
            [job] = (await queue.claim("w", want=1, lease_ms=60_000, nonce=f"n{n}")).jobs
            await queue.settle("w", [(job, Done())])
        read = await queue.read_events("g", "c", count=4, block_ms=0)
    own_redis.kill()
    own_redis.start()
    assert await lag() == [GroupLag("g", 4, 2)]
    async with Queue.open(own_redis.url, "q") as queue:
        await queue.acknowledge("g", read)
        assert await lag() == [GroupLag("g", 0, 2)]
        await queue.acknowledge("g", await queue.read_events("g", "c", count=4, block_ms=0))
        assert await lag() == [GroupLag("g", 0, 0)]

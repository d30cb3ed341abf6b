from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from postroad.errors import UnavailableError
from postroad.queue import (
    ClaimedJob,
    Done,
    GroupLag,
    Lane,
    Lease,
    Queue,
    QueueOptions,
    Retention,
    Retry,
    Verdict,
    Worker,
)
from postroad.queue.redis.client import connect
from tests.conftest import RedisServer
from tests.kit.clock import FakeClock
from tests.kit.waiting import until
from tests.queue.conftest import Bench, ids, jobs, running

LANE = Lane(name="a", gates=("g",))


async def end(bench: Bench, *names: str) -> None:
    """End jobs one by one, each in a separate stream entry."""
    await bench.queue.enqueue(LANE, jobs(*names))
    for job in await bench.claim():
        await bench.settle(Done(note=b"250 ok"), job)


async def test_an_event_contains_what_happened(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    [job] = await bench.claim()
    await bench.settle(Done(note=b"\xff\x00"), job)
    [event] = await bench.queue.read_events("g", "c", count=10, block_ms=0)
    assert event.uid == f"1:{job.token}:done"
    assert (event.at_ms, event.attempt, event.note) == (bench.clock.now_ms(), 1, b"\xff\x00")


async def test_each_group_reads_every_event_and_the_slowest_keeps_them(bench: Bench) -> None:
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


async def test_events_of_one_script_are_acknowledged_together(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs(*"12345"))
    claimed = await bench.claim()
    stale = ClaimedJob("5", 1, 1, 1, b"", 0, "a")
    verdicts: list[tuple[ClaimedJob, Verdict]] = [(job, Done(note=job.id.encode())) for job in [*claimed[:3], stale]]
    verdicts += [(claimed[3], Retry(cause="c", note=b"4")), (claimed[0], Done(note=b"twice"))]
    assert (await bench.queue.settle("w", verdicts)).stale == ["5", "1"]
    first = await bench.queue.read_events("g", "c", count=1, block_ms=0)
    rest = await bench.queue.read_events("g", "c", count=9, block_ms=0)
    assert [(event.id, event.kind, event.note) for event in first + rest] == [
        ("1", "done", b"1"),
        ("2", "done", b"2"),
        ("3", "done", b"3"),
        ("4", "retry", b"4"),
    ]
    await bench.queue.acknowledge("g", first + rest[1:])
    # One of its events is not acknowledged, so all of them are kept.
    assert (await bench.queue.stats()).groups == [GroupLag("g", 4, 0)]
    again = await bench.queue.read_events("g", "other", count=9, block_ms=0, idle_ms=0)
    assert again == first + rest
    await bench.queue.acknowledge("g", rest[:1])
    stats = await bench.queue.stats()
    assert (stats.groups, stats.events) == ([GroupLag("g", 0, 0)], 0)


async def test_a_restarted_consumer_first_gets_its_unacknowledged_events(bench: Bench, redis_url: str) -> None:
    await end(bench, *"12345")
    read = await bench.queue.read_events("g", "c", count=4, block_ms=0)
    await bench.queue.acknowledge("g", read[:1])
    async with Queue.open(redis_url, bench.queue.name, clock=bench.clock) as reborn:
        assert [e.id for e in await reborn.read_events("g", "c", count=2, block_ms=0)] == ["2", "3"]
        assert [e.id for e in await reborn.read_events("g", "c", count=2, block_ms=0)] == ["4"]
        assert [e.id for e in await reborn.read_events("g", "c", count=2, block_ms=0)] == ["5"]


async def test_a_read_does_not_wait_for_a_lost_acknowledgement(own_redis: RedisServer) -> None:
    async with Queue.open(own_redis.url, "q") as queue:
        await queue.enqueue(LANE, jobs(*"123"))
        for job in (await queue.claim("w", want=3, lease_ms=60_000, nonce="n")).jobs:
            await queue.settle("w", [(job, Done())])
        read = await queue.read_events("g", "c", count=2, block_ms=0)
        assert [event.id for event in read] == ["1", "2"]
        own_redis.kill()
        with pytest.raises(UnavailableError):
            await queue.acknowledge("g", read)
        own_redis.start()

        async def read_again() -> bool:
            # The connection that was open when the server died fails once.
            try:
                return await queue.read_events("g", "c", count=9, block_ms=0) == read
            except UnavailableError:
                return False

        await until(read_again)
        await queue.acknowledge("g", read)
        assert [event.id for event in await queue.read_events("g", "c", count=9, block_ms=0)] == ["3"]


async def test_events_of_a_dead_consumer_go_to_another(bench: Bench) -> None:
    await end(bench, *"123")
    await bench.queue.read_events("g", "dead", count=2, block_ms=0)
    assert [e.id for e in await bench.queue.read_events("g", "c", count=9, block_ms=0)] == ["3"]
    taken = await bench.queue.read_events("g", "other", count=9, block_ms=0, idle_ms=0)
    assert [event.id for event in taken] == ["1", "2", "3"]


async def test_a_blocking_read_ends_at_the_next_event(bench: Bench) -> None:
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(bench.queue.read_events("g", "c", count=10, block_ms=20_000))
        await end(bench, "1")
    assert [event.id for event in reading.result()] == ["1"]
    assert await bench.queue.read_events("g", "c", count=10, block_ms=1) == []


async def test_a_late_outcome_is_a_separate_event(bench: Bench) -> None:
    await bench.queue.record_late_outcome("1", 42, b"250 ok")
    [event] = await bench.queue.read_events("g", "c", count=10, block_ms=0)
    assert (event.uid, event.note) == ("1:42:late", b"250 ok")


async def test_the_event_log_survives_an_emptied_server(bench: Bench) -> None:
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
    # Tokens come from the clock, so the second job with this id has another token.
    assert after[0].uid != before[0].uid or bench.clock.now_ms() == before[0].at_ms


@pytest.mark.parametrize("block_ms", [0, 500])
@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_reader_survives_repeated_deletion_of_its_stream(
    redis_servers: Callable[[str], RedisServer], kind: str, block_ms: int
) -> None:
    """Also between the creation of its group and the next read, and during a blocking read."""
    name, url = f"vanishing {block_ms}", redis_servers(kind).url
    async with Queue.open(url, name) as queue, Redis.from_url(url) as vandal:
        enough = asyncio.Event()

        async def take_it_away() -> None:
            while not enough.is_set():
                await vandal.delete(f"pr:{{{name}}}:events")

        taking = asyncio.create_task(take_it_away())
        for _ in range(20):
            with suppress(UnavailableError):  # The server is unavailable.
                assert await queue.read_events("ledger", "one", count=10, block_ms=block_ms) == []
        enough.set()
        await taking
        await queue.enqueue(LANE, jobs("a"))
        batch = await queue.claim("w", want=1, lease_ms=60_000, nonce="n")
        await queue.settle("w", [(batch.jobs[0], Done())])
        assert [event.id for event in await queue.read_events("ledger", "one", count=10, block_ms=0)] == ["a"]


async def test_a_restarted_server_counts_unread_events(
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


async def claim_one(queue: Queue) -> list[ClaimedJob]:
    return (await queue.claim("w", want=1, lease_ms=60_000, nonce=str((await queue.stats()).counters))).jobs


async def test_a_full_stream_stops_claims_and_drops_nothing(
    redis_url: str, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def done(lease: Lease) -> Verdict:
        return Done()

    async with Queue.open(
        redis_url, "full", clock=clock, options=QueueOptions(retention=Retention(events=100))
    ) as queue:
        assert await queue.read_events("g", "c", count=1, block_ms=0) == []
        names = [f"{n}" for n in range(300)]
        await queue.enqueue(LANE, jobs(*names))
        seen: list[str] = []

        async def stopped() -> bool:
            return "too many events are not recorded" in caplog.text

        async def goes_on() -> bool:
            events = await queue.read_events("g", "c", count=1000, block_ms=0)
            await queue.acknowledge("g", events)
            seen.extend(event.id for event in events)
            return len(seen) == 300

        async with running(Worker(queue, done, concurrency=10, clock=clock)):
            await until(stopped)
            stats = await queue.stats()
            assert 100 <= stats.events < 120
            assert stats.queued > 180
            await until(goes_on)
        assert sorted(seen) == sorted(names)
        assert await queue.audit() == []


async def test_events_without_a_group_are_kept_up_to_the_cap(redis_url: str, clock: FakeClock) -> None:
    async with Queue.open(
        redis_url, "unread", clock=clock, options=QueueOptions(retention=Retention(events=100))
    ) as queue:
        await queue.enqueue(LANE, jobs(*(f"{n}" for n in range(300))))
        for _ in range(300):
            [job] = await claim_one(queue)
            await queue.settle("w", [(job, Done())])
        assert (await queue.stats()).events == 100
        newest = await queue.read_events("g", "c", count=1000, block_ms=0)
        assert newest[-1].id == "299"


async def test_an_idle_consumer_without_pending_events_is_deleted(redis_url: str, clock: FakeClock) -> None:
    async with Queue.open(
        redis_url, "consumers", clock=clock, options=QueueOptions(retention=Retention(consumer_ms=0))
    ) as queue:
        await queue.enqueue(LANE, jobs("1", "2"))
        for consumer in ("gone", "owes"):
            [job] = await claim_one(queue)
            await queue.settle("w", [(job, Done())])
            events = await queue.read_events("g", consumer, count=9, block_ms=0)
            if consumer == "gone":
                await queue.acknowledge("g", events)
        clock.advance(60_000)
        await queue.acknowledge("g", [])
        client = connect(redis_url)
        consumers = await client.xinfo_consumers("pr:{consumers}:events", "g")
        await client.aclose()
        assert [consumer["name"] for consumer in consumers] == [b"owes"]
        # It may still read again.
        assert await queue.read_events("g", "gone", count=9, block_ms=0) == []


async def test_unacknowledged_events_are_read_again_at_once(own_redis: RedisServer) -> None:
    async with Queue.open(own_redis.url, "again") as queue:
        await queue.enqueue(LANE, jobs("1"))
        [job] = await claim_one(queue)
        await queue.settle("w", [(job, Done())])
        events = await queue.read_events("g", "c", count=9, block_ms=0)
        assert await queue.read_events("g", "c", count=9, block_ms=0) == []
        socket = own_redis.socket.rename(own_redis.socket.with_name("away"))
        await queue.reconnect()
        with pytest.raises(UnavailableError):
            await queue.acknowledge("g", events)
        socket.rename(own_redis.socket)
        # Not a minute later, when the consumer counts as dead.
        assert await queue.read_events("g", "c", count=9, block_ms=0) == events

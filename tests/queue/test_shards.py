"""A queue in shards is used like one; what is divided, what is exact, and what an id means."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from inspect import iscoroutinefunction
from itertools import combinations, count
from pathlib import Path

import pytest

from postroad.errors import ConfigError, StateError, UnavailableError
from postroad.queue import (
    Dead,
    Done,
    Gate,
    GateState,
    Job,
    JobState,
    Lane,
    Lease,
    Queue,
    Quota,
    Rate,
    Uncertain,
    Verdict,
    Worker,
    open_queue,
)
from postroad.queue.server import connect
from postroad.queue.shards import ShardedQueue
from postroad.queue.shares import divide, shard_of_lane, wants
from tests.conftest import RedisServer
from tests.queue.conftest import HandClock, all_events, ids, jobs, running, until
from tests.queue.nodes import cluster
from tests.queue.test_tls_and_acl import use_everything

SHARDS = 4
_names = count()


def key_of(gate: str) -> str | None:
    return gate if gate.startswith("sender:") else None


def lane(sender: str) -> Lane:
    return Lane(name=sender, gates=(f"sender:{sender}", "queue"), group="campaign")


def sender_in(shard: int) -> str:
    """A sender whose lanes are in this shard."""
    return next(name for name in map(str, count()) if shard_of_lane(lane(name), key_of, SHARDS) == shard)


@pytest.fixture
async def queue(redis_url: str, clock: HandClock) -> AsyncIterator[Queue]:
    name = f"sharded{next(_names)}"
    async with open_queue(redis_url, name, shards=SHARDS, key_of=key_of, clock=clock) as queue:
        yield queue
        assert await queue.audit() == []


async def claim(queue: Queue, want: int = 100, nonce: str = "") -> list[str]:
    return ids((await queue.claim("w", want=want, lease_ms=60_000, nonce=nonce or f"{next(_names)}")).jobs)


async def gate_of(queue: Queue, name: str) -> GateState:
    return next(state for state in await queue.gates() if state.gate.name == name)


def test_every_method_of_a_queue_is_one_of_all_shards() -> None:
    theirs = {name for name, value in vars(Queue).items() if iscoroutinefunction(value) and not name.startswith("_")}
    assert theirs - set(vars(ShardedQueue)) == {"explain"}  # It asks `find`.


async def test_a_queue_in_shards_does_all_that_a_queue_does(redis_url: str) -> None:
    async with open_queue(redis_url, f"sharded{next(_names)}", shards=SHARDS) as queue:
        await use_everything(queue, SHARDS)


async def test_lanes_of_one_key_are_in_one_shard_and_jobs_of_all_are_claimed(queue: Queue) -> None:
    for shard in range(SHARDS):
        await queue.enqueue(lane(sender_in(shard)), jobs(f"{shard}.1", f"{shard}.2"))
    assert (await queue.stats()).queued == 8
    assert sorted(await claim(queue)) == sorted(f"{shard}.{n}" for shard in range(SHARDS) for n in (1, 2))


@pytest.mark.parametrize("want", range(1, 10))
async def test_no_more_is_claimed_than_was_wanted_and_all_shards_are_looked_at(queue: Queue, want: int) -> None:
    await queue.enqueue(lane(sender_in(2)), jobs("only"))
    assert await claim(queue, want) == ["only"]
    for shard in range(SHARDS):
        await queue.enqueue(lane(sender_in(shard)), jobs(*(f"{shard}.{n}" for n in range(9))))
    assert len(await claim(queue, want)) == want


async def test_every_shard_is_served_though_one_job_at_a_time_is_wanted(queue: Queue) -> None:
    for shard in range(SHARDS):
        await queue.enqueue(lane(sender_in(shard)), jobs(*(f"{shard}.{n}" for n in range(100))))
    taken = Counter([(await claim(queue, 1, nonce=f"fair {n}"))[0][0] for n in range(200)])
    assert len(taken) == SHARDS
    assert min(taken.values()) > 30  # of 50 in the mean; the nonces make it the same each time


async def test_the_same_nonce_returns_the_same_batch(queue: Queue) -> None:
    for shard in range(SHARDS):
        await queue.enqueue(lane(sender_in(shard)), jobs(*(f"{shard}.{n}" for n in range(9))))
    first = await queue.claim("w", want=3, lease_ms=60_000, nonce="n")
    again = await queue.claim("w", want=3, lease_ms=60_000, nonce="n")
    assert first.jobs == again.jobs
    assert (await queue.stats()).in_flight == 3


async def test_tokens_of_different_shards_differ_and_each_fences(queue: Queue) -> None:
    for shard in range(SHARDS):
        await queue.enqueue(lane(sender_in(shard)), jobs(f"{shard}"))
    # By a clock that stands still, each shard's first token is the same number.
    held = (await queue.claim("w", want=4, lease_ms=60_000, nonce="n")).jobs
    assert len({job.token for job in held}) == 4
    assert await queue.mark(held) == [True] * 4
    settled = await queue.settle("w", [(job, Done()) for job in held])
    assert settled.stale == []
    again = await queue.settle("w", [(job, Done()) for job in held])
    assert sorted(again.stale) == sorted(ids(held))
    assert {event.uid for event in await all_events(queue)} == {f"{job.id}:{job.token}:done" for job in held}


async def test_closed_claims_are_named_by_the_tokens_that_were_given_out(queue: Queue, clock: HandClock) -> None:
    await queue.enqueue(lane(sender_in(3)), jobs("1"))
    [first] = (await queue.claim("w", want=1, lease_ms=1000, nonce="1")).jobs
    clock.advance(1000)
    [second] = (await queue.claim("w", want=1, lease_ms=1000, nonce="2")).jobs
    assert second.closed == (first.token,)


# -- ids


async def test_an_id_is_found_settled_and_cancelled_wherever_it_is(queue: Queue) -> None:
    for shard in range(SHARDS):
        await queue.enqueue(lane(sender_in(shard)), jobs(f"{shard}", f"{shard} later", due_ms=2**45))
    names = [f"{shard}" for shard in range(SHARDS)]
    assert await queue.known([*names, "none"]) == [JobState.SCHEDULED] * 4 + [None]
    assert await queue.reschedule([*names, "none"], 0) == [True] * 4 + [False]
    found = await queue.find("3")
    assert found.lane == lane(sender_in(3))
    assert (await queue.explain("3")).state is JobState.QUEUED
    assert (await queue.find("none")).state is None
    assert await queue.cancel(["1", "2 later", "none"], "c") == 2
    assert (await queue.find("1")).history[0].kind == "cancelled"


async def test_an_id_is_known_in_the_shard_of_its_lane_and_there_alone(queue: Queue) -> None:
    here, there = lane(sender_in(0)), lane(sender_in(1))
    assert (await queue.enqueue(here, jobs("1"))).accepted == 1
    assert (await queue.enqueue(here, jobs("1"))).known == 1
    # This is what to look out for: another shard does not know it.
    assert (await queue.enqueue(there, jobs("1"))).accepted == 1
    assert await queue.cancel(["1"], "both") == 2
    assert await queue.known(["1"]) == [JobState.REMEMBERED]


async def test_dead_letters_come_newest_first_page_by_page(queue: Queue, clock: HandClock) -> None:
    for n in range(10):
        await queue.enqueue(lane(sender_in(n % SHARDS)), jobs(f"{n}"))
        clock.advance(1)
        [job] = (await queue.claim("w", want=1, lease_ms=1000, nonce=f"{n}")).jobs
        await queue.settle("w", [(job, Dead(cause="c"))])
    seen: list[str] = []
    cursor: int | None = 0
    while cursor is not None:
        letters, cursor = await queue.dead_letters(count=3, cursor=cursor)
        seen += [letter.id for letter in letters]
    assert seen == [f"{n}" for n in reversed(range(10))]
    assert await queue.replay(["3"]) == 1
    assert await queue.drop() == 9


async def test_an_uncertain_job_is_resolved_where_it_is(queue: Queue) -> None:
    await queue.enqueue(lane(sender_in(2)), jobs("1"))
    [job] = (await queue.claim("w", want=1, lease_ms=1000, nonce="n")).jobs
    await queue.settle("w", [(job, Uncertain(cause="u"))])
    [held] = await queue.uncertain()
    assert held.token == job.token
    await queue.resolve("1", Done())
    with pytest.raises(StateError, match="not uncertain"):
        await queue.resolve("1", Done())


async def test_events_of_all_shards_are_read_and_acknowledged(queue: Queue) -> None:
    reading = asyncio.create_task(queue.read_events("g", "c", count=10, block_ms=20_000))
    await asyncio.sleep(0)
    for shard in range(SHARDS):
        await queue.enqueue(lane(sender_in(shard)), jobs(f"{shard}"))
        await queue.cancel([f"{shard}"], "c")
    events = await reading
    while len(events) < SHARDS:
        events += await queue.read_events("g", "c", count=10, block_ms=20_000)
    assert sorted(event.id for event in events) == ["0", "1", "2", "3"]
    await queue.acknowledge("g", events, forget=["0", "1", "2", "3"])
    stats = await queue.stats()
    assert [(group.pending, group.unread) for group in stats.groups] == [(0, 0)]
    assert await queue.known(["0", "1", "2", "3"]) == [None] * 4


# -- gates


def test_a_divided_limit_sums_to_the_whole() -> None:
    gate = Gate(name="g", rate=Rate(count=100, per_ms=1000, burst=11), concurrency=9, quota=Quota(left=3, until_ms=5))
    shares = divide(gate, 8)
    assert sum(share.rate.count for share in shares if share.rate) == 100
    assert [share.rate.burst for share in shares if share.rate] == [2, 2, 2, 1, 1, 1, 1, 1]
    assert [share.concurrency for share in shares] == [2, 1, 1, 1, 1, 1, 1, 1]
    assert [share.quota.left for share in shares if share.quota] == [1, 1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "gate", [Gate(name="g", concurrency=7), Gate(name="g", rate=Rate(count=100, per_ms=1000, burst=7))]
)
def test_a_limit_smaller_than_the_shards_is_refused(gate: Gate) -> None:
    with pytest.raises(ConfigError, match="cannot be divided over 8 shards") as caught:
        divide(gate, 8)
    assert caught.value.remedy


def test_what_is_wanted_is_asked_for_in_equal_parts() -> None:
    assert wants(10, [3, 0, 1]) == {3: 4, 0: 3, 1: 3}
    assert wants(2, [3, 0, 1]) == {3: 1, 0: 1}
    assert wants(0, [3, 0, 1]) == {}


async def test_a_gate_with_a_key_is_exact_and_one_without_is_divided(queue: Queue) -> None:
    ada = sender_in(1)
    await queue.set_gate(Gate(name=f"sender:{ada}", concurrency=3))
    await queue.set_gate(Gate(name="queue", concurrency=8))
    await queue.enqueue(lane(ada), jobs(*"abcdef"))
    # Of the queue's 8 this shard has 2, though the others are idle: that is what dividing costs.
    assert len(await claim(queue)) == 2
    assert (await gate_of(queue, "queue")).gate.concurrency == 8
    await queue.set_gate(Gate(name="queue"))
    assert len(await claim(queue)) == 1
    state = await gate_of(queue, f"sender:{ada}")
    assert (state.gate.concurrency, state.in_flight, state.room) == (3, 3, 0)


async def test_a_divided_limit_that_one_shard_lost_is_shown_as_lost(queue: Queue, redis_url: str) -> None:
    await queue.set_gate(Gate(name="queue", rate=Rate(count=100, per_ms=1000, burst=8)))
    assert (await gate_of(queue, "queue")).gate.rate == Rate(count=100, per_ms=1000, burst=8)
    base = f"pr:{{{queue.name}:2}}"
    client = connect(redis_url, base)
    await client.execute_command("DEL", f"{base}:gate:queue")
    await client.aclose()
    assert (await gate_of(queue, "queue")).gate.rate is None


async def test_a_pause_holds_in_every_shard(queue: Queue) -> None:
    for shard in range(SHARDS):
        await queue.enqueue(lane(sender_in(shard)), jobs(f"{shard}"))
    await queue.suspend("queue", None)
    assert await claim(queue) == []
    await queue.lift("queue")
    await queue.pause("campaign")
    assert await claim(queue) == []
    assert (await queue.stats()).paused_groups == ["campaign"]
    assert await queue.resume("campaign")
    await queue.suspend(f"sender:{sender_in(1)}", None)
    assert sorted(await claim(queue)) == ["0", "2", "3"]
    await queue.lift(f"sender:{sender_in(1)}")
    assert await claim(queue) == ["1"]
    assert await queue.cancel_group("campaign", "c") == 0


async def test_a_lane_whose_exact_gates_are_in_different_shards_is_refused(queue: Queue) -> None:
    both = Lane(name="both", gates=(f"sender:{sender_in(0)}", f"sender:{sender_in(1)}"))
    with pytest.raises(ConfigError, match="different shards"):
        await queue.enqueue(both, jobs("1"))


@pytest.mark.parametrize(("busy", "least"), [(SHARDS, 0.9), (1, 0.9 / SHARDS)])
async def test_real_workers_keep_a_divided_rate_in_every_window(redis_url: str, busy: int, least: float) -> None:
    rate, window_s = Rate(count=200, per_ms=1000, burst=8), 2.5
    loop = asyncio.get_running_loop()

    async def handle(lease: Lease) -> Verdict:
        return Done()

    name = f"sharded{next(_names)}"
    async with (
        open_queue(redis_url, name, shards=SHARDS, key_of=key_of) as queue,
        open_queue(redis_url, name, shards=SHARDS, key_of=key_of) as one,
        open_queue(redis_url, name, shards=SHARDS, key_of=key_of) as two,
    ):
        await queue.set_gate(Gate(name="queue", rate=rate))
        for shard in range(busy):
            await queue.enqueue(lane(sender_in(shard)), jobs(*(f"{shard}.{n}" for n in range(800))))
        seen: list[tuple[float, float, int]] = []
        async with running(Worker(one, handle, concurrency=50)), running(Worker(two, handle, concurrency=50)):
            began_s = loop.time()
            while loop.time() - began_s < window_s:
                # The count is of some instant between the two.
                before_s = loop.time()
                claimed = (await queue.stats()).counters.get("claimed", 0)
                seen.append((before_s, loop.time(), claimed))
                await asyncio.sleep(0.02)
        for first, last in combinations(seen, 2):
            longest_s = last[1] - first[0]
            assert last[2] - first[2] <= rate.burst + longest_s * rate.count + 1e-6
        admitted = seen[-1][2] - seen[0][2]
        assert admitted >= least * rate.count * (seen[-1][0] - seen[0][1])


# -- workers, layouts, clusters


async def test_one_worker_serves_all_shards_with_one_limit_of_concurrency(redis_url: str) -> None:
    at_once, most, done = 0, 0, Counter[str]()

    async def handle(lease: Lease) -> Verdict:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await lease.mark()
        await asyncio.sleep(0.001)
        done[lease.job.id] += 1
        at_once -= 1
        return Done()

    names = [f"{shard}.{n}" for shard in range(SHARDS) for n in range(50)]
    async with open_queue(redis_url, f"sharded{next(_names)}", shards=SHARDS, key_of=key_of) as queue:
        for shard in range(SHARDS):
            await queue.enqueue(lane(sender_in(shard)), jobs(*(name for name in names if name[0] == f"{shard}")))
        async with running(Worker(queue, handle, concurrency=6)) as (stop, task):

            async def ended() -> bool:
                return set(await queue.known(names)) == {JobState.REMEMBERED}

            await until(ended)
            stop.set()
            report = await task
        assert report.claimed == len(names)
        assert set(done.values()) == {1}
        assert most == 6
        assert await queue.audit() == []


async def test_another_number_of_shards_is_refused_while_the_queue_is_not_empty(redis_url: str) -> None:
    name = f"sharded{next(_names)}"
    async with open_queue(redis_url, name) as queue:
        await queue.enqueue(lane("ada"), jobs("1"))
    with pytest.raises(StateError, match="lies in 1 shard and not in 4, and is not empty: 1 jobs") as caught:
        async with open_queue(redis_url, name, shards=4):
            pass
    assert "shards = 1" in str(caught.value.remedy)
    async with open_queue(redis_url, name) as queue:
        await queue.cancel(["1"], "c")
    with pytest.raises(StateError, match="1 ids that are remembered"):
        async with open_queue(redis_url, name, shards=4):
            pass
    async with open_queue(redis_url, name) as queue:
        events = await queue.read_events("g", "c", count=10, block_ms=0)
        await queue.acknowledge("g", events, forget=["1"])
    async with open_queue(redis_url, name, shards=4) as queue:
        await queue.enqueue(lane("ada"), jobs("1"))
    with pytest.raises(StateError, match="lies in 4 shards and not in 8"):
        async with open_queue(redis_url, name, shards=8):
            pass
    with pytest.raises(StateError, match="lies in 4 shards"):
        async with Queue.open(redis_url, name):
            pass


@pytest.mark.parametrize("shards", [0, 257])
async def test_a_number_that_is_none_is_refused(redis_url: str, shards: int) -> None:
    with pytest.raises(ConfigError, match="no number of shards"):
        async with open_queue(redis_url, "q", shards=shards):
            pass


async def test_a_server_that_is_away_is_unavailable_for_all_shards(own_redis: RedisServer) -> None:
    async with open_queue(own_redis.url, "q", shards=SHARDS, key_of=key_of) as queue:
        own_redis.kill()
        for call in (queue.stats(), queue.claim("w", want=9, lease_ms=1, nonce="n"), queue.known(["1"])):
            with pytest.raises(UnavailableError):
                await call
        with pytest.raises(UnavailableError):
            await queue.read_events("g", "c", count=1, block_ms=1000)
        own_redis.start()
        assert (await queue.stats()).queued == 0


async def test_shards_are_on_different_nodes_of_a_cluster(tmp_path: Path) -> None:
    async with cluster("valkey", tmp_path) as house, open_queue(house.url, "q", shards=8) as queue:
        for n in range(30):
            await queue.enqueue(Lane(name=f"{n}", gates=()), [Job(id=f"{n}", payload=b"")])
        done: list[str] = []

        async def handle(lease: Lease) -> Verdict:
            done.append(lease.job.id)
            return Done()

        async with running(Worker(queue, handle)):

            async def ended() -> bool:
                return len(done) == 30

            await until(ended)
        keys = [await node.ask("DBSIZE") for node in house.nodes]
        assert all(keys), keys
        assert len(await all_events(queue)) == 30
        assert await queue.audit() == []

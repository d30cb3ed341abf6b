"""A primary dies or is demoted: a worker continues, loses no replicated job, and repeats no act."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from postroad.errors import ConfigError, UnavailableError
from postroad.queue import Done, JobState, Lane, Lease, Queue, QueueOptions, Verdict, Worker, WorkerOptions
from tests.kit.waiting import until
from tests.queue.conftest import all_events, jobs, running
from tests.queue.nodes import PERSISTENT, Failover, Node, binary_of, failover, started

LANE = Lane(name="a", gates=("g",))
NAMES = [f"{n}" for n in range(400)]


@pytest.fixture(params=["valkey", "redis"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Failover]:
    async with failover(request.param, tmp_path) as setup:
        yield setup


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Failover]:
    async with failover("valkey", tmp_path) as setup:
        yield setup


async def replicated(primary: Node, replica: Node) -> None:
    """Wait until the replica has all writes of the primary."""
    offset = (await primary.ask("INFO", "replication"))["master_repl_offset"]

    async def has() -> bool:
        return bool((await replica.ask("INFO", "replication"))["slave_repl_offset"] >= offset)

    await until(has)


async def settled(queue: Queue, names: list[str]) -> bool:
    """Return whether each job has ended, or is held because of the failover."""
    try:
        states = await queue.states(names)
    except UnavailableError:
        return False
    return set(states) <= {JobState.REMEMBERED, JobState.UNCERTAIN}


async def test_a_killed_primary_loses_no_job_and_repeats_no_act(either: Failover) -> None:
    acts: Counter[str] = Counter()
    some_done = asyncio.Event()

    async def handle(lease: Lease) -> Verdict:
        await lease.mark()
        acts[lease.job.id] += 1
        if len(acts) > 100:
            some_done.set()
        await asyncio.sleep(0.005)
        return Done()

    # With a confirmation of the replica, no confirmed write is lost.
    async with Queue.open(either.url, "q", options=QueueOptions(sync_replicas=1)) as queue:
        await queue.enqueue(LANE, jobs(*NAMES))
    old, new = either.servers
    async with (
        Queue.open(either.url, "q", options=QueueOptions(sync_replicas=1)) as workers,
        Queue.open(either.url, "q") as queue,
    ):
        # Alone after the failover, the new primary has no replica that could confirm.
        async with running(Worker(workers, handle, concurrency=20, options=WorkerOptions(lease_ms=3000))) as (
            stop,
            task,
        ):
            await some_done.wait()
            old.kill()

            async def moved() -> bool:
                return await either.primary() is new

            await until(moved)
            stop.set()
            await task
        async with running(Worker(queue, handle, concurrency=20, options=WorkerOptions(lease_ms=3000))):
            async with asyncio.timeout(40):
                while not await settled(queue, NAMES):
                    await asyncio.sleep(0.05)
        uncertain = {job.id for job in await queue.uncertain()}
        assert max(acts.values()) == 1
        assert set(NAMES) - uncertain <= set(acts)
        assert await queue.audit() == []
    old.start()


async def test_a_worker_continues_after_the_primary_is_killed(
    either: Failover, caplog: pytest.LogCaptureFixture
) -> None:
    acts: Counter[str] = Counter()
    holding = asyncio.Barrier(6)
    go_on = asyncio.Event()

    async def handle(lease: Lease) -> Verdict:
        await lease.mark()
        acts[lease.job.id] += 1
        if not go_on.is_set():
            await holding.wait()
            await go_on.wait()
        return Done()

    old, new = either.servers
    async with Queue.open(either.url, "q") as queue:
        await queue.enqueue(LANE, jobs(*NAMES))
        async with running(Worker(queue, handle, concurrency=5)):
            await holding.wait()
            await replicated(old, new)
            old.kill()
            go_on.set()

            async def all_over() -> bool:
                return await settled(queue, NAMES)

            async with asyncio.timeout(40):
                while not await all_over():
                    await asyncio.sleep(0.05)
        # What was marked and replicated was settled at the new primary, whose script cache was empty.
        assert await queue.states(NAMES) == [JobState.REMEMBERED] * len(NAMES)
        assert set(acts.values()) == {1}
        assert sorted(event.id for event in await all_events(queue)) == sorted(NAMES)
        assert await queue.audit() == []
    assert "the queue refused a call" not in caplog.text
    old.start()


async def test_a_job_whose_mark_may_be_lost_is_uncertain(setup: Failover) -> None:
    old, new = setup.servers
    async with Queue.open(setup.url, "q") as queue:
        await queue.enqueue(LANE, jobs("1", "2"))
        await queue.claim("w", want=1, lease_ms=1, nonce="n")
        await replicated(old, new)
        # Its mark does not reach the replica, and its lease expires.
        old.kill()

        async def reaped() -> bool:
            try:
                await queue.reap()
                return bool(await queue.uncertain())
            except UnavailableError:
                return False

        await until(reaped)
        [held] = await queue.uncertain()
        assert held.id == "1"
        assert [event.cause for event in await all_events(queue)] == ["restart"]
        assert await queue.states(["1", "2"]) == [JobState.UNCERTAIN, JobState.QUEUED]
    old.start()


async def test_a_worker_leaves_a_demoted_primary(setup: Failover) -> None:
    acts: Counter[str] = Counter()

    async def handle(lease: Lease) -> Verdict:
        await lease.mark()
        acts[lease.job.id] += 1
        return Done()

    old, new = setup.servers
    async with Queue.open(setup.url, "q") as queue, running(Worker(queue, handle, concurrency=5)):
        await replicated(old, new)
        await setup.sentinels[0].ask("SENTINEL", "FAILOVER", "mail")

        async def moved() -> bool:
            return bool((await old.ask("INFO", "replication"))["role"] == "slave")

        await until(moved)

        async def accepted() -> bool:
            try:
                await queue.enqueue(LANE, jobs("1"))
                return await queue.states(["1"]) == [JobState.REMEMBERED]
            except UnavailableError:
                return False

        await until(accepted)
    assert acts == {"1": 1}


async def test_a_connection_to_a_new_replica_is_replaced_at_its_first_error(tmp_path: Path) -> None:
    binary = binary_of("valkey")
    one, two = Node(binary, tmp_path / "1", PERSISTENT), Node(binary, tmp_path / "2", PERSISTENT)
    async with started(one), started(two), Queue.open(f"redis://{one.host}", "q") as queue:
        await queue.enqueue(LANE, jobs("1"))
        # The client keeps its connection, and gets READONLY.
        await one.ask("REPLICAOF", "127.0.0.1", two.port)
        with pytest.raises(UnavailableError, match="read only"):
            await queue.enqueue(LANE, jobs("2"))

        async def left() -> bool:
            return not any(client["name"] == "postroad" for client in await one.ask("CLIENT LIST"))

        await until(left)
        await one.ask("REPLICAOF", "NO", "ONE")
        assert (await queue.enqueue(LANE, jobs("2"))).accepted == 1


async def test_without_a_replica_no_job_is_accepted_or_marked(setup: Failover) -> None:
    _, new = setup.servers
    async with Queue.open(setup.url, "q", options=QueueOptions(sync_replicas=1)) as queue:
        await queue.enqueue(LANE, jobs("1"))
        [job] = (await queue.claim("w", want=1, lease_ms=60_000, nonce="n")).jobs
        new.signal(signal.SIGSTOP)
        with pytest.raises(UnavailableError, match="only 0 of 1 replicas"):
            await queue.mark([job])
        with pytest.raises(UnavailableError, match="only 0 of 1 replicas"):
            await queue.enqueue(LANE, jobs("2"))
        new.signal(signal.SIGCONT)

        async def again() -> bool:
            try:
                return (await queue.enqueue(LANE, jobs("2"))).known == 1
            except UnavailableError:
                return False

        await until(again)
        assert await queue.mark([job]) == [True]


async def test_a_primary_without_enough_replicas_is_unavailable(setup: Failover) -> None:
    old, new = setup.servers
    await old.ask("CONFIG", "SET", "min-replicas-to-write", 1, "min-replicas-max-lag", 1)
    async with Queue.open(setup.url, "q") as queue:
        await queue.enqueue(LANE, jobs("1"))
        await setup.sentinels[0].ask("SENTINEL", "SET", "mail", "down-after-milliseconds", 60_000)
        new.signal(signal.SIGSTOP)

        async def refused() -> bool:
            try:
                await queue.enqueue(LANE, jobs("2"))
            except UnavailableError as error:
                return "NOREPLICAS" in error.message
            return False

        await until(refused)
        new.signal(signal.SIGCONT)


async def test_an_unknown_primary_is_a_configuration_error(setup: Failover) -> None:
    with pytest.raises(ConfigError, match="no primary named 'male'"):
        async with Queue.open(setup.url.replace("/mail", "/male"), "q"):
            pass


async def test_sentinels_without_a_reply_are_unavailable(setup: Failover) -> None:
    for sentinel in setup.sentinels[1:]:
        sentinel.kill()
    async with Queue.open(setup.url, "q") as queue:
        assert (await queue.stats()).queued == 0
    setup.sentinels[0].kill()
    with pytest.raises(UnavailableError, match="names its server"):
        async with Queue.open(setup.url, "q"):
            pass
    for sentinel in setup.sentinels:
        sentinel.start()


async def test_sentinels_and_servers_have_separate_users(setup: Failover) -> None:
    rights = ("+sentinel|get-master-addr-by-name", "+client|setname")
    for sentinel in setup.sentinels:
        await sentinel.ask("ACL", "SETUSER", "finder", "on", ">f1nd", "-@all", *rights)
    for server in setup.servers:
        await server.ask("ACL", "SETUSER", "postroad", "on", ">s3nd", "~pr:*", "+@all")
    to = f"{setup.hosts}/mail?sentinel_username=finder&sentinel_password"
    async with Queue.open(f"redis+sentinel://postroad:s3nd@{to}=f1nd", "q") as queue:
        assert (await queue.enqueue(LANE, jobs("1"))).accepted == 1
    for wrong in (f"postroad:s3nd@{to}=wrong", f"postroad:wrong@{to}=f1nd"):
        with pytest.raises(ConfigError, match="does not accept user and password") as caught:
            async with Queue.open(f"redis+sentinel://{wrong}", "q"):
                pass
        assert "wrong" not in str(caught.value).replace("WRONGPASS", "")

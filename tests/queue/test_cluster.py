"""A queue in a cluster: its slot moves, its node dies, and a worker continues."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from postroad.errors import ConfigError, UnavailableError
from postroad.queue import Done, JobState, Lane, Lease, Queue, Verdict, Worker
from tests.kit.waiting import until
from tests.queue.conftest import all_events, jobs, running
from tests.queue.nodes import PERSISTENT, ClusterOf, Node, binary_of, cluster, started
from tests.queue.test_tls_and_acl import use_everything

LANE = Lane(name="a", gates=("g",))
NAMES = [f"{n}" for n in range(400)]
SLOT = key_slot(b"pr:{q}")


@pytest.fixture(params=["valkey", "redis"])
async def setup(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ClusterOf]:
    async with cluster(request.param, tmp_path) as setup:
        yield setup


async def begin_to_move(setup: ClusterOf) -> tuple[Node, Node]:
    """Start to move the slot. Returns its owner and its next owner."""
    owner = await setup.owner(SLOT)
    heir = next(node for node in setup.nodes if node is not owner)
    await heir.ask("CLUSTER", "SETSLOT", SLOT, "IMPORTING", await setup.id_of(owner))
    await owner.ask("CLUSTER", "SETSLOT", SLOT, "MIGRATING", await setup.id_of(heir))
    return owner, heir


async def move_keys(owner: Node, heir: Node) -> int:
    """Move keys one by one, like `redis-cli --cluster reshard`. Returns the number of keys."""
    moved = 0
    while keys := await owner.ask("CLUSTER", "GETKEYSINSLOT", SLOT, 1):
        await owner.ask("MIGRATE", "127.0.0.1", heir.port, keys[0], 0, 5000)
        moved += 1
    return moved


async def end_the_move(setup: ClusterOf, owner: Node, heir: Node) -> None:
    for node in (heir, owner, *setup.nodes):
        await node.ask("CLUSTER", "SETSLOT", SLOT, "NODE", await setup.id_of(heir))


async def test_every_operation_works_in_a_cluster(setup: ClusterOf) -> None:
    # Queues in many slots, so on all nodes, with a URL that names one node.
    for name in ("q", "r", "s", "t", "u"):
        async with Queue.open(f"redis+cluster://{setup.nodes[0].host}", name) as queue:
            await use_everything(queue)
    assert all([await node.ask("DBSIZE") for node in setup.nodes])


async def test_a_worker_continues_while_its_slot_moves(setup: ClusterOf, caplog: pytest.LogCaptureFixture) -> None:
    acts: Counter[str] = Counter()
    some_done, moved = asyncio.Event(), asyncio.Event()

    async def handle(lease: Lease) -> Verdict:
        await lease.mark()
        acts[lease.job.id] += 1
        if len(acts) == 100:
            some_done.set()
        if len(acts) > 200:
            await moved.wait()
        return Done()

    async with Queue.open(setup.url, "q") as queue:
        await queue.enqueue(LANE, jobs(*NAMES))
        async with running(Worker(queue, handle, concurrency=10)):
            await some_done.wait()
            owner, heir = await begin_to_move(setup)
            await move_keys(owner, heir)
            await end_the_move(setup, owner, heir)
            moved.set()

            async def ended() -> bool:
                try:
                    return await queue.states(NAMES) == [JobState.REMEMBERED] * len(NAMES)
                except UnavailableError:
                    return False

            await until(ended)
        assert await setup.owner(SLOT) is heir
        assert set(acts.values()) == {1}
        done = [event.id for event in await all_events(queue) if event.kind == "done"]
        assert sorted(done) == sorted(NAMES)
        assert await queue.audit() == []
    assert "the queue refused a call" not in caplog.text


async def test_no_script_runs_while_a_slot_is_half_moved(setup: ClusterOf) -> None:
    async with Queue.open(setup.url, "q") as queue:
        await queue.enqueue(LANE, jobs("1"))
        owner, heir = await begin_to_move(setup)
        # From the start of the move to its end, no script runs on either node.
        for step in ("none moved", "one moved", "all moved"):
            with pytest.raises(UnavailableError, match="slot is moving"):
                await queue.enqueue(LANE, jobs("2"))
            with pytest.raises(UnavailableError, match="slot is moving"):
                await queue.stats()
            if step == "none moved":
                [key] = await owner.ask("CLUSTER", "GETKEYSINSLOT", SLOT, 1)
                await owner.ask("MIGRATE", "127.0.0.1", heir.port, key, 0, 5000)
            elif step == "one moved":
                assert await move_keys(owner, heir) > 1
        await end_the_move(setup, owner, heir)
        assert (await queue.enqueue(LANE, jobs("1", "2"))).accepted == 1
        assert await queue.audit() == []


async def test_no_key_has_the_name_of_the_base(setup: ClusterOf) -> None:
    async with Queue.open(setup.url, "q") as queue:
        await use_everything(queue)
    assert await (await setup.owner(SLOT)).ask("EXISTS", "pr:{q}") == 0


async def test_a_moved_slot_is_found_within_the_same_call(setup: ClusterOf) -> None:
    async with Queue.open(setup.url, "q") as queue:
        await queue.enqueue(LANE, jobs("1"))
        assert await queue.read_events("g", "c", count=1, block_ms=0) == []
        owner, heir = await begin_to_move(setup)
        await move_keys(owner, heir)
        await end_the_move(setup, owner, heir)
        assert await queue.states(["1"]) == [JobState.QUEUED]
        assert await queue.read_events("g", "c", count=1, block_ms=0) == []


async def test_a_replica_replaces_a_dead_node(tmp_path: Path) -> None:
    acts: Counter[str] = Counter()
    holding, go_on = asyncio.Barrier(6), asyncio.Event()

    async def handle(lease: Lease) -> Verdict:
        await lease.mark()
        acts[lease.job.id] += 1
        if not go_on.is_set():
            await holding.wait()
            await go_on.wait()
        return Done()

    async with cluster("valkey", tmp_path, replicas=3) as setup:
        async with Queue.open(setup.url, "q") as queue:
            await queue.enqueue(LANE, jobs(*NAMES))
            async with running(Worker(queue, handle, concurrency=5)):
                await holding.wait()
                owner = await setup.owner(SLOT)
                offset = (await owner.ask("INFO", "replication"))["master_repl_offset"]

                async def replicated() -> bool:
                    info = await owner.ask("INFO", "replication")
                    return bool(info["slave0"]["offset"] >= offset)

                await until(replicated)
                owner.kill()
                go_on.set()

                async def ended() -> bool:
                    try:
                        return await queue.states(NAMES) == [JobState.REMEMBERED] * len(NAMES)
                    except UnavailableError:
                        return False

                async with asyncio.timeout(40):
                    while not await ended():
                        await asyncio.sleep(0.05)
            assert await setup.owner(SLOT) is not owner
            assert set(acts.values()) == {1}
            assert await queue.audit() == []
        owner.start()


async def test_a_cluster_node_as_a_single_server_is_rejected(setup: ClusterOf) -> None:
    owner = await setup.owner(SLOT)
    other = next(node for node in setup.nodes if node is not owner)
    with pytest.raises(ConfigError, match="node of a cluster"):
        async with Queue.open(f"redis://{other.host}", "q"):
            pass


async def test_a_cluster_without_a_reply_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="names its server"):
        async with Queue.open("redis+cluster://127.0.0.1:1", "q"):
            pass


async def test_a_single_server_as_a_cluster_is_rejected(tmp_path: Path) -> None:
    async with started(Node(binary_of("valkey"), tmp_path / "alone", PERSISTENT)) as node:
        with pytest.raises(ConfigError, match="is not a cluster"):
            async with Queue.open(f"redis+cluster://{node.host}", "q"):
                pass

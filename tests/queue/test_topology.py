"""Checks by `postroad doctor` of the servers that have a queue, or may have it after a failover."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.queue.redis.server import Health, ServerFinding, inspect_servers
from tests.conftest import RedisServer
from tests.kit.waiting import until
from tests.queue.nodes import cluster, failover


def worst(findings: list[ServerFinding]) -> list[str]:
    return [f"{finding.health} {finding.seen}" for finding in findings if finding.health is not Health.OK]


async def test_a_persistent_single_server_is_ok(own_redis: RedisServer) -> None:
    [finding] = await inspect_servers(own_redis.url)
    assert finding.health is Health.OK
    assert "persistent, evicts nothing" in finding.seen
    own_redis.kill()
    [finding] = await inspect_servers(own_redis.url)
    assert (finding.health, "does not answer" in finding.seen) == (Health.FAIL, True)
    own_redis.start("--appendonly", "no")
    [finding] = await inspect_servers(own_redis.url)
    assert "append-only file" in finding.seen
    assert "appendonly yes" in finding.remedy


async def test_every_server_that_may_become_primary_is_checked(tmp_path: Path) -> None:
    async with failover("valkey", tmp_path) as setup:
        old, new = setup.servers
        findings = await inspect_servers(setup.url)
        assert [finding.part for finding in findings] == [
            "sentinels",
            f"redis {old.host}",
            f"redis {old.host}",
            f"redis {new.host}",
        ]
        assert worst(findings) == [
            "warn a failover may lose its last writes, and it still accepts writes when it is cut off from its replicas"
        ]
        assert worst(await inspect_servers(setup.url, sync_replicas=1)) == []
        assert "nothing is accepted" in worst(await inspect_servers(setup.url, sync_replicas=2))[0]
        await old.ask("CONFIG", "SET", "min-replicas-to-write", 1)
        assert worst(await inspect_servers(setup.url)) == []
        # The primary is valid, and its replica is not.
        await new.ask("CONFIG", "SET", "appendonly", "no")
        assert "replica: The Redis server has no append-only file" in worst(await inspect_servers(setup.url))[0]
        setup.sentinels[1].kill()
        setup.sentinels[2].kill()
        found = worst(await inspect_servers(setup.url))
        assert any("1 of 3 answer" in seen for seen in found)
        for sentinel in setup.sentinels[1:]:
            sentinel.start()


async def test_a_replica_that_does_not_replicate_is_reported(tmp_path: Path) -> None:
    async with failover("valkey", tmp_path) as setup:
        old, new = setup.servers
        await old.ask("CONFIG", "SET", "requirepass", "other")

        async def cut_off() -> bool:
            await new.ask("CLIENT", "KILL", "TYPE", "MASTER")
            return bool((await new.ask("INFO", "replication"))["master_link_status"] == "down")

        await until(cut_off)
        found = worst(await inspect_servers(setup.url))
        assert any("its link to its primary is down" in seen for seen in found)
        assert any("does not accept user and password" in seen for seen in found)


@pytest.mark.parametrize("replicas", [0, 3])
async def test_every_node_of_a_cluster_is_checked(tmp_path: Path, replicas: int) -> None:
    async with cluster("valkey", tmp_path, replicas=replicas) as setup:
        findings = await inspect_servers(setup.url, sync_replicas=1 if replicas else 0)
        assert findings[0].seen == "3 primaries serve 16384 of 16384 slots"
        assert {finding.part for finding in findings[1:]} == {f"redis {node.host}" for node in setup.nodes}
        no_replica = "warn no replica follows it: it has no successor when it fails"
        assert worst(findings) == ([] if replicas else [no_replica] * 3)
        await setup.nodes[0].ask("CLUSTER", "DELSLOTS", 7)
        assert "fail 3 primaries serve 16383 of 16384 slots" in worst(await inspect_servers(setup.url))

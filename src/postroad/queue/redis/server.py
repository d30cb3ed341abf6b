"""Checks whether a queue may rely on its servers, also after a failover."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, assert_never

from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroad.errors import PostroadError, StateError
from postroad.queue.redis.client import Client, client_of, connect, open_client
from postroad.queue.redis.discovery import ASK_S, raw_reply, text_of
from postroad.queue.redis.errors import LOST, REPLY_S, unavailable
from postroad.queue.redis.url import Host, RedisUrl, Topology, parse_redis_url
from postroad.queue.types import QueueOptions

OLDEST_REDIS = 7
ALL_SLOTS = 16384
KEEPS_ALL = "noeviction"

logger = logging.getLogger(__name__)


class Health(StrEnum):
    """Result of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class ServerFinding(Struct, frozen=True, kw_only=True):
    """State of one server, or of several together, in words, and a remedy."""

    part: str
    health: Health
    seen: str
    remedy: str = ""


async def inspect_servers(url: str, *, sync_replicas: int = 0, durable: bool = False) -> list[ServerFinding]:
    """Check every server that has the queue or may have it after a failover.

    Args:
        url: URL of the servers.
        sync_replicas: Replicas that must confirm a job or a mark, see `QueueOptions`.
        durable: The operator states that the servers keep all jobs, see `QueueOptions`.

    Returns:
        One finding or more for each server. An unreachable server is a finding, not an error.

    Raises:
        ConfigError: The URL is not valid.
    """
    address = parse_redis_url(url)
    match address.topology:
        case Topology.SERVER:
            client = open_client(address)
            try:
                info = await _info(client)
            except LOST as error:
                return [_lost("redis", error)]
            finally:
                await client.aclose()
            return [_check_server("redis", info, "", durable)]
        case Topology.SENTINEL:
            return await _sentinels(address, sync_replicas, durable)
        case Topology.CLUSTER:
            return await _cluster(address, sync_replicas, durable)
        case other:
            assert_never(other)


async def _sentinels(address: RedisUrl, sync_replicas: int, durable: bool) -> list[ServerFinding]:
    findings: list[ServerFinding] = []
    primaries: dict[Host, int] = {}
    replicas: set[Host] = set()
    for host in address.hosts:
        client = client_of(address, host, sentinel=True)
        try:
            async with asyncio.timeout(ASK_S):
                named = await raw_reply(client, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)
                rows = await raw_reply(client, "SENTINEL", "REPLICAS", address.service)
        except (*LOST, RedisError) as error:
            findings.append(_lost(f"sentinel {_name(host)}", error))
            continue
        finally:
            await client.aclose()
        primary = (text_of(named[0]), int(named[1]))
        primaries[primary] = primaries.get(primary, 0) + 1
        for row in rows:
            fields = dict(zip(row[::2], row[1::2], strict=False))
            replicas.add((text_of(fields[b"ip"]), int(fields[b"port"])))
    answered = sum(primaries.values())
    agreed = max(primaries, key=lambda host: primaries[host], default=None)
    if agreed is None:
        return findings
    seen = f"{answered} of {len(address.hosts)} answer, primary {_name(agreed)}"
    fault = len(primaries) > 1 or 2 * answered <= len(address.hosts)
    few = "A failover needs most of at least three sentinels." if fault or len(address.hosts) < 3 else ""
    health = Health.FAIL if fault else Health.WARN if few else Health.OK
    findings.append(ServerFinding(part="sentinels", health=health, seen=seen, remedy=few))
    return [*findings, *await _servers(address, {agreed: sorted(replicas - {agreed})}, sync_replicas, durable)]


async def _cluster(address: RedisUrl, sync_replicas: int, durable: bool) -> list[ServerFinding]:
    findings: list[ServerFinding] = []
    for host in address.hosts:
        client = client_of(address, host)
        try:
            async with asyncio.timeout(ASK_S):
                slots = await raw_reply(client, "CLUSTER", "SLOTS")
        except (*LOST, RedisError) as error:
            findings.append(_lost(f"node {_name(host)}", error))
            continue
        finally:
            await client.aclose()
        replicas_of: dict[Host, list[Host]] = {}
        served = 0
        for first, last, *nodes in slots:
            primary, *others = [(text_of(node[0] or b"") or host[0], int(node[1])) for node in nodes]
            served += last - first + 1
            replicas_of[primary] = others
        remedy = "" if served == ALL_SLOTS else "A queue whose slot no node serves does not work: add the slots."
        health = Health.OK if served == ALL_SLOTS else Health.FAIL
        seen = f"{len(replicas_of)} primaries serve {served} of {ALL_SLOTS} slots"
        findings.append(ServerFinding(part="cluster", health=health, seen=seen, remedy=remedy))
        return [*findings, *await _servers(address, replicas_of, sync_replicas, durable)]
    return findings


async def _servers(
    address: RedisUrl, replicas_of: Mapping[Host, list[Host]], sync_replicas: int, durable: bool
) -> list[ServerFinding]:
    findings: list[ServerFinding] = []
    for primary, replicas in replicas_of.items():
        for host in (primary, *replicas):
            client = client_of(address, host)
            try:
                info = await _info(client)
            except LOST as error:
                findings.append(_lost(f"redis {_name(host)}", error))
                continue
            finally:
                await client.aclose()
            findings.append(_check_server(f"redis {_name(host)}", info, _role(info), durable))
            if host == primary:
                findings += _replication(f"redis {_name(host)}", info, sync_replicas)
            elif info.get("master_link_status") != "up":
                seen = "its link to its primary is down: a failover to it would lose jobs"
                remedy = "Look at its log: is masterauth set, and repl-backlog-size large enough?"
                findings.append(
                    ServerFinding(part=f"redis {_name(host)}", health=Health.FAIL, seen=seen, remedy=remedy)
                )
    return findings


def _replication(part: str, info: Mapping[str, Any], sync_replicas: int) -> list[ServerFinding]:
    following = int(info.get("connected_slaves", 0))
    if following == 0:
        seen, remedy = "no replica follows it: it has no successor when it fails", "Start one."
        return [
            ServerFinding(part=part, health=Health.FAIL if sync_replicas else Health.WARN, seen=seen, remedy=remedy)
        ]
    if following < sync_replicas:
        seen = f"{following} replicas follow it, and sync_replicas is {sync_replicas}: nothing is accepted"
        return [ServerFinding(part=part, health=Health.FAIL, seen=seen, remedy="Start more, or lower sync_replicas.")]
    # INFO names good replicas only where their number is asked for.
    if not sync_replicas and "min_slaves_good_slaves" not in info:
        seen = "a failover may lose its last writes, and it still accepts writes when it is cut off from its replicas"
        remedy = "Set `min-replicas-to-write 1` on every server, and sync_replicas = 1 for what may not be repeated."
        return [ServerFinding(part=part, health=Health.WARN, seen=seen, remedy=remedy)]
    return []


async def _info(client: Redis) -> dict[str, Any]:
    async with asyncio.timeout(ASK_S):
        return dict(await client.info("everything"))


def _role(info: Mapping[str, Any]) -> str:
    return ", primary" if info.get("role") == "master" else ", replica"


def _check_server(part: str, info: Mapping[str, Any], role: str, durable: bool) -> ServerFinding:
    valkey = info.get("valkey_version")
    version = f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}"
    if not valkey and int(str(info["redis_version"]).partition(".")[0]) < OLDEST_REDIS:
        remedy = f"Postroad is tested on Redis {OLDEST_REDIS} and newer, and on Valkey."
        return ServerFinding(part=part, health=Health.FAIL, seen=f"{version}{role}", remedy=remedy)
    if fault := durability_error(info, durable=durable):
        seen = f"{version}{role}: {fault.message}"
        return ServerFinding(part=part, health=Health.FAIL, seen=seen, remedy=fault.remedy or "")
    if hidden := hidden_durability(info):
        seen = f"{version}{role}: cannot see {hidden}; the setting says that the server is durable"
        remedy = "Check with its provider that each accepted write survives a failure, and that no key is evicted."
        return ServerFinding(part=part, health=Health.WARN, seen=seen, remedy=remedy)
    return ServerFinding(part=part, health=Health.OK, seen=f"{version}{role}, persistent, evicts nothing")


def _lost(part: str, error: BaseException) -> ServerFinding:
    shown: PostroadError = unavailable(error)
    return ServerFinding(part=part, health=Health.FAIL, seen=shown.message, remedy=shown.remedy or "")


def _name(host: Host) -> str:
    return f"{host[0]}:{host[1]}"


async def require_persistence(client: Redis, options: QueueOptions) -> None:
    """Refuse a server that may evict jobs, or that loses them when it restarts.

    It reads `INFO`, because hosted servers forbid `CONFIG GET`.

    Args:
        client: Connected to the server.
        options: Whether a server is accepted that may lose jobs, or does not show that it keeps them.

    Raises:
        StateError: The server may lose jobs.
        UnavailableError: The server does not reply, or is still loading.
    """
    info = await _loaded_info(client)
    fault = durability_error(info, durable=options.durable)
    if fault and not options.ephemeral:
        raise fault
    if options.durable and (hidden := hidden_durability(info)):
        logger.warning("cannot see %s; the server is used because its operator says that it is durable", hidden)


async def _loaded_info(client: Redis) -> Mapping[str, Any]:
    try:
        async with asyncio.timeout(REPLY_S):
            info: Mapping[str, Any] = await client.info("everything")
    except LOST as error:
        raise unavailable(error) from error
    if int(info.get("loading", 0)):
        # While it reads its append-only file, it reports that it has none.
        raise unavailable("it is still loading")
    return info


async def require_unsharded(client: Client, name: str) -> None:
    """Refuse a queue that an earlier version split into shards.

    Args:
        client: Connected to the server that has the queue's slot.
        name: Name of the queue.

    Raises:
        StateError: The queue is in more than one shard.
        UnavailableError: The server does not reply.
    """
    shards = int(await _execute(client, "GET", _shards_key(name)) or 1)
    if shards != 1:
        raise StateError(
            f"Queue {name} is in {shards} shards, which this version does not support.",
            remedy="Let it run empty with the version before, and open it there once with `shards = 1`. "
            "Or stop every process of it and run `postroad queue rebuild`: it makes the jobs again from the ledger.",
        )


async def forget_shards(url: str, name: str) -> None:
    """Delete the record that a queue is in shards, so that it opens as an empty queue. Idempotent.

    The jobs in the shards are not read again. The caller makes them again from its own records.

    Args:
        url: Address of the server, see `postroad.queue.redis.url`.
        name: Name of the queue.

    Raises:
        ConfigError: The address is not valid, or the server refuses this client.
        UnavailableError: The server does not reply.
    """
    client = connect(url, _shards_key(name))
    try:
        await _execute(client, "DEL", _shards_key(name))
    finally:
        await client.aclose()


def _shards_key(name: str) -> str:
    return f"pr:{{{name}}}:layout"


async def _execute(client: Client, *command: str) -> Any:
    try:
        async with asyncio.timeout(REPLY_S):
            return await client.execute_command(*command)
    except LOST as error:
        raise unavailable(error) from error


def durability_error(info: Mapping[str, Any], *, durable: bool = False) -> StateError | None:
    """Return why a server may lose jobs.

    Args:
        info: Its `INFO`.
        durable: The operator states that it keeps all jobs. Then only a visible eviction is an error.

    Returns:
        The error. None: the server keeps jobs, or the operator says so.
    """
    policy = info.get("maxmemory_policy")
    if int(info.get("maxmemory", 0)) > 0 and policy not in (None, KEEPS_ALL):
        return StateError(
            f"The Redis server evicts keys when it is full, so it would drop jobs (maxmemory-policy {policy}).",
            remedy="Set `maxmemory-policy noeviction`, or open the queue with `QueueOptions(ephemeral=True)`: "
            "its jobs may be lost.",
        )
    hidden = hidden_durability(info)
    if not hidden or durable:
        return None
    if "aof_enabled" in info and policy is not None:
        return StateError(
            "The Redis server has no append-only file: a restart would lose jobs.",
            remedy="Set `appendonly yes`. If the service keeps all writes in another way, set `redis_durable = true`. "
            "Or open the queue with `QueueOptions(ephemeral=True)`: its jobs may be lost.",
        )
    return StateError(
        f"The Redis server may lose jobs: it does not show {hidden}.",
        remedy="If its provider guarantees that accepted writes survive and no key is evicted, set "
        "`redis_durable = true`. Or open the queue with `QueueOptions(ephemeral=True)`: its jobs may be lost.",
    )


def hidden_durability(info: Mapping[str, Any]) -> str:
    """Return what a server with this `INFO` does not show of its durability, in words. Empty: it shows all."""
    hidden = [] if int(info.get("aof_enabled", 0)) else ["an append-only file"]
    if info.get("maxmemory_policy") is None:
        hidden.append("whether it evicts keys")
    return " and ".join(hidden)

"""What stands behind an address, looked at server by server: may a queue rely on it, also after a failover?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, assert_never

from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroad.errors import PostroadError
from postroad.queue.address import Address, Host, Topology, read_address
from postroad.queue.route import ASK_S, client_of, open_client, raw_reply, text_of
from postroad.queue.scripts import LOST, unavailable
from postroad.queue.server import fault_of

OLDEST_REDIS = 7
ALL_SLOTS = 16384


class Health(StrEnum):
    """What was found of one part."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(Struct, frozen=True, kw_only=True):
    """One server, or what several are together; how it is, in words, and what to do about it."""

    part: str
    health: Health
    seen: str
    remedy: str = ""


async def inspect(url: str, *, sync_replicas: int = 0) -> list[Finding]:
    """Look at every server that has the queue or may have it after a failover. Raises ConfigError."""
    address = read_address(url)
    match address.topology:
        case Topology.SERVER:
            client = open_client(address)
            try:
                info = await _info(client)
            except LOST as error:
                return [_lost("redis", error)]
            finally:
                await client.aclose()
            return [_judge("redis", info, "")]
        case Topology.SENTINEL:
            return await _sentinels(address, sync_replicas)
        case Topology.CLUSTER:
            return await _cluster(address, sync_replicas)
        case other:
            assert_never(other)


async def _sentinels(address: Address, sync_replicas: int) -> list[Finding]:
    findings: list[Finding] = []
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
    findings.append(Finding(part="sentinels", health=health, seen=seen, remedy=few))
    return [*findings, *await _servers(address, {agreed: sorted(replicas - {agreed})}, sync_replicas)]


async def _cluster(address: Address, sync_replicas: int) -> list[Finding]:
    findings: list[Finding] = []
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
        remedy = "" if served == ALL_SLOTS else "Queues whose slot nobody serves stand still: add the slots."
        health = Health.OK if served == ALL_SLOTS else Health.FAIL
        seen = f"{len(replicas_of)} primaries serve {served} of {ALL_SLOTS} slots"
        findings.append(Finding(part="cluster", health=health, seen=seen, remedy=remedy))
        return [*findings, *await _servers(address, replicas_of, sync_replicas)]
    return findings


async def _servers(address: Address, replicas_of: Mapping[Host, list[Host]], sync_replicas: int) -> list[Finding]:
    findings: list[Finding] = []
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
            findings.append(_judge(f"redis {_name(host)}", info, _role(info)))
            if host == primary:
                findings += _replication(f"redis {_name(host)}", info, sync_replicas)
            elif info.get("master_link_status") != "up":
                seen = "its link to its primary is down: a failover to it would lose jobs"
                remedy = "Look at its log: is masterauth set, and repl-backlog-size large enough?"
                findings.append(Finding(part=f"redis {_name(host)}", health=Health.FAIL, seen=seen, remedy=remedy))
    return findings


def _replication(part: str, info: Mapping[str, Any], sync_replicas: int) -> list[Finding]:
    following = int(info.get("connected_slaves", 0))
    if following == 0:
        seen, remedy = "no replica follows it: nobody takes over when it dies", "Start one."
        return [Finding(part=part, health=Health.FAIL if sync_replicas else Health.WARN, seen=seen, remedy=remedy)]
    if following < sync_replicas:
        seen = f"{following} replicas follow it, and sync_replicas is {sync_replicas}: nothing is accepted"
        return [Finding(part=part, health=Health.FAIL, seen=seen, remedy="Start more, or lower sync_replicas.")]
    # INFO names good replicas only where their number is asked for.
    if not sync_replicas and "min_slaves_good_slaves" not in info:
        seen = "a failover may lose its last writes, and cut off from its replicas it goes on writing"
        remedy = "Set `min-replicas-to-write 1` on every server, and sync_replicas = 1 for what may not be repeated."
        return [Finding(part=part, health=Health.WARN, seen=seen, remedy=remedy)]
    return []


async def _info(client: Redis) -> dict[str, Any]:
    async with asyncio.timeout(ASK_S):
        return dict(await client.info("everything"))


def _role(info: Mapping[str, Any]) -> str:
    return ", primary" if info.get("role") == "master" else ", replica"


def _judge(part: str, info: Mapping[str, Any], role: str) -> Finding:
    valkey = info.get("valkey_version")
    version = f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}"
    if not valkey and int(str(info["redis_version"]).partition(".")[0]) < OLDEST_REDIS:
        remedy = f"Postroad is tested on Redis {OLDEST_REDIS} and newer, and on Valkey."
        return Finding(part=part, health=Health.FAIL, seen=f"{version}{role}", remedy=remedy)
    if fault := fault_of(info):
        seen = f"{version}{role}: {fault.message}"
        return Finding(part=part, health=Health.FAIL, seen=seen, remedy=fault.remedy or "")
    return Finding(part=part, health=Health.OK, seen=f"{version}{role}, persistent, evicts nothing")


def _lost(part: str, error: BaseException) -> Finding:
    shown: PostroadError = unavailable(error)
    return Finding(part=part, health=Health.FAIL, seen=shown.message, remedy=shown.remedy or "")


def _name(host: Host) -> str:
    return f"{host[0]}:{host[1]}"

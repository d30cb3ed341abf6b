"""The connection to the server, and what is asked of a server before it may hold a queue."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from postroad.errors import StateError
from postroad.queue.address import read_address
from postroad.queue.route import Client, open_client
from postroad.queue.scripts import LOST, REPLY_S, unavailable


def connect(url: str, key: str = "") -> Client:
    """A client that never repeats a command by itself: a claim that ran twice would lease twice.

    ``key``: any of the queue's, which a cluster needs to know. Raises ConfigError for what is no address.
    """
    return open_client(read_address(url), key)


async def require_persistence(client: Redis, *, ephemeral: bool) -> None:
    """Refuse a server that may evict jobs or forgets them when it restarts. One that is loading is not available yet.

    `INFO` and not `CONFIG GET`: hosted servers forbid the latter.
    """
    try:
        async with asyncio.timeout(REPLY_S):
            info = await client.info("everything")
    except LOST as error:
        raise unavailable(error) from error
    if int(info.get("loading", 0)):
        # Until it has read its append-only file it says that it keeps none.
        raise unavailable("it is still loading")
    if ephemeral:
        return
    if fault := fault_of(info):
        raise fault


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
        url: Address of the server, see `postroad.queue.address`.
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


def fault_of(info: Mapping[str, Any]) -> StateError | None:
    """Why a server of this `INFO` may lose jobs, if it may."""
    if int(info.get("maxmemory", 0)) > 0 and info.get("maxmemory_policy") != "noeviction":
        return StateError(
            "The Redis server evicts keys when it is full, so it would drop jobs "
            f"(maxmemory-policy {info.get('maxmemory_policy')}).",
            remedy="Set `maxmemory-policy noeviction`, or open the queue with `ephemeral=True`: its jobs may be lost.",
        )
    if not int(info.get("aof_enabled", 0)):
        return StateError(
            "The Redis server has no append-only file: a restart would lose jobs.",
            remedy="Set `appendonly yes`, or open the queue with `ephemeral=True`: its jobs may be lost.",
        )
    return None

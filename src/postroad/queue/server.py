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

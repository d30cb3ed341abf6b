"""The connection to the server, and what is asked of a server before it may hold a queue."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from postroad.errors import ConfigError, StateError
from postroad.queue.scripts import LOST, REPLY_S, unavailable

CONNECT_S = 5.0


def connect(url: str) -> Redis:
    """A client that never repeats a command by itself: a claim that ran twice would lease twice.

    It waits for a reply without end, so its caller sets the limit: with a limit of its own, redis-py sends by
    `asyncio.wait_for`, which on Python 3.11 swallows a cancellation now and then. RESP2, because its reply
    shapes are the same on every server that is supported.
    """
    try:
        client: Redis = Redis.from_url(
            url,
            protocol=2,
            socket_connect_timeout=CONNECT_S,
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
            client_name="postroad",
        )
    except ValueError as error:
        raise ConfigError(
            "That is not the address of a Redis server.",  # It may hold a password, so it is not shown.
            remedy="It looks like redis://host:6379/0, rediss://… or unix:///path/to/socket.",
        ) from error
    return client


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
    if int(info.get("maxmemory", 0)) > 0 and info.get("maxmemory_policy") != "noeviction":
        raise StateError(
            "The Redis server evicts keys when it is full, so it would drop jobs "
            f"(maxmemory-policy {info.get('maxmemory_policy')}).",
            remedy="Set `maxmemory-policy noeviction`, or accept the loss of jobs with --ephemeral.",
        )
    if not int(info.get("aof_enabled", 0)):
        raise StateError(
            "The Redis server has no append-only file: a restart would lose jobs.",
            remedy="Set `appendonly yes`, or accept the loss of jobs with --ephemeral.",
        )

"""In how many shards a queue lies: written beside it, so that nobody looks for its jobs in other ones."""

from __future__ import annotations

import asyncio
from typing import Any

from postroad.errors import StateError
from postroad.queue.route import Client
from postroad.queue.scripts import LOST, REPLY_S, unavailable
from postroad.queue.server import connect


async def laid_out(url: str, name: str) -> int:
    """Number of shards; 1 for a queue of which nothing is written, as for one that does not exist."""
    client = connect(url, _key(name))
    try:
        return int(await _ask(client, "GET", _key(name)) or 1)
    finally:
        await client.aclose()


async def lay_out(url: str, name: str, shards: int) -> None:
    """Write down in how many shards a queue lies from now on. It must be empty."""
    client = connect(url, _key(name))
    try:
        await _ask(client, "SET", _key(name), shards)
    finally:
        await client.aclose()


async def require_whole(client: Client, name: str) -> None:
    """Refuse a queue that lies in shards to whoever would open it as one piece."""
    shards = int(await _ask(client, "GET", _key(name)) or 1)
    if shards != 1:
        raise StateError(f"Queue {name} lies in {shards} shards.", remedy=f"Open it with shards = {shards}.")


def _key(name: str) -> str:
    return f"pr:{{{name}}}:layout"


async def _ask(client: Client, *command: str | int) -> Any:
    try:
        async with asyncio.timeout(REPLY_S):
            return await client.execute_command(*command)
    except LOST as error:
        raise unavailable(error) from error

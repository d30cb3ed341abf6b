"""Queues on servers that tests share."""

from __future__ import annotations

from postroad.queue.redis.client import connect


async def delete_queue(url: str, name: str) -> None:
    """Delete everything of a queue: its jobs, gates and letters would be those of a test that comes later."""
    client = connect(url)
    for key in await client.keys(f"pr:{{{name}}}:*"):
        await client.delete(key)
    await client.aclose()

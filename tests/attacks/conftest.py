"""Fixtures of the attacks: a queue, and by name the folders of other tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from postroad.queue import Queue
from postroad.queue.redis.client import connect
from tests.campaign.conftest import project
from tests.end_to_end.conftest import redis, site

__all__ = ["project", "redis", "site"]


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue.open(redis_url, "attacks") as queue:
        yield queue
    client = connect(redis_url)
    for key in await client.keys("pr:{attacks}:*"):
        await client.delete(key)
    await client.aclose()

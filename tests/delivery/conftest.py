"""Every test of delivery runs on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from postroad.queue import Queue
from postroad.queue.server import connect
from tests.postgresql import (
    database_url,
    empty_database_url,
    empty_postgresql_url,
    engine,
    own_postgresql,
    postgresql_engine,
    postgresql_server,
    postgresql_url,
    sqlite_template,
)

__all__ = [
    "database_url",
    "empty_database_url",
    "empty_postgresql_url",
    "engine",
    "own_postgresql",
    "postgresql_engine",
    "postgresql_server",
    "postgresql_url",
    "sqlite_template",
]


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue.open(redis_url, "delivery") as queue:
        yield queue
        assert await queue.audit() == []
    client = connect(redis_url)
    for key in await client.keys("pr:{delivery}:*"):
        await client.delete(key)
    await client.aclose()

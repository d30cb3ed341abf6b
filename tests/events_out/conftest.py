"""A queue `webhook:out` of each test, and a resolver."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from postroad.clock import SystemClock
from postroad.dns.resolver import Resolver
from postroad.queue import Queue, QueueOptions, RetryPolicy
from postroad.queue.redis.client import connect
from tests.dns.nameserver import Nameserver

RETRY = RetryPolicy(attempts=3, delays_ms=(20,))


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue.open(redis_url, "hooks", options=QueueOptions(retry=RETRY)) as queue:
        yield queue
        assert await queue.audit() == []
    client = connect(redis_url)
    for key in await client.keys("pr:{hooks}:*"):
        await client.delete(key)
    await client.aclose()


@pytest.fixture
async def nameserver() -> AsyncIterator[Nameserver]:
    async with Nameserver({}) as server:
        yield server


@pytest.fixture
async def resolver(nameserver: Nameserver) -> AsyncIterator[Resolver]:
    async with Resolver(nameserver.settings(), SystemClock()) as resolver:
        yield resolver

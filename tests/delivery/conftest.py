"""Every test of delivery runs on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from postroad.queue import Queue
from tests.delivery.direct_world import certificates, world  # noqa: F401
from tests.kit.queues import delete_queue
from tests.on_uvloop import pytest_asyncio_loop_factories  # noqa: F401


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue.open(redis_url, "delivery") as queue:
        yield queue
        assert await queue.audit() == []
    await delete_queue(redis_url, "delivery")

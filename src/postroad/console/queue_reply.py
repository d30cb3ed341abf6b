"""What the queue's server replies to a page. A server that does not reply is a problem on the page, not an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from postroad.errors import PostroadError

T = TypeVar("T")

QUEUE_WITHIN_S: Final = 5.0


async def queue_reply(question: Awaitable[T]) -> T | PostroadError:
    """Return the reply to a question to the queue, or the error that the page shows instead."""
    try:
        async with asyncio.timeout(QUEUE_WITHIN_S):
            return await question
    except PostroadError as error:
        return error
    except TimeoutError:
        return PostroadError(f"the queue's server did not reply within {QUEUE_WITHIN_S:g} s")

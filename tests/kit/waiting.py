"""Polling a condition until it is true."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(condition: Callable[[], Awaitable[T] | T], within_s: float = 20.0, poll_s: float = 0.005) -> T:
    """Poll a condition, and return its value once it is true. Raises TimeoutError after this time."""
    async with asyncio.timeout(within_s):
        while True:
            found = condition()
            value: T = await found if inspect.isawaitable(found) else found
            if value:
                return value
            await asyncio.sleep(poll_s)

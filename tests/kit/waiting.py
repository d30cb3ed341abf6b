"""Waits for what other tasks and processes do, of which no event tells."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

LIMIT_S = 20.0


async def until(look: Callable[[], T | Awaitable[T]], within_s: float = LIMIT_S, *, every_s: float = 0.005) -> T:
    """Look repeatedly, and return what is found once it is true. Raises TimeoutError after the limit."""
    async with asyncio.timeout(within_s):
        while True:
            found = look()
            seen: T = await found if inspect.isawaitable(found) else found
            if seen:
                return seen
            await asyncio.sleep(every_s)


def block_until(look: Callable[[], T], within_s: float = LIMIT_S, *, every_s: float = 0.05) -> T:
    """Look repeatedly in a test without an event loop, as `until` does."""
    deadline_s = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not true within {within_s:g} s")
        time.sleep(every_s)
    return found

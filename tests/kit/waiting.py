"""Waits for what other tasks and processes do, of which no event tells."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

LIMIT_S = 20.0


@overload
async def until(look: Callable[[], Awaitable[T]], within_s: float = ..., *, every_s: float = ...) -> T: ...
@overload
async def until(look: Callable[[], T], within_s: float = ..., *, every_s: float = ...) -> T: ...
async def until(look: Callable[[], Any], within_s: float = LIMIT_S, *, every_s: float = 0.005) -> Any:
    """Look repeatedly, and return what is found once it is true. Raises TimeoutError after the limit."""
    async with asyncio.timeout(within_s):
        while True:
            found = look()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(every_s)


def block_until(look: Callable[[], T], within_s: float = LIMIT_S, *, every_s: float = 0.05) -> T:
    """Look repeatedly in a test without an event loop, as `until` does."""
    deadline_s = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not true within {within_s:g} s")
        time.sleep(every_s)
    return found

"""Waits for what other tasks and processes do, of which no event tells."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

LIMIT_S = 20.0
# A look may cost a server a request: after seconds of waiting, ten looks a second are enough.
LONGEST_PAUSE_S = 0.1
PAUSE_OF_WAITED = 0.02


@overload
async def until(look: Callable[[], Awaitable[T]], within_s: float = ..., *, every_s: float = ...) -> T: ...
@overload
async def until(look: Callable[[], T], within_s: float = ..., *, every_s: float = ...) -> T: ...
async def until(look: Callable[[], Any], within_s: float = LIMIT_S, *, every_s: float = 0.005) -> Any:
    """Look repeatedly, less often the longer it takes, and return what is found once it is true.

    Raises TimeoutError after the limit.
    """
    began_s = time.monotonic()
    async with asyncio.timeout(within_s):
        while True:
            found = look()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            waited_s = time.monotonic() - began_s
            await asyncio.sleep(max(every_s, min(waited_s * PAUSE_OF_WAITED, LONGEST_PAUSE_S)))


def block_until(look: Callable[[], T], within_s: float = LIMIT_S, *, every_s: float = 0.05) -> T:
    """Look repeatedly in a test without an event loop, as `until` does."""
    deadline_s = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not true within {within_s:g} s")
        time.sleep(every_s)
    return found

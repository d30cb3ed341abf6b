"""Waiting for what other processes do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T]], within_s: float) -> T:
    """Look again and again, and return what is seen once it is true; raise TimeoutError after this time."""
    async with asyncio.timeout(within_s):
        # What another process does sets no event here.
        while not (seen := await look()):
            await asyncio.sleep(0.1)
        return seen

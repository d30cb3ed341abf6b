"""Commands that work with the parts: settings, database, queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from postroad.parts import Parts, open_parts

T = TypeVar("T")


def with_parts(work: Callable[[Parts], Awaitable[T]]) -> T:
    """Open the parts, do the work, close them, and return what the work returned."""

    async def main() -> T:
        async with open_parts() as parts:
            return await work(parts)

    return asyncio.run(main())

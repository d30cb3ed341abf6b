"""Commands that work with the context: settings, database, queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from postroad.app.context import AppContext, open_context

T = TypeVar("T")


def with_context(work: Callable[[AppContext], Awaitable[T]]) -> T:
    """Open the parts, do the work, close them, and return what the work returned."""

    async def main() -> T:
        async with open_context() as context:
            return await work(context)

    return asyncio.run(main())

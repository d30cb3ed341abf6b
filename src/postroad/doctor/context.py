"""What several checks need, opened once and by whichever comes first: the database, the queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import sqlalchemy as sa

from postroad.app.context import AppContext, database_url, open_context, ready_engine, redis_url
from postroad.queue import Queue
from postroad.settings import Settings
from postroad.store.engine import open_engine

T = TypeVar("T")


class DoctorContext:
    """The settings, and what is opened when a check asks for it. A failure to open it fails each check that asks."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self.settings = settings
        self._stack = stack
        self._opening: dict[str, asyncio.Task[Any]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[DoctorContext]:
        """Open nothing yet."""
        async with AsyncExitStack() as stack:
            context = cls(settings, stack)
            try:
                yield context
            finally:
                for task in context._opening.values():
                    task.cancel()
                await asyncio.gather(*context._opening.values(), return_exceptions=True)

    async def database(self) -> sa.Engine:
        """Return an engine on a database that answers and has this version's schema. Raises as `ready_engine`."""
        return await self._once("database", self._open_database)

    async def queue(self, name: str) -> Queue:
        """Return a queue; it does not need the database. Raises UnavailableError, StateError."""

        async def opened() -> Queue:
            return await (await self.parts()).queue(name)

        return await self._once(f"queue {name}", opened)

    async def redis_url(self) -> str:
        """Return the address of the queue's server. Raises UnavailableError."""
        return await self._once("redis", lambda: asyncio.to_thread(redis_url, self.settings))

    async def parts(self) -> AppContext:
        """Return the parts on a database that nobody looked at yet: see `database`."""
        return await self._once("parts", self._open_context)

    async def _open_database(self) -> sa.Engine:
        engine = await asyncio.to_thread(ready_engine, self.settings)
        self._stack.callback(engine.dispose)
        return engine

    async def _open_context(self) -> AppContext:
        engine = open_engine(database_url(self.settings))
        return await self._stack.enter_async_context(open_context(self.settings, engine=engine))

    async def _once(self, name: str, open_: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if name not in self._opening:
            self._opening[name] = asyncio.create_task(open_())
        # Shielded: a check that runs out of time leaves it to the others.
        return await asyncio.shield(self._opening[name])

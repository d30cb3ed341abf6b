"""Opens the database and the queues once for all checks."""

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
    """The settings, and resources that are opened on demand. If opening fails, each check that needs it fails."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self.settings = settings
        self._stack = stack
        self._opening: dict[str, asyncio.Task[Any]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[DoctorContext]:
        """Return the context. Resources are opened later, and closed at the end."""
        async with AsyncExitStack() as stack:
            context = cls(settings, stack)
            try:
                yield context
            finally:
                for task in context._opening.values():
                    task.cancel()
                await asyncio.gather(*context._opening.values(), return_exceptions=True)

    async def database(self) -> sa.Engine:
        """Return an engine of the database, after a check of its schema. Raises the errors of `ready_engine`."""
        return await self._once("database", self._open_database)

    async def queue(self, name: str) -> Queue:
        """Return a queue, which does not need the database. Raise UnavailableError or StateError if that fails."""

        async def opened() -> Queue:
            return await (await self.app()).queue(name)

        return await self._once(f"queue {name}", opened)

    async def redis_url(self) -> str:
        """Return the URL of the queue's server. Raise UnavailableError if the embedded server does not start."""
        return await self._once("redis", lambda: asyncio.to_thread(redis_url, self.settings))

    async def app(self) -> AppContext:
        """Return the application's context, whose database is not checked: see `database`."""
        return await self._once("app", self._open_app)

    async def _open_database(self) -> sa.Engine:
        engine = await asyncio.to_thread(ready_engine, self.settings)
        self._stack.callback(engine.dispose)
        return engine

    async def _open_app(self) -> AppContext:
        engine = open_engine(database_url(self.settings))
        return await self._stack.enter_async_context(open_context(self.settings, engine=engine))

    async def _once(self, name: str, open_: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if name not in self._opening:
            self._opening[name] = asyncio.create_task(open_())
        # Shielded, so that the timeout of one check does not cancel it for the others.
        return await asyncio.shield(self._opening[name])

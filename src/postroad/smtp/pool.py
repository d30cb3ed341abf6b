"""Sessions of one endpoint, opened when needed, used again while warm, never more than it allows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from postroad.smtp.endpoint import Endpoint
from postroad.smtp.reply import Phase, Reply
from postroad.smtp.session import Sendable, Session, Timeouts, TransportError

IDLE_SECONDS = 30.0


class _Permits(asyncio.LifoQueue[tuple[Session, float] | None]):
    """As many as connections are allowed: each an open session, idle since then, or the right to open one.

    What was used last is used first, so that the others go cold; a new one is opened when none is warm.
    """

    def _put(self, item: tuple[Session, float] | None) -> None:
        if item is None:
            self._queue.insert(0, item)
        else:
            self._queue.append(item)

    _queue: list[tuple[Session, float] | None]

    @property
    def warm(self) -> bool:
        return any(permit is not None for permit in self._queue)

    def take_cold(self, since_before: float) -> list[Session]:
        """Take out the sessions that are idle since before an instant, or were lost meanwhile."""
        permits = [permit for permit in self._queue if permit is not None]
        cold = [permit for permit in permits if permit[1] < since_before or not permit[0].usable]
        self._queue[:] = [permit for permit in self._queue if permit not in cold]
        return [session for session, _ in cold]


class SessionPool:
    """Sends messages to one endpoint over a bounded number of sessions."""

    def __init__(
        self, endpoint: Endpoint, timeouts: Timeouts | None = None, *, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._endpoint = endpoint
        self._timeouts = timeouts or Timeouts()
        self._idle_seconds = idle_seconds
        self._permits = _Permits()
        for _ in range(endpoint.connections):
            self._permits.put_nowait(None)
        self._farewells: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while not self._permits.empty():
            permit = self._permits.get_nowait()
            if permit is not None:
                self._farewell(permit[0])
        if self._farewells:
            await asyncio.wait(self._farewells, timeout=3)

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way and no connection is open."""
        return self._permits.qsize() == self._endpoint.connections and not self._permits.warm

    def close_idle(self) -> None:
        """Say goodbye on what has been idle for too long."""
        for session in self._permits.take_cold(time.monotonic() - self._idle_seconds):
            self._farewell(session)

    async def send(self, message: Sendable, before_body: Callable[[], Awaitable[None]]) -> Reply:
        """One transaction on some session. See Session.send."""
        permit = await self._permits.get()
        session: Session | None = None
        try:
            session = await self._warm(permit)
            if session is not None:
                try:
                    reply = await session.send(message, before_body)
                except TransportError as error:
                    if error.phase is not Phase.MAIL:
                        raise
                else:
                    if reply.phase is not Phase.MAIL or reply.code != 421:
                        return reply
                # The server had done with a connection that we took to be warm. Nothing was refused yet.
                session.abort()
            session = None
            session = await Session.open(self._endpoint, self._timeouts)
            return await session.send(message, before_body)
        finally:
            self._give_back(session)

    async def _warm(self, permit: tuple[Session, float] | None) -> Session | None:
        if permit is None:
            return None
        session, since = permit
        if session.usable and time.monotonic() - since < self._idle_seconds:
            return session
        await session.close()
        return None

    def _give_back(self, session: Session | None) -> None:
        if session is None:
            self._permits.put_nowait(None)
        elif session.usable and session.transactions < self._endpoint.messages_per_connection:
            self._permits.put_nowait((session, time.monotonic()))
        else:
            self._farewell(session)

    def _farewell(self, session: Session) -> None:
        # QUIT may hang; the replies that matter are ours already, so nobody waits for it. But a connection counts
        # until it is closed: the server goes by that, too.
        task = asyncio.create_task(session.close())
        self._farewells.add(task)
        task.add_done_callback(self._part)

    def _part(self, task: asyncio.Task[None]) -> None:
        self._farewells.discard(task)
        self._permits.put_nowait(None)

"""Sessions of one route, opened when needed, used again while warm, never more than the route allows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from postroad.mail.message import Message
from postroad.settings import RouteSettings
from postroad.smtp.reply import Phase, Reply
from postroad.smtp.session import Session, Timeouts, TransportError

IDLE_SECONDS = 30.0


class SessionPool:
    """Sends messages by one route over a bounded number of sessions."""

    def __init__(self, route: RouteSettings, timeouts: Timeouts | None = None) -> None:
        self._route = route
        self._timeouts = timeouts or Timeouts()
        self._slots = asyncio.Semaphore(route.connections)
        self._idle: list[tuple[Session, float]] = []
        self._farewells: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session, _ in self._idle:
            self._farewell(session)
        self._idle.clear()
        if self._farewells:
            await asyncio.wait(self._farewells, timeout=3)

    async def send(self, message: Message, before_body: Callable[[], Awaitable[None]]) -> Reply:
        """One transaction on some session. See Session.send."""
        async with self._slots:
            session = self._warm()
            if session is not None:
                try:
                    reply = await self._send(session, message, before_body)
                except TransportError as error:
                    if error.phase is not Phase.MAIL:
                        raise
                else:
                    if reply.phase is not Phase.MAIL or reply.code != 421:
                        return reply
                # The server had done with a connection that we took to be warm. Nothing was refused yet.
            return await self._send(await Session.open(self._route, self._timeouts), message, before_body)

    async def _send(self, session: Session, message: Message, before_body: Callable[[], Awaitable[None]]) -> Reply:
        reply = await session.send(message, before_body)
        # After a 421 the server closes (RFC 5321 §3.8).
        if reply.code == 421 or session.transactions >= self._route.messages_per_connection:
            self._farewell(session)
        elif session.usable:
            self._idle.append((session, time.monotonic()))
        return reply

    def _warm(self) -> Session | None:
        while self._idle:
            session, since = self._idle.pop()
            if session.usable and time.monotonic() - since < IDLE_SECONDS:
                return session
            self._farewell(session)
        return None

    def _farewell(self, session: Session) -> None:
        # QUIT may hang after a 421; the replies that matter are ours already, so nobody waits for it.
        task = asyncio.create_task(session.close())
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

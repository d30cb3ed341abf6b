"""Sessions of one endpoint, opened when needed, used again while warm, never more than it allows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from postroad.smtp.endpoint import Endpoint
from postroad.smtp.permits import ConnectionSlot, ConnectionSlots
from postroad.smtp.reply import Phase, Reply
from postroad.smtp.session import Sendable, SmtpSession, Timeouts, Transaction, TransportError, UnsendableError

log = logging.getLogger(__name__)

IDLE_SECONDS = 30.0


class SessionPool:
    """Sends messages to one endpoint over a bounded number of sessions.

    While messages wait, a session goes from one to the next when a body leaves: the commands of the next go behind it.
    """

    def __init__(
        self, endpoint: Endpoint, timeouts: Timeouts | None = None, *, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._endpoint = endpoint
        self._timeouts = timeouts or Timeouts()
        self._idle_seconds = idle_seconds
        self._permits = ConnectionSlots(endpoint.connections)
        self._farewells: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._permits.take_warm():
            self._farewell(session)
        if self._farewells:
            await asyncio.wait(self._farewells, timeout=3)

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way and no connection is open."""
        return len(self._permits) == self._endpoint.connections and not self._permits.warm

    def close_idle(self) -> None:
        """Say goodbye on what has been idle for too long."""
        for session in self._permits.take_warm(time.monotonic() - self._idle_seconds):
            self._farewell(session)

    async def send(self, message: Sendable, before_body: Callable[[], Awaitable[None]]) -> Reply:
        """One transaction on some session. See Session.carry. Raises UnsendableError as well."""
        try:
            return await self._send(message, before_body)
        except TransportError as error:
            if error.late_s is not None:
                log.warning(
                    "%s is cut off at %s after %g s: %s", self._endpoint.name, error.phase, error.late_s, error.reason
                )
            raise

    async def _send(self, message: Sendable, before_body: Callable[[], Awaitable[None]]) -> Reply:
        session, _, transaction = permit = await self._permit(message)
        try:
            if transaction is None:
                session = await self._warm(permit)
            if session is not None:
                try:
                    transaction = transaction or session.prepare(message)
                    reply = await session.carry(transaction, before_body, self._follow)
                except TransportError as error:
                    if error.phase is not Phase.MAIL:
                        raise
                else:
                    if reply.phase is not Phase.MAIL or reply.code != 421:
                        return reply
                # The server had done with a connection that we took to be warm. Nothing was refused yet.
                session.abort()
            session = transaction = None
            session = await SmtpSession.open(self._endpoint, self._timeouts)
            transaction = session.prepare(message)
            return await session.carry(transaction, before_body, self._follow)
        finally:
            if transaction is None or not transaction.followed:
                self._give_back(session)

    async def _permit(self, message: Sendable) -> ConnectionSlot:
        asked = self._permits.ask(message)
        try:
            return await asked
        except asyncio.CancelledError:
            if not asked.cancelled():
                session, _, transaction = asked.result()
                if session is not None and transaction is not None:
                    session.forsake(transaction)
                self._give_back(session)
            raise

    def _follow(self, session: SmtpSession) -> Transaction | None:
        """Hand a session over to the message that waits longest, whose commands then go behind a final dot.

        It hears so when they are answered: before that there is nothing that it could do.
        """
        message = self._permits.first_in_line
        if message is None or session.transactions >= self._endpoint.messages_per_connection:
            return None
        try:
            transaction = session.prepare(message)
        except UnsendableError:
            return None  # It hears so when it has a session to itself.
        asked = self._permits.take_first()

        def opened() -> None:
            if asked.done():  # cancelled meanwhile
                session.forsake(transaction)
                self._give_back(session)
            else:
                asked.set_result(ConnectionSlot(session, time.monotonic(), transaction))

        transaction.opened = opened
        return transaction

    async def _warm(self, permit: ConnectionSlot) -> SmtpSession | None:
        session = permit.session
        if session is None:
            return None
        if session.usable and time.monotonic() - permit.since_s < self._idle_seconds:
            return session
        await session.close()
        return None

    def _give_back(self, session: SmtpSession | None) -> None:
        if session is None:
            self._permits.put(ConnectionSlot())
        elif session.usable and session.transactions < self._endpoint.messages_per_connection:
            self._permits.put(ConnectionSlot(session, time.monotonic()))
        else:
            self._farewell(session)

    def _farewell(self, session: SmtpSession) -> None:
        # QUIT may hang; the replies that matter are ours already, so nobody waits for it. But a connection counts
        # until it is closed: the server goes by that, too.
        task = asyncio.create_task(session.close())
        self._farewells.add(task)
        task.add_done_callback(self._part)

    def _part(self, task: asyncio.Task[None]) -> None:
        self._farewells.discard(task)
        self._permits.put(ConnectionSlot())

"""A pool of sessions to one endpoint: opens them on demand, reuses idle ones, bounds their number."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from postroad.smtp.endpoint import Endpoint
from postroad.smtp.errors import Timeouts, TransportError, UnsendableError
from postroad.smtp.reply import Phase, Reply
from postroad.smtp.session import Sendable, SmtpSession, Transaction
from postroad.smtp.slots import ConnectionSlot, ConnectionSlots

log = logging.getLogger(__name__)

IDLE_SECONDS = 30.0
_CLOSE_GRACE_S = 3


class SessionPool:
    """Sends messages to one endpoint over a bounded number of sessions.

    While messages wait for a session, the commands of the next one are pipelined after the body of the current one.
    """

    def __init__(
        self, endpoint: Endpoint, timeouts: Timeouts | None = None, *, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._endpoint = endpoint
        self._timeouts = timeouts or Timeouts()
        self._idle_seconds = idle_seconds
        self._slots = ConnectionSlots(endpoint.connections)
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._slots.take_idle():
            self._quit(session)
        if self._closing:
            await asyncio.wait(self._closing, timeout=_CLOSE_GRACE_S)

    @property
    def idle(self) -> bool:
        """Whether no message is in progress and no connection is open."""
        return len(self._slots) == self._endpoint.connections and not self._slots.has_idle_session

    def close_idle(self) -> None:
        """Close the sessions that have been idle for too long."""
        for session in self._slots.take_idle(time.monotonic() - self._idle_seconds):
            self._quit(session)

    async def send(self, message: Sendable, before_body: Callable[[], Awaitable[None]]) -> Reply:
        """Send a message over some session.

        Args:
            message: Envelope and content.
            before_body: Awaited just before the body is written. See `SmtpSession.deliver`.

        Returns:
            The reply that decided the transaction.

        Raises:
            TransportError: No session could be opened, or it was lost.
            UnsendableError: The server cannot carry this message.
        """
        try:
            return await self._send(message, before_body)
        except TransportError as error:
            if error.late_s is not None:
                log.warning(
                    "%s timed out at %s after %g s: %s", self._endpoint.name, error.phase, error.late_s, error.reason
                )
            raise

    async def _send(self, message: Sendable, before_body: Callable[[], Awaitable[None]]) -> Reply:
        session, _, transaction = slot = await self._acquire(message)
        try:
            if transaction is None:
                session = await self._reusable(slot)
            if session is not None:
                try:
                    transaction = transaction or session.prepare(message)
                    reply = await session.deliver(transaction, before_body, self._pipeline_next)
                except TransportError as error:
                    if error.phase is not Phase.MAIL:
                        raise
                else:
                    if reply.phase is not Phase.MAIL or reply.code != 421:
                        return reply
                # The server had already ended this idle connection. The message was not rejected: open a new session.
                session.abort()
            session = transaction = None
            session = await SmtpSession.open(self._endpoint, self._timeouts)
            transaction = session.prepare(message)
            return await session.deliver(transaction, before_body, self._pipeline_next)
        finally:
            if transaction is None or not transaction.has_successor:
                self._release(session)

    async def _acquire(self, message: Sendable) -> ConnectionSlot:
        future = self._slots.acquire(message)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled():
                session, _, transaction = future.result()
                if session is not None and transaction is not None:
                    session.abandon(transaction)
                self._release(session)
            raise

    def _pipeline_next(self, session: SmtpSession) -> Transaction | None:
        """Assign a session to the longest waiting message, whose commands are sent after the current final dot.

        The message's future gets the slot when these commands are answered.

        Returns:
            The transaction of that message. None if no message waits or this session must not carry another one.
        """
        message = self._slots.next_waiting
        if message is None or session.transactions >= self._endpoint.messages_per_connection:
            return None
        try:
            transaction = session.prepare(message)
        except UnsendableError:
            return None  # It is raised again, to the message's sender, when the message has a session of its own.
        future = self._slots.pop_waiting()

        def answered() -> None:
            if future.done():  # cancelled meanwhile
                session.abandon(transaction)
                self._release(session)
            else:
                future.set_result(ConnectionSlot(session, time.monotonic(), transaction))

        transaction.on_answered = answered
        return transaction

    async def _reusable(self, slot: ConnectionSlot) -> SmtpSession | None:
        session = slot.session
        if session is None:
            return None
        if session.usable and time.monotonic() - slot.since_s < self._idle_seconds:
            return session
        await session.close()
        return None

    def _release(self, session: SmtpSession | None) -> None:
        if session is None:
            self._slots.release(ConnectionSlot())
        elif session.usable and session.transactions < self._endpoint.messages_per_connection:
            self._slots.release(ConnectionSlot(session, time.monotonic()))
        else:
            self._quit(session)

    def _quit(self, session: SmtpSession) -> None:
        # QUIT may hang, and the replies that matter are here already: do not wait. But the slot stays taken until the
        # connection is closed, because the server counts it until then.
        task = asyncio.create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        self._slots.release(ConnectionSlot())

"""Connection slots of a pool: how many connections may be open, and the messages that wait for one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from postroad.smtp.session import Sendable, SmtpSession, Transaction


class ConnectionSlot(NamedTuple):
    """An open session, or the right to open one.

    Attributes:
        session: The open session. None: the holder may open one.
        since_s: Time since which the session is idle, by the monotonic clock.
        transaction: The transaction of the waiting message, if its commands were already sent after another
            message's final dot and are answered.
    """

    session: SmtpSession | None = None
    since_s: float = 0.0
    transaction: Transaction | None = None


class ConnectionSlots:
    """A fixed number of slots. Messages are served in the order in which they arrived.

    Sessions are reused in LIFO order, so that surplus sessions time out. A session is opened when none is idle.
    """

    def __init__(self, count: int) -> None:
        self._free = deque([ConnectionSlot()] * count)
        self._waiting: deque[tuple[Sendable, asyncio.Future[ConnectionSlot]]] = deque()

    def __len__(self) -> int:
        """Return the number of free slots."""
        return len(self._free)

    @property
    def has_idle_session(self) -> bool:
        return any(slot.session is not None for slot in self._free)

    @property
    def next_waiting(self) -> Sendable | None:
        """The message that gets the next slot."""
        while self._waiting and self._waiting[0][1].done():  # cancelled
            self._waiting.popleft()
        return self._waiting[0][0] if self._waiting else None

    def acquire(self, message: Sendable) -> asyncio.Future[ConnectionSlot]:
        """Return a future of a slot. A caller that is cancelled after the future got its slot must release it."""
        future: asyncio.Future[ConnectionSlot] = asyncio.get_running_loop().create_future()
        if self._free:
            future.set_result(self._free.pop())
        else:
            self._waiting.append((message, future))
        return future

    def pop_waiting(self) -> asyncio.Future[ConnectionSlot]:
        """Remove `next_waiting` from the queue and return its future. The caller must set the slot."""
        return self._waiting.popleft()[1]

    def release(self, slot: ConnectionSlot) -> None:
        if self.next_waiting is not None:
            self._waiting.popleft()[1].set_result(slot)
        elif slot.session is None:
            self._free.appendleft(slot)
        else:
            self._free.append(slot)

    def take_idle(self, since_before_s: float = float("inf")) -> Sequence[SmtpSession]:
        """Remove and return the sessions that became idle before a time, or that were lost.

        Args:
            since_before_s: Time by the monotonic clock. By default all idle sessions are taken.

        Returns:
            The sessions. The caller must close them and release one slot for each.
        """
        taken: list[SmtpSession] = []
        kept: deque[ConnectionSlot] = deque()
        for slot in self._free:
            if slot.session is not None and (slot.since_s < since_before_s or not slot.session.usable):
                taken.append(slot.session)
            else:
                kept.append(slot)
        self._free = kept
        return taken

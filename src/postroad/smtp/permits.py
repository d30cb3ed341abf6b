"""The right to a connection, and the messages that wait for one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from postroad.smtp.session import Sendable, SmtpSession, Transaction


class ConnectionSlot(NamedTuple):
    """An open session, idle since an instant of the monotonic clock, or (None) the right to open one.

    ``transaction``: that of the message that waited, when its commands have left behind another's final dot, and are
    answered.
    """

    session: SmtpSession | None = None
    since_s: float = 0.0
    transaction: Transaction | None = None


class ConnectionSlots:
    """As many as connections are allowed. Messages are served in the order in which they came.

    What was used last is used first, so that the others go cold; a new one is opened when none is warm.
    """

    def __init__(self, count: int) -> None:
        self._free = deque([ConnectionSlot()] * count)
        self._line: deque[tuple[Sendable, asyncio.Future[ConnectionSlot]]] = deque()

    def __len__(self) -> int:
        """How many are free."""
        return len(self._free)

    @property
    def warm(self) -> bool:
        return any(permit.session is not None for permit in self._free)

    @property
    def first_in_line(self) -> Sendable | None:
        """The message that gets the next permit."""
        while self._line and self._line[0][1].done():  # cancelled
            self._line.popleft()
        return self._line[0][0] if self._line else None

    def ask(self, message: Sendable) -> asyncio.Future[ConnectionSlot]:
        """Return the permit of a message, as a future. Who was cancelled may have it nevertheless, and puts it back."""
        future: asyncio.Future[ConnectionSlot] = asyncio.get_running_loop().create_future()
        if self._free:
            future.set_result(self._free.pop())
        else:
            self._line.append((message, future))
        return future

    def take_first(self) -> asyncio.Future[ConnectionSlot]:
        """Take the first in line out of the line: whoever does gives it its permit."""
        return self._line.popleft()[1]

    def put(self, permit: ConnectionSlot) -> None:
        if self.first_in_line is not None:
            self._line.popleft()[1].set_result(permit)
        elif permit.session is None:
            self._free.appendleft(permit)
        else:
            self._free.append(permit)

    def take_warm(self, since_before_s: float = float("inf")) -> Sequence[SmtpSession]:
        """Take out the sessions that are idle since before an instant, or were lost meanwhile."""
        taken: list[SmtpSession] = []
        kept: deque[ConnectionSlot] = deque()
        for permit in self._free:
            if permit.session is not None and (permit.since_s < since_before_s or not permit.session.usable):
                taken.append(permit.session)
            else:
                kept.append(permit)
        self._free = kept
        return taken

"""The protocol of a session: parses replies and assigns each one to its command."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache

MAX_REPLY_OCTETS = 32_768
MAX_LINE_OCTETS = 8_192
"""RFC 5321 §4.5.3.1.5 allows 512. Some servers send longer lines."""
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)  # RFC 5321 §4.2
_CLOSING = 421  # RFC 5321 §3.8: no more replies follow

ReplyLines = tuple[int, tuple[str, ...]]
"""The code of a reply, and the text of each line after the code."""


class PendingReplies:
    """The replies to the commands of one write: those received so far, and why the others are missing.

    Attributes:
        timeouts_s: Timeout of each expected reply, in seconds.
        within_s: Timeout of all replies together, in seconds.
        until_s: Deadline of the last reply by the loop's clock, set once the first one is awaited.
        replies: The replies received so far.
        late_s: The timeout that expired, in seconds.
        lost: Why the connection was lost.
        done: Whether all replies are here, or no more will come: after a 421, a timeout, or a lost connection.
    """

    __slots__ = ("_future", "_on_done", "done", "late_s", "lost", "replies", "timeouts_s", "until_s", "within_s")

    def __init__(self, timeouts_s: Sequence[float], on_done: Callable[[], None] | None, within_s: float) -> None:
        self.timeouts_s = timeouts_s
        self.within_s = within_s
        self.until_s = float("inf")
        self.replies: list[ReplyLines] = []
        self.late_s: float | None = None
        self.lost: str | None = None
        self.done = False
        self._on_done = on_done
        self._future: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Return when done. Several tasks may wait, and each may be cancelled."""
        if not self.done:
            if self._future is None or self._future.cancelled():
                self._future = asyncio.get_running_loop().create_future()
            await self._future

    def end(self) -> None:
        """Stop waiting for replies, and wake up the waiting tasks."""
        if self.done:
            return
        self.done = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
        if self._on_done is not None:
            self._on_done()


class SmtpProtocol(asyncio.Protocol):
    """Assigns replies to commands in order (RFC 2920 §3.1), with a timeout for each reply.

    The timeout of a reply starts when the previous reply is complete, because a server processes one command after
    the other. It covers the whole reply with all its lines: receiving a part does not extend it.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.lost: str | None = None  # why the connection was lost
        self._loop = asyncio.get_running_loop()
        self._rest = b""  # the beginning of an incomplete line
        self._lines: list[str] = []  # of an incomplete multiline reply
        self._code = 0  # of that reply
        self._octets = 0  # of that reply
        self._waiting: deque[PendingReplies] = deque()
        # One timer for all replies. If the next reply still has time when it fires, it is set again.
        self._due_s = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def expect(
        self, timeouts_s: Sequence[float], on_done: Callable[[], None] | None = None, *, within_s: float = float("inf")
    ) -> PendingReplies:
        """Expect replies to the commands that are written next.

        Args:
            timeouts_s: Timeout of each reply, in seconds: one item for each command.
            on_done: Called when the replies are done.
            within_s: Timeout of all replies together, in seconds.

        Returns:
            The replies, to be awaited with `PendingReplies.wait`.
        """
        pending = PendingReplies(timeouts_s, on_done, within_s)
        if self.lost is not None:
            pending.lost = self.lost
            pending.end()
        else:
            self._waiting.append(pending)
            if len(self._waiting) == 1:
                self._set_deadline()
        return pending

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        completed = False
        for line in lines:
            if self.lost is None and self._add_line(line.rstrip(b"\r")):
                completed = True
        if len(self._rest) > MAX_LINE_OCTETS or len(self._rest) + self._octets > MAX_REPLY_OCTETS:
            self._fail("the server's reply is too long")
        elif completed and self._waiting:
            self._set_deadline()

    def _add_line(self, line: bytes) -> bool:
        """Process a line. Return whether it completes an expected reply."""
        parsed = _parse_line(line) if len(line) <= MAX_LINE_OCTETS else None
        if parsed is None:
            self._fail(f"the server does not speak SMTP: {line[:80].decode('utf-8', 'replace')!r}")
            return False
        code, more, text = parsed
        if more or self._lines:
            if self._lines and code != self._code:  # RFC 5321 §4.2.1
                self._fail(f"the lines of the server's reply have different codes: {self._code} and {code}")
                return False
            self._lines.append(text)
            if more:
                self._code = code
                self._octets += len(line) + 2
                return False
            lines, self._lines, self._octets = tuple(self._lines), [], 0
        else:
            lines = (text,)
        if not self._waiting:
            # No command awaits a reply: the server ends the session (RFC 5321 §3.8) or is out of step. Either way,
            # later replies could be assigned to the wrong command.
            self._fail(f"the server sent a reply to no command: {' '.join([str(code), *lines])[:200]}")
            return False
        pending = self._waiting[0]
        pending.replies.append((code, lines))
        complete = len(pending.replies) == len(pending.timeouts_s)
        if complete:
            self._waiting.popleft()
        if complete or code == _CLOSING:
            pending.end()
        return True

    def _set_deadline(self) -> None:
        """Set the deadline of the next reply."""
        pending, now_s = self._waiting[0], self._loop.time()
        if not pending.replies:
            pending.until_s = now_s + pending.within_s
        self._due_s = min(now_s + pending.timeouts_s[len(pending.replies)], pending.until_s)
        if self._timer is None or self._timer.when() > self._due_s:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due_s, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if self._loop.time() < self._due_s:
            self._set_timer()
            return
        first = self._waiting[0]
        first.late_s = min(first.timeouts_s[len(first.replies)], first.within_s)
        first.end()

    def _fail(self, reason: str) -> None:
        self.transport.abort()
        self._lose(reason)

    def eof_received(self) -> None:
        self._lose("the server closed the connection")

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(str(error) if error else "the connection was closed")

    def _lose(self, reason: str) -> None:
        self.lost = self.lost or reason
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            pending = self._waiting.popleft()
            pending.lost = self.lost
            pending.end()


@lru_cache(maxsize=64)
def _parse_line(line: bytes) -> tuple[int, bool, str] | None:
    """Return code, whether more lines follow, and text. None: not a line of a reply. Cached, as most lines repeat."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    return int(match[1]), match[2] == b"-", (match[3] or b"").decode("utf-8", "replace")

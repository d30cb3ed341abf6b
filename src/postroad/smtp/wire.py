"""The receiving end of a connection: octets become replies, and each goes to the command that it answers."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache

MAX_REPLY_OCTETS = 32_768
MAX_LINE_OCTETS = 8_192
"""RFC 5321 §4.5.3.1.5 allows 512; some servers write longer lines."""
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)  # RFC 5321 §4.2
_CLOSING = 421  # RFC 5321 §3.8: whoever says so answers nothing more

Lines = tuple[int, tuple[str, ...]]
"""A reply's code, and what its lines say behind it."""


class PendingReplies:
    """The replies to what left in one write: those that came, and why the others will not.

    ``done``: no more is to be waited for, because all are here, one says that the server closes, one took too long
    (``late_s``: how long it had), or the connection is lost (``lost``: why). ``within_s``: for all replies together.
    """

    __slots__ = ("_future", "_then", "done", "late_s", "lost", "replies", "seconds", "until_s", "within_s")

    def __init__(self, seconds: Sequence[float], then: Callable[[], None] | None, within_s: float) -> None:
        self.seconds = seconds
        self.within_s = within_s
        self.until_s = float("inf")  # deadline of the last reply, by the loop's clock, once the first is awaited
        self.replies: list[Lines] = []
        self.late_s: float | None = None
        self.lost: str | None = None
        self.done = False
        self._then = then
        self._future: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Return when done. Any number may wait, one of them may be cancelled."""
        if not self.done:
            if self._future is None or self._future.cancelled():
                self._future = asyncio.get_running_loop().create_future()
            await self._future

    def end(self) -> None:
        """There is nothing more to wait for."""
        if self.done:
            return
        self.done = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
        if self._then is not None:
            self._then()


class SmtpProtocol(asyncio.Protocol):
    """Pairs replies with the commands that they answer, in order (RFC 2920 §3.1), and sets each a deadline.

    The time of a reply begins when the one before it is complete: a server works on one command after the other.
    It is the time of the whole reply, all its lines included; a part of a reply does not extend it.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.lost: str | None = None  # why nothing more can be said or heard
        self._loop = asyncio.get_running_loop()
        self._rest = b""  # of a line whose end has not come
        self._lines: list[str] = []
        self._code = 0  # of the lines so far of a reply of many
        self._octets = 0
        self._waiting: deque[PendingReplies] = deque()
        # One timer for all replies: it looks again when it finds that the next one has time left.
        self._due_s = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def expect(
        self, seconds: Sequence[float], then: Callable[[], None] | None = None, *, within_s: float = float("inf")
    ) -> PendingReplies:
        """Expect a reply for each of these times that it may take, and all of them within so many seconds.

        ``then`` is called when all is over.
        """
        answers = PendingReplies(seconds, then, within_s)
        if self.lost is not None:
            answers.lost = self.lost
            answers.end()
        else:
            self._waiting.append(answers)
            if len(self._waiting) == 1:
                self._set_deadline()
        return answers

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        completed = False
        for line in lines:
            if self.lost is None and self._line(line.rstrip(b"\r")):
                completed = True
        if len(self._rest) > MAX_LINE_OCTETS or len(self._rest) + self._octets > MAX_REPLY_OCTETS:
            self._fail("the server's reply has no end")
        elif completed and self._waiting:
            self._set_deadline()

    def _line(self, line: bytes) -> bool:
        """Whether the line completes a reply that was expected."""
        read = _read_line(line) if len(line) <= MAX_LINE_OCTETS else None
        if read is None:
            self._fail(f"the server does not speak SMTP: {line[:80].decode('utf-8', 'replace')!r}")
            return False
        code, more, text = read
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
            # Nobody asked: a farewell (RFC 5321 §3.8), or a server that has lost count. Either way the next reply
            # might be taken for the answer to something else.
            self._fail(f"the server spoke unasked: {' '.join([str(code), *lines])[:200]}")
            return False
        answers = self._waiting[0]
        answers.replies.append((code, lines))
        whole = len(answers.replies) == len(answers.seconds)
        if whole:
            self._waiting.popleft()
        if whole or code == _CLOSING:
            answers.end()
        return True

    def _set_deadline(self) -> None:
        """Set the deadline of the reply that is awaited next."""
        awaited, now_s = self._waiting[0], self._loop.time()
        if not awaited.replies:
            awaited.until_s = now_s + awaited.within_s
        self._due_s = min(now_s + awaited.seconds[len(awaited.replies)], awaited.until_s)
        if self._timer is None or self._timer.when() > self._due_s:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if self._loop.time() < self._due_s:
            self._set_timer()
            return
        first = self._waiting[0]
        first.late_s = min(first.seconds[len(first.replies)], first.within_s)
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
            answers = self._waiting.popleft()
            answers.lost = self.lost
            answers.end()


@lru_cache(maxsize=64)
def _read_line(line: bytes) -> tuple[int, bool, str] | None:
    """Code, whether lines follow, and text; None: no line of a reply. Most are the same all day."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    return int(match[1]), match[2] == b"-", (match[3] or b"").decode("utf-8", "replace")

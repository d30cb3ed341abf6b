"""The receiving end of a connection: octets become replies, and each goes to the command that it answers."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache

MAX_REPLY_OCTETS = 32_768
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)  # RFC 5321 §4.2
_CLOSING = 421  # RFC 5321 §3.8: whoever says so answers nothing more

Lines = tuple[int, tuple[str, ...]]
"""A reply's code, and what its lines say behind it."""


class Answers:
    """The replies to what left in one write: those that came, and why the others will not.

    ``done``: no more is to be waited for, because all are here, one says that the server closes, one took too long
    (``late_s``: how long it had), or the connection is lost (``lost``: why).
    """

    __slots__ = ("_future", "_then", "done", "late_s", "lost", "replies", "seconds")

    def __init__(self, seconds: Sequence[float], then: Callable[[], None] | None) -> None:
        self.seconds = seconds
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


class Wire(asyncio.Protocol):
    """Pairs replies with the commands that they answer, in order (RFC 2920 §3.1), and gives each its time.

    The time of a reply begins when the one before it has come: a server works on one command after the other.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.lost: str | None = None  # why nothing more can be said or heard
        self._loop = asyncio.get_running_loop()
        self._rest = b""  # of a line whose end has not come
        self._lines: list[str] = []
        self._octets = 0  # of the lines so far of a reply of many
        self._waiting: deque[Answers] = deque()
        # One timer for all replies: it looks again when it finds that the next one has time left.
        self._due_s = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, seconds: Sequence[float], then: Callable[[], None] | None = None) -> Answers:
        """Expect a reply for each of these times that it may take. ``then`` is called when all is over."""
        answers = Answers(seconds, then)
        if self.lost is not None:
            answers.lost = self.lost
            answers.end()
        else:
            self._waiting.append(answers)
            if len(self._waiting) == 1:
                self._give_time(seconds[0])
        return answers

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self.lost is None:
                self._line(line.rstrip(b"\r"))
        if len(self._rest) + self._octets > MAX_REPLY_OCTETS:
            self._fail("the server's reply has no end")
        elif self._waiting:
            first = self._waiting[0]
            self._give_time(first.seconds[len(first.replies)])

    def _line(self, line: bytes) -> None:
        read = _read_line(line)
        if read is None:
            self._fail(f"the server does not speak SMTP: {line[:80].decode('utf-8', 'replace')!r}")
            return
        code, more, text = read
        if more or self._lines:
            self._lines.append(text)
            if more:
                self._octets += len(line) + 2
                return
            lines, self._lines, self._octets = tuple(self._lines), [], 0
        else:
            lines = (text,)
        if not self._waiting:
            # Nobody asked: a farewell (RFC 5321 §3.8), or a server that has lost count. Either way the next reply
            # might be taken for the answer to something else.
            self._fail(f"the server spoke unasked: {' '.join([str(code), *lines])[:200]}")
            return
        answers = self._waiting[0]
        answers.replies.append((code, lines))
        whole = len(answers.replies) == len(answers.seconds)
        if whole:
            self._waiting.popleft()
        if whole or code == _CLOSING:
            answers.end()

    def _give_time(self, seconds: float) -> None:
        self._due_s = self._loop.time() + seconds
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
        first.late_s = first.seconds[len(first.replies)]
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

"""An SMTP server with scripted replies, octet for octet. It records everything that it receives."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Self

EXTENSIONS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")
DEFAULTS = {
    "CONNECT": "220 scripted.test ESMTP",
    "STARTTLS": "220 2.0.0 go ahead",
    "AUTH": "235 2.7.0 in",
    "DATA": "354 go on",
    "QUIT": "221 2.0.0 bye",
}
COMMANDS = frozenset({"EHLO", "HELO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT"})


class Act(Enum):
    """An action in place of a reply."""

    DROP = auto()  # close the connection
    RESET = auto()  # close it by a TCP reset
    HANG = auto()  # never reply again
    SILENT = auto()  # do not reply to this command


Answer = str | bytes | Act | Callable[["Connection"], Awaitable[None]]
"""A reply without its CRLF, raw octets, an act, or a coroutine function that uses the connection."""


@dataclass
class Connection:
    """One client's connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    chunks: list[bytes] = field(default_factory=list)  # as they were received
    commands: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)  # with their dots, the final one too
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # the client closed, or was closed on
    _buffer: bytearray = field(default_factory=bytearray)

    async def until(self, mark: bytes) -> bytes | None:
        """Return the octets up to and including the mark, or None at the end of the stream."""
        while (end := self._buffer.find(mark)) < 0:
            try:
                chunk = await self.reader.read(1 << 20)
            except (ConnectionError, ssl.SSLError):
                chunk = b""
            if not chunk:
                return None
            self.chunks.append(chunk)
            self._buffer += chunk
        found = bytes(self._buffer[: end + len(mark)])
        del self._buffer[: end + len(mark)]
        return found

    @property
    def left_over(self) -> bytes:
        """What was received and is not part of a complete command."""
        return bytes(self._buffer)

    async def body(self) -> bytes | None:
        """Return what follows a 354, up to and including the final dot."""
        if self._buffer.startswith(b".\r\n"):
            return await self.until(b".\r\n")
        first = await self.until(b"\r\n")
        if first is None or first == b".\r\n":
            return first
        rest = await self._rest(first)
        return None if rest is None else first + rest

    async def _rest(self, first: bytes) -> bytes | None:
        found = bytearray(first)
        while not found.endswith(b"\r\n.\r\n"):
            line = await self.until(b"\r\n")
            if line is None:
                return None
            found += line
        return bytes(found[len(first) :])

    def say(self, answer: str | bytes) -> None:
        self.writer.write(answer if isinstance(answer, bytes) else f"{answer}\r\n".encode())

    def drop(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


class ScriptedServer:
    """Replies by verb. A list is used up in order, then the default applies. Anything else always applies.

    Verbs that are not commands: CONNECT for the greeting, DOT for the reply to a body, "" for any unknown command.
    """

    def __init__(
        self,
        answers: Mapping[str, Answer | list[Answer]] | None = None,
        *,
        extensions: tuple[str, ...] = EXTENSIONS,
        implicit_tls: ssl.SSLContext | None = None,
        starttls: ssl.SSLContext | None = None,
    ) -> None:
        self.answers = {
            verb: list(answer) if isinstance(answer, list) else answer for verb, answer in (answers or {}).items()
        }
        self.connections: list[Connection] = []
        self.open = 0
        self.most_open = 0
        self._extensions = extensions
        self._implicit_tls = implicit_tls
        self._starttls = starttls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._meet, "127.0.0.1", 0, ssl=self._implicit_tls, ssl_handshake_timeout=5 if self._implicit_tls else None
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    @property
    def commands(self) -> list[bytes]:
        return [command for connection in self.connections for command in connection.commands]

    @property
    def bodies(self) -> list[bytes]:
        return [body for connection in self.connections for body in connection.bodies]

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        self.connections.append(connection)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        task = asyncio.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: Connection) -> None:
        try:
            await self._talk(connection)
        finally:
            self.open -= 1
            connection.gone.set()
            connection.writer.close()

    async def _talk(self, connection: Connection) -> None:
        if not await self._answer(connection, "CONNECT"):
            return
        while (line := await connection.until(b"\r\n")) is not None:
            connection.commands.append(line)
            word = line.split(maxsplit=1)[0].upper().decode() if line.strip() else ""
            verb = word if word in COMMANDS else ""
            answer = self._next(verb)
            if not await self._answer(connection, verb, answer) or verb == "QUIT":
                return
            if verb == "STARTTLS" and self._starttls is not None:
                await connection.writer.start_tls(self._starttls)
            if verb == "DATA" and isinstance(answer, str) and answer.startswith("354"):
                body = await connection.body()
                if body is None:
                    return
                connection.bodies.append(body)
                if not await self._answer(connection, "DOT"):
                    return

    def _next(self, verb: str) -> Answer:
        default: Answer = DEFAULTS.get(verb, "250 2.0.0 ok")
        if verb == "EHLO":
            offered = [*self._extensions, *(["STARTTLS"] if self._starttls else [])]
            default = "\r\n".join(["250-scripted.test", *(f"250-{word}" for word in offered), "250 HELP"])
        answer = self.answers.get(verb, default)
        if isinstance(answer, list):
            return answer.pop(0) if answer else default
        return answer

    async def _answer(self, connection: Connection, verb: str, answer: Answer | None = None) -> bool:
        """Send the answer. Return whether the session continues."""
        answer = self._next(verb) if answer is None else answer
        match answer:
            case str() | bytes():
                connection.say(answer)
            case Act.DROP:
                connection.drop()
                return False
            case Act.RESET:
                connection.reset()
                return False
            case Act.HANG:
                await connection.until(b"no such octets")
                return False
            case Act.SILENT:
                pass
            case _:
                await answer(connection)
        return True

"""One SMTP session that pipelines (RFC 2920): MAIL, RCPT and DATA leave in one write, one recipient each.

aiosmtplib connects, greets, secures and authenticates; then the socket is handed over to a protocol of ours, which
knows, to the octet, what may have been accepted when a connection dies.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiosmtplib

from postroad.errors import Blame
from postroad.mail.message import Message
from postroad.settings import RouteSettings, TlsMode
from postroad.smtp.reply import Phase, Reply, parse_reply

MAX_REPLY_OCTETS = 32_768


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds to wait for each reply. RFC 5321 §4.5.3.2 gives the least for each; connecting is ours."""

    connect: float = 30
    greeting: float = 300
    mail: float = 300
    rcpt: float = 300
    data: float = 120
    dot: float = 600


class TransportError(Exception):
    """The connection could not be made, or was lost. ``unknown``: it died between the final dot and its reply."""

    def __init__(self, phase: Phase, reason: str, *, unknown: bool = False, reply: Reply | None = None) -> None:
        super().__init__(f"{phase}: {reason}")
        self.phase = phase
        self.reason = reason
        self.unknown = unknown
        self.reply = reply


class UnsendableError(Exception):
    """This message can never leave by this session: it is not what SMTP can carry."""

    def __init__(self, reason: str, blame: Blame) -> None:
        super().__init__(reason)
        self.reason = reason
        self.blame = blame


class _Wire(asyncio.Protocol):
    """Pairs replies with the commands that they answer, in order."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._buffer = bytearray()
        self._lines: list[str] = []
        self._waiting: deque[asyncio.Future[tuple[int, list[str]]]] = deque()
        self.lost: str | None = None

    def expect(self) -> asyncio.Future[tuple[int, list[str]]]:
        """Return the reply to the next command, as a future."""
        future: asyncio.Future[tuple[int, list[str]]] = asyncio.get_running_loop().create_future()
        if self.lost is not None:
            future.set_exception(ConnectionResetError(self.lost))
            future.exception()  # retrieved: nobody need wait for it
        else:
            self._waiting.append(future)
        return future

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = self._buffer[:end].decode("utf-8", "replace").rstrip("\r")
            del self._buffer[: end + 1]
            self._line(line)
            if self.lost is not None:
                return
        if len(self._buffer) + sum(map(len, self._lines)) > MAX_REPLY_OCTETS:
            self._fail("the server's reply has no end")

    def _line(self, line: str) -> None:
        if not line[:3].isdecimal() or line[3:4] not in ("", " ", "-"):
            self._fail(f"the server does not speak SMTP: {line[:80]!r}")
            return
        self._lines.append(line[4:])
        if line[3:4] == "-":
            return
        lines, self._lines = self._lines, []
        # A reply that nobody asked for is a farewell (RFC 5321 §3.8): the connection closes next.
        if self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result((int(line[:3]), lines))

    def _fail(self, reason: str) -> None:
        self.transport.abort()
        self._lose(reason)

    def eof_received(self) -> None:
        self._lose("the server closed the connection")

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(str(error) if error else "the connection was closed")

    def _lose(self, reason: str) -> None:
        self.lost = self.lost or reason
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(ConnectionResetError(self.lost))
                future.exception()


_UNSAFE_PATH = re.compile(r"[\x00-\x20\x7f<>]")


class Session:
    """An authenticated connection to a route. One transaction at a time."""

    def __init__(self, client: aiosmtplib.SMTP, wire: _Wire, timeouts: Timeouts) -> None:
        self._client = client  # holds what was negotiated
        self._wire = wire
        self._timeouts = timeouts
        self.transactions = 0
        self._reset_first = False
        self.pipelining = client.supports_extension("pipelining")
        self._smtputf8 = client.supports_extension("smtputf8")
        self._eightbit = client.supports_extension("8bitmime")

    @classmethod
    async def open(cls, route: RouteSettings, timeouts: Timeouts) -> Session:
        """Connect, greet, secure and authenticate. Raises TransportError, with the reply where there was one."""
        client = aiosmtplib.SMTP(
            hostname=route.host,
            port=route.port,
            use_tls=route.tls is TlsMode.IMPLICIT,
            start_tls=route.tls is TlsMode.STARTTLS,
            tls_context=None if route.tls is TlsMode.NONE else _tls_context(route),
            timeout=timeouts.connect,
        )
        phase = Phase.CONNECT
        try:
            await client.connect()
            phase = Phase.EHLO
            if not client.last_ehlo_response:
                await client.ehlo()
            if route.username is not None and route.password is not None:
                phase = Phase.AUTH
                await client.login(route.username, route.password.get_secret_value())
        except aiosmtplib.SMTPResponseException as error:
            client.close()
            reply = parse_reply(phase, error.code, str(error.message).splitlines())
            raise TransportError(phase, str(reply), reply=reply) from None
        except (aiosmtplib.SMTPException, OSError, ssl.SSLError, TimeoutError) as error:
            client.close()
            raise TransportError(phase, str(error) or type(error).__name__) from None
        except BaseException:
            client.close()
            raise
        transport = client.transport
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (connected)
        wire = _Wire(transport)
        transport.set_protocol(wire)
        return cls(client, wire, timeouts)

    @property
    def usable(self) -> bool:
        return self._wire.lost is None and not self._wire.transport.is_closing()

    async def send(self, message: Message, before_body: Callable[[], Awaitable[None]]) -> Reply:
        """One transaction. Returns the reply that decided: positive only when the message was accepted.

        ``before_body`` is awaited just before the body leaves, after which it may be accepted whatever happens.
        Raises TransportError, UnsendableError, or what before_body raises.
        """
        commands = self._commands(message)
        body = _stuffed(message.content)
        self.transactions += 1
        try:
            reply = await (self._open_grouped(commands) if self.pipelining else self._open_in_turn(commands))
            if reply.code != 354:
                return reply
            await before_body()
            dot = self._write(body, 1)[0]
            try:
                return await self._reply(dot, Phase.DOT, self._timeouts.dot)
            except TransportError as error:
                # What was written may have reached the server, dot and all.
                raise TransportError(Phase.DOT, error.reason, unknown=True) from None
        except (TransportError, UnsendableError):
            self.abort()
            raise
        except BaseException:
            self.abort()  # In the middle of a transaction: nobody can use this connection any more.
            raise

    def _commands(self, message: Message) -> list[bytes]:
        return_path, recipient = message.envelope.return_path, message.envelope.recipient
        for path in (return_path, recipient):
            if _UNSAFE_PATH.search(path):
                raise UnsendableError(f"{path!r} cannot be an address on the wire", Blame.MESSAGE)
        international = not (return_path + recipient).isascii()
        eightbit = not message.content.isascii()
        if international and not self._smtputf8:
            raise UnsendableError("the address is not ASCII, and the server does not offer SMTPUTF8", Blame.RECIPIENT)
        if eightbit and not self._eightbit:
            raise UnsendableError("the message is not ASCII, and the server does not offer 8BITMIME", Blame.MESSAGE)
        parameters = (" BODY=8BITMIME" if eightbit else "") + (" SMTPUTF8" if international else "")
        return [
            f"MAIL FROM:<{return_path}>{parameters}\r\n".encode(),
            f"RCPT TO:<{recipient}>\r\n".encode(),
            b"DATA\r\n",
        ]

    async def _open_grouped(self, commands: list[bytes]) -> Reply:
        if self._reset_first:
            futures = self._write(b"RSET\r\n" + b"".join(commands), 4)
            await self._reply(futures.pop(0), Phase.MAIL, self._timeouts.mail)
            self._reset_first = False
        else:
            futures = self._write(b"".join(commands), 3)
        mail = await self._reply(futures[0], Phase.MAIL, self._timeouts.mail)
        rcpt = await self._reply(futures[1], Phase.RCPT, self._timeouts.rcpt)
        data = await self._reply(futures[2], Phase.DATA, self._timeouts.data)
        refused = next((reply for reply in (mail, rcpt) if not reply.positive), None)
        if refused is None:
            return data
        if data.code != 354:
            # The transaction that MAIL began is open still (RFC 5321 §4.1.4).
            self._reset_first = mail.positive
        elif not rcpt.positive:
            # RFC 2920 §3.1: a server may go on although it took no recipient; a lone dot ends that.
            await self._reply(self._write(b".\r\n", 1)[0], Phase.DOT, self._timeouts.dot)
        else:
            # It refused MAIL, and took the rest: a dot now could make it deliver an empty message.
            self.abort()
        return refused

    async def _open_in_turn(self, commands: list[bytes]) -> Reply:
        mail, rcpt, data = commands
        reply = await self._reply(self._write(mail, 1)[0], Phase.MAIL, self._timeouts.mail)
        if not reply.positive:
            return reply
        reply = await self._reply(self._write(rcpt, 1)[0], Phase.RCPT, self._timeouts.rcpt)
        if reply.positive:
            reply = await self._reply(self._write(data, 1)[0], Phase.DATA, self._timeouts.data)
        if not reply.positive and reply.code != 421:
            await self._reply(self._write(b"RSET\r\n", 1)[0], Phase.MAIL, self._timeouts.mail)
        return reply

    def _write(self, octets: bytes, replies: int) -> list[asyncio.Future[tuple[int, list[str]]]]:
        futures = [self._wire.expect() for _ in range(replies)]
        if self._wire.lost is None:
            self._wire.transport.write(octets)
        return futures

    async def _reply(self, future: asyncio.Future[tuple[int, list[str]]], phase: Phase, seconds: float) -> Reply:
        try:
            async with asyncio.timeout(seconds):
                code, lines = await future
        except TimeoutError:
            raise TransportError(phase, f"no reply within {seconds:g} s") from None
        except ConnectionResetError as error:
            raise TransportError(phase, str(error)) from None
        return parse_reply(phase, code, lines)

    async def close(self) -> None:
        """Say goodbye, and do not wait long: what was accepted is accepted."""
        if self.usable:
            future = self._write(b"QUIT\r\n", 1)[0]
            try:
                async with asyncio.timeout(2):
                    await future
            except (TimeoutError, ConnectionResetError):
                pass  # QUIT may go unanswered; nothing hangs on it.
            except asyncio.CancelledError:
                self.abort()
                raise
        self._wire.transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._wire.transport.abort()


def _stuffed(content: bytes) -> bytes:
    """The message as DATA carries it (RFC 5321 §4.5.2). Raises UnsendableError for a line end that is not CRLF.

    A bare CR or LF is how one message becomes two on a server that takes it for a line end (SMTP smuggling).
    """
    if content.count(b"\r\n") != content.count(b"\n") or content.count(b"\r\n") != content.count(b"\r"):
        raise UnsendableError("the message has a line end that is not CRLF", Blame.US)
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    if content.startswith(b"."):
        content = b"." + content
    return content.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def _tls_context(route: RouteSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(route.ca_file) if route.ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not route.verify_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

"""One SMTP session that pipelines (RFC 2920): MAIL, RCPT and DATA leave in one write, one recipient each.

Where another message waits, its commands leave behind the final dot of the one before, as §3.1 allows.

aiosmtplib connects, greets, secures and authenticates; then the socket is handed over to a protocol of ours, which
knows, to the octet, what may have been accepted when a connection dies.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Protocol, cast

import aiosmtplib

from postroad.errors import Blame
from postroad.smtp.endpoint import Endpoint
from postroad.smtp.failure import Timeouts, TransportError, UnsendableError
from postroad.smtp.opening import open_client
from postroad.smtp.reply import Phase, Reply, parse_reply
from postroad.smtp.wire import PendingReplies, SmtpProtocol

__all__ = ["Sendable", "SmtpSession", "Timeouts", "Transaction", "TransportError", "UnsendableError"]

_GROUP = (Phase.MAIL, Phase.RCPT, Phase.DATA)
_UNSAFE_PATH = re.compile(r"[\x00-\x20\x7f<>\ud800-\udfff]")
_RSET = b"RSET\r\n"
_FAREWELL_S = 2.0


class Sendable(Protocol):
    """What a session carries: an envelope of one recipient (RFC 5321 §2.3.1), and content with CRLF line ends."""

    @property
    def return_path(self) -> str: ...
    @property
    def recipient(self) -> str: ...
    @property
    def content(self) -> bytes: ...


class Transaction:
    """One message as a session carries it, made by `SmtpSession.prepare`."""

    def __init__(self, commands: list[bytes], body: bytes) -> None:
        self.commands = commands
        self.body = body
        self.opened: Callable[[], None] | None = None
        """Is called when its commands, sent behind another's final dot, are answered, or will not be."""
        self.answers: PendingReplies | None = None  # to its commands, where they were sent as a group
        self.behind: PendingReplies | None = None  # to the final dot that they were sent behind
        self.trailing_octets = 0  # of the commands that were sent behind this one's final dot
        self.followed = False
        """Whether the session has gone to another transaction, sent behind this one's dot."""


Follow = Callable[["SmtpSession"], Transaction | None]
"""Is asked when a body is about to leave: who goes behind its dot. The session is theirs from then on."""


class SmtpSession:
    """An authenticated connection to a host. One transaction at a time, and the commands of the next."""

    def __init__(self, client: aiosmtplib.SMTP, wire: SmtpProtocol, timeouts: Timeouts) -> None:
        self._client = client  # holds what was negotiated
        self._wire = wire
        self._timeouts = timeouts
        self.transactions = 0
        self._over = False  # the server took its leave, or we left a transaction in its middle
        self._dot: PendingReplies | None = None  # to the last one that was sent
        self._reset_first = False  # a refused transaction is open still (RFC 5321 §4.1.4)
        self._seconds = (timeouts.mail, timeouts.rcpt, timeouts.data)
        self.pipelining = client.supports_extension("pipelining")
        self._smtputf8 = client.supports_extension("smtputf8")
        self._eightbit = client.supports_extension("8bitmime")

    @classmethod
    async def open(cls, endpoint: Endpoint, timeouts: Timeouts) -> SmtpSession:
        """Connect, greet, secure and authenticate. Raises TransportError, with the reply where there was one."""
        client = await open_client(endpoint, timeouts)
        try:
            return cls(client, _take_over(client), timeouts)
        except ConnectionResetError as error:
            client.close()
            raise TransportError(Phase.AUTH if endpoint.username else Phase.EHLO, str(error)) from None

    @property
    def usable(self) -> bool:
        """Whether another transaction may begin."""
        return not self._over and self._wire.lost is None and not self._wire.transport.is_closing()

    def prepare(self, message: Sendable) -> Transaction:
        """Return the message as it goes out by this session. Nothing is sent yet. Raises UnsendableError."""
        return Transaction(self._commands(message), _stuffed(message.content))

    async def send(self, message: Sendable, before_body: Callable[[], Awaitable[None]]) -> Reply:
        """One transaction that none follows. See `carry`. Raises UnsendableError as well."""
        return await self.carry(self.prepare(message), before_body, lambda _: None)

    async def carry(
        self, transaction: Transaction, before_body: Callable[[], Awaitable[None]], follow: Follow
    ) -> Reply:
        """One transaction. Returns the reply that decided: a positive one is to the final dot, and means accepted.

        ``before_body`` is awaited just before the body leaves, after which it may be accepted whatever happens.
        Raises TransportError, or what before_body raises.
        """
        try:
            reply = await (self._open_grouped(transaction) if self.pipelining else self._open_in_turn(transaction))
            if reply.code != 354:
                return reply
            await before_body()
            dot = self._write_body(transaction, follow)
            await dot.wait()
            try:
                return self._read(dot, 0, Phase.DOT)
            except TransportError as error:
                if self._dot_is_unsent(transaction):
                    reason = f"the server did not read the message within {error.late_s:g} s"
                    raise TransportError(Phase.DATA, reason, late_s=error.late_s) from None
                # What was written may have reached the server, dot and all.
                raise TransportError(Phase.DOT, error.reason, unknown=True, late_s=error.late_s) from None
        except BaseException:
            self.forsake(transaction)
            raise

    def forsake(self, transaction: Transaction) -> None:
        """Leave a transaction in its middle: nobody can use this connection any more.

        It is dropped at once, but for one whose final dot has no answer yet: that is somebody else's, who waits for it.
        """
        if transaction.behind is None or transaction.behind.done:
            self.abort()
        else:
            self._over = True

    def _dot_is_unsent(self, transaction: Transaction) -> bool:
        """Whether the final dot has certainly not left this process. It never will: the connection is dropped next.

        Under TLS the transport does not count what waits in the one below it, so there it is never certain.
        """
        transport = self._wire.transport
        plain = transport.get_extra_info("ssl_object") is None
        return plain and transport.get_write_buffer_size() > transaction.trailing_octets

    def _commands(self, message: Sendable) -> list[bytes]:
        return_path, recipient = message.return_path, message.recipient
        for path in (return_path, recipient):
            if _UNSAFE_PATH.search(path):
                raise UnsendableError(f"{path!r} cannot be an address on the wire", Blame.MESSAGE)
        eightbit = not message.content.isascii()
        # RFC 6531 §3.4: the parameter is due for a header in UTF-8 as it is for an address.
        international = not (return_path + recipient).isascii() or (
            eightbit and not message.content.partition(b"\r\n\r\n")[0].isascii()
        )
        if international and not self._smtputf8:
            blame = Blame.SENDER if recipient.isascii() else Blame.RECIPIENT
            raise UnsendableError("an address is not ASCII, and the server does not offer SMTPUTF8", blame)
        if eightbit and not self._eightbit:
            raise UnsendableError("the message is not ASCII, and the server does not offer 8BITMIME", Blame.MESSAGE)
        parameters = (" BODY=8BITMIME" if eightbit else "") + (" SMTPUTF8" if international else "")
        return [
            f"MAIL FROM:<{return_path}>{parameters}\r\n".encode(),
            f"RCPT TO:<{recipient}>\r\n".encode(),
            b"DATA\r\n",
        ]

    async def _open_grouped(self, transaction: Transaction) -> Reply:
        answers = transaction.answers or await self._begin(transaction)
        await answers.wait()
        replies: list[Reply] = []
        try:
            for place, phase in enumerate(_GROUP):
                replies.append(self._read(answers, place, phase))
                if replies[-1].code == 421:
                    break
            else:
                await self._end_refused(*replies)
        except TransportError:
            if all(reply.positive for reply in replies):
                raise
            self.abort()  # Who refuses may close without the answers that only follow from it. The refusal stands.
        return next((reply for reply in replies if not reply.positive), replies[-1])

    async def _begin(self, transaction: Transaction) -> PendingReplies:
        self.transactions += 1
        octets = b"".join(transaction.commands)
        if self._reset_first:
            reset = self._expect(self._seconds[:1])
            answers = self._wire.expect(self._seconds, within_s=self._timeouts.transaction)
            self._write(_RSET + octets)
            await reset.wait()
            self._read(reset, 0, Phase.MAIL)
            self._reset_first = False
        else:
            answers = self._wire.expect(self._seconds, within_s=self._timeouts.transaction)
            self._write(octets)
        transaction.answers = answers
        return answers

    async def _end_refused(self, mail: Reply, rcpt: Reply, data: Reply) -> None:
        if not data.positive:
            self._reset_first = mail.positive
        elif not rcpt.positive:
            # RFC 2920 §3.1: a server may go on although it took no recipient; a lone dot ends that.
            await self._ask(b".\r\n", Phase.DOT, self._timeouts.dot)
        elif not mail.positive:
            # It refused MAIL, and took the rest: a dot now could make it deliver an empty message.
            self.abort()

    async def _open_in_turn(self, transaction: Transaction) -> Reply:
        self.transactions += 1
        if self._reset_first:
            await self._ask(_RSET, Phase.MAIL, self._timeouts.mail)
            self._reset_first = False
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._timeouts.transaction
        replies: list[Reply] = []
        for command, phase, seconds in zip(transaction.commands, _GROUP, self._seconds, strict=True):
            replies.append(await self._ask(command, phase, min(seconds, max(until_s - loop.time(), 0.0))))
            if not replies[-1].positive:
                self._reset_first = phase is not Phase.MAIL
                break
        return replies[-1]

    def _write_body(self, transaction: Transaction, follow: Follow) -> PendingReplies:
        if not self.usable:
            # It was lost while before_body was busy. Nothing of the body has left, so nothing is unknown.
            raise TransportError(Phase.DATA, self._wire.lost or "the connection was closed")
        following = follow(self) if self.pipelining else None
        self._dot = dot = self._expect((self._timeouts.dot,))
        if following is None:
            self._write(transaction.body)
            return dot
        self.transactions += 1
        transaction.followed = True
        following.behind = dot
        following.answers = self._wire.expect(self._seconds, following.opened, within_s=self._timeouts.transaction)
        transaction.trailing_octets = sum(map(len, following.commands))
        self._write(b"".join([transaction.body, *following.commands]))
        return dot

    def _expect(self, seconds: Sequence[float]) -> PendingReplies:
        return self._wire.expect(seconds)

    def _write(self, octets: bytes) -> None:
        # Between its closing and our being told, asyncio takes what is written, and uvloop raises. We are told.
        if self._wire.lost is None and not self._wire.transport.is_closing():
            self._wire.transport.write(octets)

    async def _ask(self, octets: bytes, phase: Phase, seconds: float) -> Reply:
        answers = self._expect((seconds,))
        self._write(octets)
        await answers.wait()
        return self._read(answers, 0, phase)

    def _read(self, answers: PendingReplies, place: int, phase: Phase) -> Reply:
        if place >= len(answers.replies):
            if answers.late_s is not None:
                raise TransportError(phase, f"no reply within {answers.late_s:g} s", late_s=answers.late_s)
            raise TransportError(phase, answers.lost or "the connection was closed")
        code, lines = answers.replies[place]
        # A final dot is answered with a number of the message's own; the other replies are the same all day.
        reply = parse_reply(phase, code, lines) if phase is Phase.DOT else _parse_again(phase, code, lines)
        if reply.positive and (code != 354 if phase is Phase.DATA else code >= 300):
            raise TransportError(phase, f"the server answered something else: {reply}")
        if code == 421:  # RFC 5321 §3.8: it closes next.
            self._over = True
        return reply

    async def close(self) -> None:
        """Say goodbye, and do not wait long: what was accepted is accepted. A dot's reply is waited for."""
        try:
            if self._dot is not None:
                await self._dot.wait()  # It is answered, late or lost in its time.
            if self.usable:
                farewell = self._expect((_FAREWELL_S,))
                self._write(b"QUIT\r\n")
                await farewell.wait()  # It may go unanswered; nothing hangs on it.
        except asyncio.CancelledError:
            self.abort()
            raise
        if self._wire.transport.get_write_buffer_size():
            self.abort()  # The server reads nothing, and a transport that closes would wait for it.
        else:
            self._wire.transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._wire.transport.abort()


_parse_again = lru_cache(maxsize=64)(parse_reply)


def _stuffed(content: bytes) -> bytes:
    """The message as DATA carries it (RFC 5321 §4.5.2). Raises UnsendableError for a line end that is not CRLF.

    A bare CR or LF is how one message becomes two on a server that takes it for a line end (SMTP smuggling).
    """
    # As many octets are of line ends as CR and LF there are: two thirds of what it takes to count all three.
    if len(content) - len(content.translate(None, b"\r\n")) != 2 * content.count(b"\r\n"):
        raise UnsendableError("the message has a line end that is not CRLF", Blame.US)
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    if content.startswith(b"."):
        content = b"." + content
    return content.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def _take_over(client: aiosmtplib.SMTP) -> SmtpProtocol:
    """Receive in the client's place. Raises ConnectionResetError when the server has closed since its last reply."""
    transport = cast(asyncio.Transport | None, client.transport)  # whatever loop it is of
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the server closed the connection")
    wire = SmtpProtocol(transport)
    transport.set_protocol(wire)
    return wire

"""One SMTP session with pipelining (RFC 2920): MAIL, RCPT and DATA are sent in one write, one recipient each.

If another message waits, its commands are sent together with the body of the current one, after its final dot, as
§3.1 allows.

aiosmtplib connects, greets, encrypts and authenticates. Then `SmtpProtocol` takes over the socket, so that after the
loss of a connection it is known whether the final dot may have been sent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Protocol, cast

import aiosmtplib

from postroad.errors import Blame
from postroad.smtp.connect import open_client
from postroad.smtp.endpoint import Endpoint
from postroad.smtp.errors import Timeouts, TransportError, UnsendableError
from postroad.smtp.protocol import PendingReplies, SmtpProtocol
from postroad.smtp.reply import Phase, Reply, parse_reply

_ENVELOPE_PHASES = (Phase.MAIL, Phase.RCPT, Phase.DATA)
_UNSAFE_PATH = re.compile(r"[\x00-\x20\x7f<>\ud800-\udfff]")
_RSET = b"RSET\r\n"
_QUIT_TIMEOUT_S = 2.0


class Sendable(Protocol):
    """A message to send: an envelope with one recipient (RFC 5321 §2.3.1), and content with CRLF line ends."""

    @property
    def return_path(self) -> str: ...
    @property
    def recipient(self) -> str: ...
    @property
    def content(self) -> bytes: ...


class Transaction:
    """One message, encoded for one session by `SmtpSession.prepare`."""

    def __init__(self, commands: list[bytes], body: bytes) -> None:
        self.commands = commands
        self.body = body
        self.on_answered: Callable[[], None] | None = None
        """Called when the commands, sent after another message's final dot, are answered or the replies are lost."""
        self.envelope_replies: PendingReplies | None = None  # to the pipelined commands
        self.pipelined_after: PendingReplies | None = None  # reply to the final dot after which they were sent
        self.trailing_octets = 0  # length of the next transaction's commands, sent after this one's final dot
        self.has_successor = False
        """Whether the commands of another transaction, which owns the session now, were sent after the final dot."""


PipelineNext = Callable[["SmtpSession"], Transaction | None]
"""Called before a body is written. Returns the transaction whose commands follow it; that one then owns the session."""


class SmtpSession:
    """An open connection to a host. Carries one transaction at a time, and the commands of the next one."""

    def __init__(self, client: aiosmtplib.SMTP, protocol: SmtpProtocol, timeouts: Timeouts) -> None:
        self._client = client  # keeps the TLS objects alive
        self._protocol = protocol
        self._timeouts = timeouts
        self.transactions = 0
        self._ended = False  # the server announced its end, or a transaction was abandoned
        self._dot_reply: PendingReplies | None = None  # to the last final dot
        self._reset_first = False  # a rejected transaction is still open (RFC 5321 §4.1.4)
        self._envelope_timeouts_s = (timeouts.mail, timeouts.rcpt, timeouts.data)
        self.pipelining = client.supports_extension("pipelining")
        self._smtputf8 = client.supports_extension("smtputf8")
        self._eightbit = client.supports_extension("8bitmime")

    @classmethod
    async def open(cls, endpoint: Endpoint, timeouts: Timeouts) -> SmtpSession:
        """Connect, greet, encrypt and authenticate. See `open_client`.

        Returns:
            A session that is ready for a transaction.

        Raises:
            TransportError: The session could not be opened. Contains the server's reply, if there was one.
        """
        client = await open_client(endpoint, timeouts)
        try:
            return cls(client, _take_over(client), timeouts)
        except ConnectionResetError as error:
            client.close()
            raise TransportError(Phase.AUTH if endpoint.username else Phase.EHLO, str(error)) from None

    @property
    def usable(self) -> bool:
        """Whether another transaction may begin."""
        return not self._ended and self._protocol.lost is None and not self._protocol.transport.is_closing()

    def prepare(self, message: Sendable) -> Transaction:
        """Encode a message for this session. Sends nothing. Raises UnsendableError if the server cannot carry it."""
        return Transaction(self._commands(message), dot_stuff(message.content))

    async def send(self, message: Sendable, before_body: Callable[[], Awaitable[None]]) -> Reply:
        """Send a message, without pipelining another one. See `deliver`. Raises UnsendableError as well."""
        return await self.deliver(self.prepare(message), before_body, lambda _: None)

    async def deliver(
        self, transaction: Transaction, before_body: Callable[[], Awaitable[None]], pipeline_next: PipelineNext
    ) -> Reply:
        """Carry out one transaction.

        Args:
            transaction: A transaction that this session prepared.
            before_body: Awaited just before the body is written. From then on the server may accept the message,
                even if the connection is lost. Its exceptions are passed on.
            pipeline_next: Chooses the transaction whose commands are sent after the final dot.

        Returns:
            The reply that decided the transaction. A positive one is the reply to the final dot: the message is
            accepted.

        Raises:
            TransportError: The connection was lost. Its ``unknown`` tells whether the message may be accepted.
        """
        try:
            send_envelope = self._send_envelope_pipelined if self.pipelining else self._send_envelope_stepwise
            reply = await send_envelope(transaction)
            if reply.code != 354:
                return reply
            await before_body()
            dot_reply = self._write_body(transaction, pipeline_next)
            await dot_reply.wait()
            try:
                return self._reply_at(dot_reply, 0, Phase.DOT)
            except TransportError as error:
                if self._dot_is_unsent(transaction):
                    reason = f"the server did not read the message within {error.late_s:g} s"
                    raise TransportError(Phase.DATA, reason, late_s=error.late_s) from None
                # The body may have reached the server completely, with its final dot.
                raise TransportError(Phase.DOT, error.reason, unknown=True, late_s=error.late_s) from None
        except BaseException:
            self.abandon(transaction)
            raise

    def abandon(self, transaction: Transaction) -> None:
        """Abandon a transaction. The session cannot be used again.

        The connection is dropped at once, unless the previous message still awaits the reply to its final dot.
        """
        if transaction.pipelined_after is None or transaction.pipelined_after.done:
            self.abort()
        else:
            self._ended = True

    def _dot_is_unsent(self, transaction: Transaction) -> bool:
        """Return whether the final dot is certainly still in this process. The connection is dropped next.

        Under TLS this is never certain: the transport does not count the buffer of the transport below it.
        """
        transport = self._protocol.transport
        unencrypted = transport.get_extra_info("ssl_object") is None
        return unencrypted and transport.get_write_buffer_size() > transaction.trailing_octets

    def _commands(self, message: Sendable) -> list[bytes]:
        return_path, recipient = message.return_path, message.recipient
        for path in (return_path, recipient):
            if _UNSAFE_PATH.search(path):
                raise UnsendableError(f"{path!r} is not a valid address for SMTP", Blame.MESSAGE)
        eightbit = not message.content.isascii()
        # RFC 6531 §3.4: a header in UTF-8 requires the SMTPUTF8 parameter, as an address in UTF-8 does.
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

    async def _send_envelope_pipelined(self, transaction: Transaction) -> Reply:
        pending = transaction.envelope_replies or await self._write_envelope(transaction)
        await pending.wait()
        replies: list[Reply] = []
        try:
            for index, phase in enumerate(_ENVELOPE_PHASES):
                replies.append(self._reply_at(pending, index, phase))
                if replies[-1].code == 421:
                    break
            else:
                await self._end_rejected(*replies)
        except TransportError:
            if all(reply.positive for reply in replies):
                raise
            # After a rejection the server may close without the replies that only follow from it. The rejection counts.
            self.abort()
        return next((reply for reply in replies if not reply.positive), replies[-1])

    async def _write_envelope(self, transaction: Transaction) -> PendingReplies:
        self.transactions += 1
        octets = b"".join(transaction.commands)
        if self._reset_first:
            reset_reply = self._protocol.expect((self._timeouts.mail,))
            replies = self._protocol.expect(self._envelope_timeouts_s, within_s=self._timeouts.transaction)
            self._write(_RSET + octets)
            await reset_reply.wait()
            self._reply_at(reset_reply, 0, Phase.MAIL)
            self._reset_first = False
        else:
            replies = self._protocol.expect(self._envelope_timeouts_s, within_s=self._timeouts.transaction)
            self._write(octets)
        transaction.envelope_replies = replies
        return replies

    async def _end_rejected(self, mail: Reply, rcpt: Reply, data: Reply) -> None:
        if not data.positive:
            self._reset_first = mail.positive
        elif not rcpt.positive:
            # RFC 2920 §3.1: a server may accept DATA without a valid recipient. A lone dot ends the transaction.
            await self._command(b".\r\n", Phase.DOT, self._timeouts.dot)
        elif not mail.positive:
            # The server rejected MAIL but accepted RCPT and DATA. A lone dot could make it deliver an empty message.
            self.abort()

    async def _send_envelope_stepwise(self, transaction: Transaction) -> Reply:
        self.transactions += 1
        if self._reset_first:
            await self._command(_RSET, Phase.MAIL, self._timeouts.mail)
            self._reset_first = False
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._timeouts.transaction
        replies: list[Reply] = []
        steps = zip(transaction.commands, _ENVELOPE_PHASES, self._envelope_timeouts_s, strict=True)
        for command, phase, timeout_s in steps:
            replies.append(await self._command(command, phase, min(timeout_s, max(until_s - loop.time(), 0.0))))
            if not replies[-1].positive:
                self._reset_first = phase is not Phase.MAIL
                break
        return replies[-1]

    def _write_body(self, transaction: Transaction, pipeline_next: PipelineNext) -> PendingReplies:
        if not self.usable:
            # The connection was lost during before_body. No part of the body was sent, so the outcome is known.
            raise TransportError(Phase.DATA, self._protocol.lost or "the connection was closed")
        successor = pipeline_next(self) if self.pipelining else None
        self._dot_reply = dot_reply = self._protocol.expect((self._timeouts.dot,))
        if successor is None:
            self._write(transaction.body)
            return dot_reply
        self.transactions += 1
        transaction.has_successor = True
        successor.pipelined_after = dot_reply
        successor.envelope_replies = self._protocol.expect(
            self._envelope_timeouts_s, successor.on_answered, within_s=self._timeouts.transaction
        )
        transaction.trailing_octets = sum(map(len, successor.commands))
        self._write(b"".join([transaction.body, *successor.commands]))
        return dot_reply

    def _write(self, octets: bytes) -> None:
        # A write to a closing transport: asyncio ignores it, uvloop raises. The loss is reported by the protocol.
        if self._protocol.lost is None and not self._protocol.transport.is_closing():
            self._protocol.transport.write(octets)

    async def _command(self, octets: bytes, phase: Phase, timeout_s: float) -> Reply:
        pending = self._protocol.expect((timeout_s,))
        self._write(octets)
        await pending.wait()
        return self._reply_at(pending, 0, phase)

    def _reply_at(self, pending: PendingReplies, index: int, phase: Phase) -> Reply:
        if index >= len(pending.replies):
            if pending.late_s is not None:
                raise TransportError(phase, f"no reply within {pending.late_s:g} s", late_s=pending.late_s)
            raise TransportError(phase, pending.lost or "the connection was closed")
        code, lines = pending.replies[index]
        # The reply to a final dot usually contains an id of the message. The other replies repeat, so they are cached.
        reply = parse_reply(phase, code, lines) if phase is Phase.DOT else _parse_reply_cached(phase, code, lines)
        if reply.positive and (code != 354 if phase is Phase.DATA else code >= 300):
            raise TransportError(phase, f"the server's reply does not fit the command: {reply}")
        if code == 421:  # RFC 5321 §3.8: the server closes the connection next.
            self._ended = True
        return reply

    async def close(self) -> None:
        """Send QUIT and close the connection. Waits for the reply to a final dot, and up to 2 s for that to QUIT."""
        try:
            if self._dot_reply is not None:
                await self._dot_reply.wait()
            if self.usable:
                quit_reply = self._protocol.expect((_QUIT_TIMEOUT_S,))
                self._write(b"QUIT\r\n")
                await quit_reply.wait()  # The result does not matter: every accepted message is already accepted.
        except asyncio.CancelledError:
            self.abort()
            raise
        if self._protocol.transport.get_write_buffer_size():
            self.abort()  # The server does not read, and `close` would wait until it does.
        else:
            self._protocol.transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._protocol.transport.abort()


_parse_reply_cached = lru_cache(maxsize=64)(parse_reply)


def dot_stuff(content: bytes) -> bytes:
    """Encode a message for DATA (RFC 5321 §4.5.2).

    A bare CR or LF is rejected: a server that takes it for a line end could see two messages (SMTP smuggling).

    Args:
        content: The message, with CRLF line ends.

    Returns:
        The message with dots doubled at the start of lines, and the final dot.

    Raises:
        UnsendableError: A line end is not CRLF.
    """
    # All CR and LF are part of a CRLF if their number is twice that of CRLF. Faster than counting each of the three.
    if len(content) - len(content.translate(None, b"\r\n")) != 2 * content.count(b"\r\n"):
        raise UnsendableError("the message has a line end that is not CRLF", Blame.US)
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    if content.startswith(b"."):
        content = b"." + content
    return content.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def _take_over(client: aiosmtplib.SMTP) -> SmtpProtocol:
    """Replace the client's protocol by ours. Raises ConnectionResetError if the server closed since its last reply."""
    transport = cast(asyncio.Transport | None, client.transport)  # asyncio's or uvloop's
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the server closed the connection")
    protocol = SmtpProtocol(transport)
    transport.set_protocol(protocol)
    return protocol

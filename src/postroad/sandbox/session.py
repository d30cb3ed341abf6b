"""One connection: octets in, replies out, and the faults that need time or cut the line.

All that has arrived in one piece is answered in one write, so a pipelining client costs one system call
each way for many messages. While a fault takes its time nothing behind it is looked at, and no more than a
bounded amount of it is read.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Coroutine
from typing import assert_never, cast

from postroad.sandbox.context import SandboxContext
from postroad.sandbox.dialogue import MAX_AUTH_BYTES, SmtpStateMachine
from postroad.sandbox.framing import Framer, LineFlaw
from postroad.sandbox.phrases import OrdinaryReply
from postroad.sandbox.rules import ConnectionEnding, Fault
from postroad.sandbox.steps import DialogueStep, NextState

#: How much is read ahead, in octets, of a client that has to wait.
_READ_AHEAD_BYTES = 256 * 1024
#: How long a closed connection listens on, in seconds. Closing at once would answer what is still under way
#: with a reset, and a reset can take the last reply from the client's hands.
_LINGER_S = 2.0
#: How long a TLS handshake may take, in seconds.
HANDSHAKE_S = 10.0


class SandboxSession(asyncio.Protocol):
    """The protocol of one connection."""

    def __init__(
        self, context: SandboxContext, sessions: set[SandboxSession], connection: int, *, secure: bool
    ) -> None:
        self._context = context
        self._sessions = sessions
        self._connection = connection
        self._secure = secure
        self._framer = Framer()
        self._out: list[bytes] = []
        self._then = NextState.COMMAND
        self._busy = False
        self._hanging = False
        self._choked = False
        self._closing = False
        self._ended = False
        self._task: asyncio.Task[None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._active_ms = context.clock.now_ms()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport
        self._dialogue: SmtpStateMachine

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._dialogue = SmtpStateMachine(
            self._context,
            connection=self._connection,
            ip=peer[0] if peer else "",
            secure=self._secure,
        )
        self._sessions.add(self)
        self._context.counters.connections += 1
        self._context.counters.open_connections += 1
        self._context.counters.secured += self._secure
        self._take(self._dialogue.greet())
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._linger is not None:
            self._linger.cancel()
        if self in self._sessions:
            self._sessions.remove(self)
            self._context.counters.open_connections -= 1
            self._context.forget(self._connection)
            self.gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._active_ms = self._context.clock.now_ms()
        self._framer.feed(data)
        self._pump()
        if self._busy and len(self._framer) > _READ_AHEAD_BYTES:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Answer what had arrived before the client closed its side, then close ours."""
        self._ended = True
        if self._hanging or self._closing:
            return False
        # A client that closed its side may still read, so a fault that takes its time may finish. Whether it
        # reads shows only in the writing. TLS has no half-closed state.
        return self._busy and self._transport.can_write_eof()

    def pause_writing(self) -> None:
        self._choked = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._choked = False
        self._resume()

    # What the sandbox calls.

    def idle_ms(self, now_ms: int) -> int:
        """How long the client has been silent. A session that is held up by a fault is not idle."""
        return 0 if self._busy or self._closing else now_ms - self._active_ms

    def expire(self) -> None:
        self._context.counters.timed_out += 1
        self._out.append(self._context.phrases[OrdinaryReply.TIMED_OUT])
        self._close()

    def dismiss(self) -> None:
        """End the session because the sandbox stops. RFC 5321 §3.8: 421 may come at any time."""
        if self._closing or self._busy or self._choked:
            self._transport.abort()
            return
        self._closing = True
        self._out.append(self._context.phrases[OrdinaryReply.SHUTTING_DOWN])
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    # The loop.

    def _pump(self) -> None:
        """Answer everything that has arrived in full."""
        framer, dialogue = self._framer, self._dialogue
        # Stuffing adds at most one octet to a line of two; the exact limit is the dialogue's business.
        content_limit = self._context.config.max_message_bytes * 3 // 2 + 2
        while not (self._busy or self._choked or self._closing):
            if self._then is NextState.CONTENT:
                content = framer.content(content_limit)
                if content is None:
                    break
                step = dialogue.message(content)
            else:
                line = framer.line(MAX_AUTH_BYTES)
                if line is None:
                    break
                more = len(framer) > 0
                step = dialogue.flawed(line) if isinstance(line, LineFlaw) else dialogue.command(line, more=more)
            self._take(step)
        self._flush()

    def _resume(self) -> None:
        if self._transport.is_closing():
            return
        self._pump()
        if self._ended and not self._busy:
            self._close()
        elif not (self._busy or self._choked or self._closing):
            self._transport.resume_reading()

    def _take(self, step: DialogueStep) -> None:
        if step.fault is not None and _needs_act(step.fault):
            self._flush()
            self._start(self._misbehave(step, step.fault))
            return
        self._out.append(step.reply)
        self._follow(step.then)

    def _follow(self, then: NextState) -> None:
        match then:
            case NextState.COMMAND | NextState.CONTENT:
                self._then = then
            case NextState.TLS:
                self._flush()
                # RFC 3207 §4.2: whatever was slipped in behind STARTTLS in clear must not be read as if it
                # came through TLS (CVE-2011-0411).
                self._framer.discard()
                self._start(self._upgrade())
            case NextState.CLOSE:
                self._close()
            case _:
                assert_never(then)

    def _flush(self) -> None:
        if self._out:
            replies = b"".join(self._out)
            self._out.clear()
            self._transport.write(replies)

    def _close(self) -> None:
        """Send what is said, close our side, and let the client find out before the socket goes."""
        self._flush()
        self._closing = True
        self._framer.discard()
        if self._ended or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        loop = asyncio.get_running_loop()
        self._linger = loop.call_later(_LINGER_S, self._transport.abort)

    # Faults, and TLS.

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._busy = True
        self._task = asyncio.get_running_loop().create_task(work)

    async def _misbehave(self, step: DialogueStep, fault: Fault) -> None:
        clock = self._context.clock
        if fault.delay_ms:
            await clock.sleep(fault.delay_ms / 1000)
        match fault.ending:
            case ConnectionEnding.HANG:
                # Still busy: only the client, or the end of the sandbox, gets out of this.
                self._hanging = True
                if self._ended:
                    self._close()
                return
            case ConnectionEnding.DROP | ConnectionEnding.RESET:
                self._context.counters.dropped += 1
                self._cut(reset=fault.ending is ConnectionEnding.RESET)
                return
            case ConnectionEnding.STAY | ConnectionEnding.CLOSE:
                pass
            case _:
                assert_never(fault.ending)
        if fault.byte_delay_ms:
            for octet in step.reply[:-1]:
                self._transport.write(bytes((octet,)))
                await clock.sleep(fault.byte_delay_ms / 1000)
            self._out.append(step.reply[-1:])
        else:
            self._out.append(step.reply)
        self._busy, self._task = False, None
        self._follow(NextState.CLOSE if fault.ending is ConnectionEnding.CLOSE else step.then)
        self._resume()

    def _cut(self, *, reset: bool) -> None:
        if not reset and self._transport.can_write_eof():
            self._close()
            return
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if reset and raw is not None:
            # SO_LINGER of zero seconds makes the close a reset.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._closing = True
        self._transport.abort()

    async def _upgrade(self) -> None:
        loop, tls = asyncio.get_running_loop(), self._context.tls
        assert tls is not None  # noqa: S101 - STARTTLS is offered with a certificate only
        try:
            secured = await loop.start_tls(
                self._transport, self, tls, server_side=True, ssl_handshake_timeout=HANDSHAKE_S
            )
        except OSError:  # ssl.SSLError among them
            self._transport.abort()
            return
        if secured is None:
            return  # the client went away during the handshake
        self._transport = secured
        self._context.counters.secured += 1
        self._dialogue.secured()
        self._then = NextState.COMMAND
        self._busy, self._task = False, None
        self._resume()


def _needs_act(fault: Fault) -> bool:
    return bool(fault.delay_ms or fault.byte_delay_ms or fault.ending is not ConnectionEnding.STAY)

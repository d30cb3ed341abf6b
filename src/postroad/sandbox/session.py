"""One connection: receives octets, sends replies, and applies faults that take time or end the connection.

All commands in one received chunk are answered in one write, so that a pipelining client needs one system call in each
direction for many messages. During a fault that takes time, later input is not processed, and only a bounded amount of
it is read.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Coroutine
from typing import assert_never, cast

from postroad.sandbox.context import SandboxContext
from postroad.sandbox.framing import Framer, LineFlaw
from postroad.sandbox.phrases import OrdinaryReply
from postroad.sandbox.rules import ConnectionEnding, Fault
from postroad.sandbox.state_machine import MAX_AUTH_BYTES, SmtpStateMachine
from postroad.sandbox.steps import NextState, SessionStep

#: Maximum number of octets that are read ahead while the client has to wait.
_READ_AHEAD_BYTES = 256 * 1024
#: How long a closing connection still receives, in seconds. Closing at once would answer octets in transit with a
#: reset, after which the client may not receive the last reply.
_LINGER_S = 2.0
#: Timeout of a TLS handshake, in seconds.
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
        self._state = NextState.COMMAND
        self._busy = False
        self._hanging = False
        self._write_paused = False
        self._closing = False
        self._client_closed = False
        self._task: asyncio.Task[None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._active_ms = context.clock.now_ms()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport
        self._machine: SmtpStateMachine

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._machine = SmtpStateMachine(
            self._context,
            connection=self._connection,
            ip=peer[0] if peer else "",
            secure=self._secure,
        )
        self._sessions.add(self)
        self._context.counters.connections += 1
        self._context.counters.open_connections += 1
        self._context.counters.secured += self._secure
        self._perform(self._machine.greet())
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
        self._process_input()
        if self._busy and len(self._framer) > _READ_AHEAD_BYTES:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Reply to what arrived before the client closed its side, then close ours."""
        self._client_closed = True
        if self._hanging or self._closing:
            return False
        # A client that closed its side may still read, so a fault that takes time may finish. TLS has no half-closed
        # state.
        return self._busy and self._transport.can_write_eof()

    def pause_writing(self) -> None:
        self._write_paused = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._resume()

    # Called by the sandbox.

    def idle_ms(self, now_ms: int) -> int:
        """Return for how long the client has sent nothing, in ms. A session in a fault is not idle."""
        return 0 if self._busy or self._closing else now_ms - self._active_ms

    def expire(self) -> None:
        self._context.counters.timed_out += 1
        self._out.append(self._context.phrases[OrdinaryReply.TIMED_OUT])
        self._close()

    def shut_down(self) -> None:
        """End the session because the sandbox stops. RFC 5321 §3.8: 421 may be sent at any time."""
        if self._closing or self._busy or self._write_paused:
            self._transport.abort()
            return
        self._closing = True
        self._out.append(self._context.phrases[OrdinaryReply.SHUTTING_DOWN])
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    # Processing of input.

    def _process_input(self) -> None:
        """Process all complete lines and messages."""
        framer, machine = self._framer, self._machine
        # Dot stuffing adds at most one octet to a line of two. The state machine checks the exact limit.
        content_limit = self._context.config.max_message_bytes * 3 // 2 + 2
        while not (self._busy or self._write_paused or self._closing):
            if self._state is NextState.CONTENT:
                content = framer.content(content_limit)
                if content is None:
                    break
                step = machine.message(content)
            else:
                line = framer.line(MAX_AUTH_BYTES)
                if line is None:
                    break
                more = len(framer) > 0
                step = machine.flawed(line) if isinstance(line, LineFlaw) else machine.command(line, more=more)
            self._perform(step)
        self._flush()

    def _resume(self) -> None:
        if self._transport.is_closing():
            return
        self._process_input()
        if self._client_closed and not self._busy:
            self._close()
        elif not (self._busy or self._write_paused or self._closing):
            self._transport.resume_reading()

    def _perform(self, step: SessionStep) -> None:
        if step.fault is not None and _needs_task(step.fault):
            self._flush()
            self._start(self._apply_fault(step, step.fault))
            return
        self._out.append(step.reply)
        self._enter(step.next_state)

    def _enter(self, next_state: NextState) -> None:
        match next_state:
            case NextState.COMMAND | NextState.CONTENT:
                self._state = next_state
            case NextState.TLS:
                self._flush()
                # RFC 3207 §4.2: data injected after STARTTLS in clear text must not be processed as if it came
                # through TLS (CVE-2011-0411).
                self._framer.discard()
                self._start(self._upgrade())
            case NextState.CLOSE:
                self._close()
            case _:
                assert_never(next_state)

    def _flush(self) -> None:
        if self._out:
            replies = b"".join(self._out)
            self._out.clear()
            self._transport.write(replies)

    def _close(self) -> None:
        """Send pending replies, close our side, and wait for the client before closing the socket."""
        self._flush()
        self._closing = True
        self._framer.discard()
        if self._client_closed or not self._transport.can_write_eof():
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

    async def _apply_fault(self, step: SessionStep, fault: Fault) -> None:
        clock = self._context.clock
        if fault.delay_ms:
            await clock.sleep(fault.delay_ms / 1000)
        match fault.ending:
            case ConnectionEnding.HANG:
                # Still busy: only the client or the end of the sandbox can end this.
                self._hanging = True
                if self._client_closed:
                    self._close()
                return
            case ConnectionEnding.DROP | ConnectionEnding.RESET:
                self._context.counters.dropped += 1
                self._drop(reset=fault.ending is ConnectionEnding.RESET)
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
        self._enter(NextState.CLOSE if fault.ending is ConnectionEnding.CLOSE else step.next_state)
        self._resume()

    def _drop(self, *, reset: bool) -> None:
        if not reset and self._transport.can_write_eof():
            self._close()
            return
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if reset and raw is not None:
            # SO_LINGER with 0 s makes the close a reset.
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
        self._machine.secured()
        self._state = NextState.COMMAND
        self._busy, self._task = False, None
        self._resume()


def _needs_task(fault: Fault) -> bool:
    return bool(fault.delay_ms or fault.byte_delay_ms or fault.ending is not ConnectionEnding.STAY)

"""The server of `postroad inbound`: sockets, connection limits and TLS. `smtp_handler` replies to the commands."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP

from postroad.bounce.sources.metrics import InboundMetrics
from postroad.bounce.sources.recipient_policy import RecipientPolicy
from postroad.bounce.sources.smtp_handler import InboundHandler, Submit
from postroad.bounce.sources.throttle import ConnectionCounts, Throttle, client_of
from postroad.clock import Clock
from postroad.errors import ConfigError, UnavailableError
from postroad.settings import InboundSettings
from postroad.settings.bounce import UNIX

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 65_536  # RFC 5321 §4.5.3.1.6 requires 1000, but some bounces quote longer lines
MAX_COMMAND_BYTES = 1_000
COMMAND_S = 300.0  # RFC 5321 §4.5.3.2.7; for a whole command, including the mail of DATA
SESSION_S = 1_800.0
"""Time limit of a connection, independent of the number of commands."""
OVERRUN = 2
"""A command or mail that exceeds its limit by this factor is not read to its end."""
MAX_LINES = 50_000
MEAN_LINE_BYTES = 40
"""A mail has at most MAX_LINES lines, or the maximum size divided by this mean length if that is more.

aiosmtpd stores each line as an object. A line of base64 has 78 bytes."""
TOO_MANY_LINES = b"552 5.3.4 Too many lines\r\n"
# Maximum calls per network connection. It disconnects a client that guesses addresses; one with more mail reconnects.
COMMAND_CALL_LIMITS = {"MAIL": 1_000, "RCPT": 2_000, "DATA": 1_000, "RSET": 1_000, "*": 50}
TOO_MANY_CONNECTIONS = b"421 4.7.0 Too many connections, try again\r\n"


class _Connection(SMTP):
    """One connection. Registers with the limiter, and enforces limits on time, length and lines."""

    line_length_limit = MAX_LINE_BYTES

    def __init__(self, handler: InboundHandler, limiter: ConnectionLimiter, **options: Any) -> None:
        # In aiosmtpd all connections share one such table, and each EHLO adds to it.
        self.command_size_limits = defaultdict(lambda: MAX_COMMAND_BYTES)
        super().__init__(
            handler, enable_SMTPUTF8=True, auth_exclude_mechanism=("LOGIN", "PLAIN"), timeout=COMMAND_S, **options
        )
        self._limiter = limiter
        self._received = 0  # bytes since the last command
        self._lines = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # STARTTLS calls connection_made a second time.
        if self._original_transport is None and not self._limiter.enter(transport, self):
            transport.set_protocol(asyncio.Protocol())
            transport.write(TOO_MANY_CONNECTIONS)  # type: ignore[attr-defined]
            transport.close()
            return
        if self._deadline is None:
            self._deadline = self.loop.call_later(SESSION_S, self._limiter.cut_off, self, "its session takes too long")
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        # aiosmtpd buffers a line without an end.
        self._received += len(data)
        if self._received > OVERRUN * max(self.data_size_limit or 0, MAX_LINE_BYTES):
            self._limiter.cut_off(self, "its command or mail has no end")
            return
        self._lines += data.count(b"\n")
        if self._lines > max(MAX_LINES, (self.data_size_limit or 0) // MEAN_LINE_BYTES):
            if isinstance(self.transport, asyncio.WriteTransport) and not self.transport.is_closing():
                self.transport.write(TOO_MANY_LINES)
                self.transport.close()  # If the client does not read the reply, the deadline ends the connection.
            return
        super().data_received(data)

    def _reset_timeout(self, duration: float | None = None) -> None:
        self._received = self._lines = 0  # A new command begins.
        super()._reset_timeout(duration)

    def connection_lost(self, error: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._limiter.leave(self)
        super().connection_lost(error)

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        try:
            return super()._getaddr(arg)
        except Exception:
            # The address parser raises various exceptions on invalid input.
            return None, None


class _Smtp(_Connection):
    """SMTP (RFC 5321)."""


class _Lmtp(_Connection, LMTP):
    """LMTP (RFC 2033). The client is the operator's own mail server, so it has no limit per client."""


class ConnectionLimiter:
    """Limits the open connections, in total and per client."""

    def __init__(self, counts: ConnectionCounts, metrics: InboundMetrics | None) -> None:
        self._counts = counts
        self._metrics = metrics
        self._open: dict[SMTP, tuple[str | None, asyncio.BaseTransport]] = {}

    def enter(self, transport: asyncio.BaseTransport, connection: SMTP) -> bool:
        """Register a connection. Returns False if a limit is reached."""
        client = None if isinstance(connection, LMTP) else client_of(transport.get_extra_info("peername"))
        if self._counts.full and not self._counts.has_its_share(client):
            self._close_one_of_heaviest()
        if not self._counts.enter(client):
            log.info("%s rejected: too many connections", client or "a local client")
            if self._metrics is not None:
                self._metrics.turned_away.inc()
            return False
        self._open[connection] = client, transport
        self._update_metrics()
        return True

    def leave(self, connection: SMTP) -> None:
        """Remove a connection that is closed."""
        if connection in self._open:
            client, _ = self._open.pop(connection)
            self._counts.leave(client)
            self._update_metrics()

    def cut_off(self, connection: SMTP, reason: str) -> None:
        """Abort a connection."""
        if connection in self._open:
            client, transport = self._open[connection]
            log.warning("the connection of %s is cut off: %s", client or "a local client", reason)
            self.leave(connection)
            transport.abort()  # type: ignore[attr-defined]

    def _close_one_of_heaviest(self) -> None:
        """Abort the oldest connection of the network client with the most connections."""
        heaviest = self._counts.heaviest
        oldest = next((connection for connection, (client, _) in self._open.items() if client == heaviest), None)
        if heaviest is not None and oldest is not None:
            self.cut_off(oldest, "all connections are taken, and it has most of them")

    def _update_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics.connections.set(len(self._open))

    def close(self) -> None:
        """Close all connections, after the replies that are already written."""
        for _, transport in list(self._open.values()):
            transport.close()


class Listening:
    """A running server: its sockets, handlers and addresses, and the number of accepted mails."""

    def __init__(self) -> None:
        self.servers: list[asyncio.Server] = []
        self.handlers: list[InboundHandler] = []
        self.addresses: list[str] = []

    @property
    def taken(self) -> int:
        """Number of accepted mails."""
        return sum(handler.taken for handler in self.handlers)

    async def close(self) -> None:
        """Stop listening, and wait until running submissions have their reply."""
        for server in self.servers:
            server.close()
        for handler in self.handlers:
            await handler.close()


@asynccontextmanager
async def listen(
    settings: InboundSettings,
    *,
    host_name: str,
    submit: Submit,
    recipient_policy: RecipientPolicy,
    clock: Clock,
    metrics: InboundMetrics | None = None,
) -> AsyncIterator[Listening]:
    """Run the server within the context. On exit, running submissions get their reply and all connections close.

    Args:
        settings: Addresses, certificate and limits.
        host_name: Host name in the greeting.
        submit: Stores and enqueues a mail.
        recipient_policy: Accepts or rejects recipients.
        clock: Time source of the throttle.
        metrics: Metrics of the server.

    Yields:
        The running server.

    Raises:
        ConfigError: The certificate or its key cannot be read.
        UnavailableError: An address cannot be bound.
    """
    context = _tls_context(settings)
    throttle = Throttle(settings.mails_per_client, clock)
    limiter = _limiter_of(settings, metrics)
    listening = Listening()

    async def bind(address: str, protocol: type[_Connection], **options: Any) -> None:
        handler = InboundHandler(
            submit=submit,
            recipient_policy=recipient_policy,
            throttle=throttle,
            submit_ms=settings.submit_ms,
            per_recipient=protocol is _Lmtp,
            metrics=metrics,
        )
        listening.handlers.append(handler)
        options |= {"hostname": host_name, "ident": "Postroad", "loop": asyncio.get_running_loop()}
        options |= {"data_size_limit": settings.max_message_bytes}
        listening.servers.append(await _bind(address, lambda: protocol(handler, limiter, **options)))

    try:
        if settings.smtp is not None:
            await bind(settings.smtp, _Smtp, tls_context=context, command_call_limit=COMMAND_CALL_LIMITS)
        if settings.lmtp is not None:
            await bind(settings.lmtp, _Lmtp)
        listening.addresses = [_address_of(server) for server in listening.servers]
        yield listening
    finally:
        await listening.close()
        limiter.close()


def _limiter_of(settings: InboundSettings, metrics: InboundMetrics | None) -> ConnectionLimiter:
    counts = ConnectionCounts(limit=settings.connections, limit_per_client=settings.connections_per_client)
    return ConnectionLimiter(counts, metrics)


def greeting(settings: InboundSettings, *, timeout_s: float = 2.0) -> str | None:
    """Connect to a running server and return its greeting, or None if it is unreachable. Blocking.

    Args:
        settings: Settings of the server.
        timeout_s: Timeout of the connection, in seconds.

    Returns:
        The greeting line.
    """
    address = settings.smtp or settings.lmtp or ""
    try:
        with _connect(address, timeout_s) as connection:
            line = connection.recv(512).decode("ascii", "replace").strip()
    except OSError:
        return None
    return line or None


def _connect(address: str, timeout_s: float) -> socket.socket:
    if address.startswith(UNIX):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(address.removeprefix(UNIX))
        except BaseException:
            connection.close()
            raise
        return connection
    host, _, port = address.rpartition(":")
    # A server on all interfaces is reachable on the loopback interface.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104
    return socket.create_connection((host, int(port)), timeout=timeout_s)


async def _bind(address: str, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        if address.startswith(UNIX):
            path = Path(address.removeprefix(UNIX))
            server = await loop.create_unix_server(factory, path)
            # The mail server runs as another user. Access to the directory decides who can connect.
            await asyncio.to_thread(path.chmod, 0o666)
            return server
        host, _, port = address.rpartition(":")
        return await loop.create_server(factory, host.strip("[]"), int(port))
    except (OSError, OverflowError) as error:
        raise UnavailableError(
            f"cannot listen at {address}: {error}", remedy="Is the port in use, or below 1024 and kept for root?"
        ) from None


def _address_of(server: asyncio.Server) -> str:
    name = server.sockets[0].getsockname()
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else f"{UNIX}{name}"


def _tls_context(settings: InboundSettings) -> ssl.SSLContext | None:
    if settings.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certificate, settings.private_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the certificate or its key cannot be read: {error}",
            where=f"inbound.certificate, {settings.certificate}",
        ) from None
    return context

"""The listener of `postroad inbound`: sockets, connections and TLS. What clients are answered is in `reception`."""

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

from postroad.bounce.sources.addressees import Addressees
from postroad.bounce.sources.metrics import InboundMetrics
from postroad.bounce.sources.reception import Reception, Submit
from postroad.bounce.sources.throttle import Connections, Throttle, client_of
from postroad.clock import Clock
from postroad.errors import ConfigError, UnavailableError
from postroad.settings import InboundSettings
from postroad.settings.bounce import UNIX

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 65_536  # RFC 5321 §4.5.3.1.6 says 1000, and bounces that quote what was longer exist
MAX_COMMAND_BYTES = 1_000
COMMAND_S = 300.0  # RFC 5321 §4.5.3.2.7; for a whole command, DATA with its mail included
SESSION_S = 1_800.0
"""For all of a connection: what a client may hold, however many commands it sends."""
OVERRUN = 2
"""A command, or a mail, that is so many times longer than it may be is not read to its end."""
MAX_LINES = 50_000
MEAN_LINE_BYTES = 40
"""A mail has at most MAX_LINES; where a larger mail is allowed, so many that its lines have this mean. Each line is an
object of its own until the mail is complete. A line of base64 has 78 bytes."""
TOO_MANY_LINES = b"552 5.3.4 Too many lines\r\n"
# For each connection over the network. A client that guesses addresses is cut off, one that has more mail comes again.
CALLS = {"MAIL": 1_000, "RCPT": 2_000, "DATA": 1_000, "RSET": 1_000, "*": 50}
TOO_MANY_CONNECTIONS = b"421 4.7.0 Too many connections, try again\r\n"


class _Connection(SMTP):
    """One connection: counted, and shut where there are too many."""

    line_length_limit = MAX_LINE_BYTES

    def __init__(self, reception: Reception, door: ConnectionLimiter, **options: Any) -> None:
        # The class shares one such table among all connections, and lets each EHLO add to it.
        self.command_size_limits = defaultdict(lambda: MAX_COMMAND_BYTES)
        super().__init__(
            reception, enable_SMTPUTF8=True, auth_exclude_mechanism=("LOGIN", "PLAIN"), timeout=COMMAND_S, **options
        )
        self._door = door
        self._received = 0  # bytes since the last command
        self._lines = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Under STARTTLS a connection is made a second time.
        if self._original_transport is None and not self._door.enter(transport, self):
            transport.set_protocol(asyncio.Protocol())
            transport.write(TOO_MANY_CONNECTIONS)  # type: ignore[attr-defined]
            transport.close()
            return
        if self._deadline is None:
            self._deadline = self.loop.call_later(SESSION_S, self._door.cut_off, self, "its session takes too long")
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        # aiosmtpd keeps all of a line that does not end.
        self._received += len(data)
        if self._received > OVERRUN * max(self.data_size_limit or 0, MAX_LINE_BYTES):
            self._door.cut_off(self, "its command or mail has no end")
            return
        self._lines += data.count(b"\n")
        if self._lines > max(MAX_LINES, (self.data_size_limit or 0) // MEAN_LINE_BYTES):
            if isinstance(self.transport, asyncio.WriteTransport) and not self.transport.is_closing():
                self.transport.write(TOO_MANY_LINES)
                self.transport.close()  # Its deadline ends it where the client reads no reply.
            return
        super().data_received(data)

    def _reset_timeout(self, duration: float | None = None) -> None:
        self._received = self._lines = 0  # A command begins.
        super()._reset_timeout(duration)

    def connection_lost(self, error: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._door.leave(self)
        super().connection_lost(error)

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        try:
            return super()._getaddr(arg)
        except Exception:
            # The parser behind it raises whatever it likes. What a stranger types is no error of ours.
            return None, None


class _Smtp(_Connection):
    """RFC 5321."""


class _Lmtp(_Connection, LMTP):
    """RFC 2033. Its client is the operator's own mail server: that one is not limited by itself."""


class ConnectionLimiter:
    """Knows the connections that are open."""

    def __init__(self, connections: Connections, metrics: InboundMetrics | None) -> None:
        self._connections = connections
        self._metrics = metrics
        self._open: dict[SMTP, tuple[str | None, asyncio.BaseTransport]] = {}

    def enter(self, transport: asyncio.BaseTransport, connection: SMTP) -> bool:
        client = None if isinstance(connection, LMTP) else client_of(transport.get_extra_info("peername"))
        if self._connections.full and not self._connections.has_its_share(client):
            self._make_room()
        if not self._connections.enter(client):
            log.info("%s has too many connections, or all have", client or "a local client")
            if self._metrics is not None:
                self._metrics.turned_away.inc()
            return False
        self._open[connection] = client, transport
        self._show()
        return True

    def leave(self, connection: SMTP) -> None:
        if connection in self._open:
            client, _ = self._open.pop(connection)
            self._connections.leave(client)
            self._show()

    def cut_off(self, connection: SMTP, why: str) -> None:
        """Close a connection at once."""
        if connection in self._open:
            client, transport = self._open[connection]
            log.warning("the connection of %s is cut off: %s", client or "a local client", why)
            self.leave(connection)
            transport.abort()  # type: ignore[attr-defined]

    def _make_room(self) -> None:
        """Close the oldest connection of the client that has most of them. A local client's are kept."""
        heaviest = self._connections.heaviest
        oldest = next((each for each, (client, _) in self._open.items() if client == heaviest), None)
        if heaviest is not None and oldest is not None:
            self.cut_off(oldest, "all connections are taken, and it has most of them")

    def _show(self) -> None:
        if self._metrics is not None:
            self._metrics.connections.set(len(self._open))

    def shut(self) -> None:
        """Close what is open, behind what was answered."""
        for _, transport in list(self._open.values()):
            transport.close()


class Listening:
    """Where it listens, and how many mails it took."""

    def __init__(self) -> None:
        self.servers: list[asyncio.Server] = []
        self.receptions: list[Reception] = []
        self.places: list[str] = []

    @property
    def taken(self) -> int:
        return sum(reception.taken for reception in self.receptions)


@asynccontextmanager
async def listen(
    settings: InboundSettings,
    *,
    host_name: str,
    submit: Submit,
    addressees: Addressees,
    clock: Clock,
    metrics: InboundMetrics | None = None,
) -> AsyncIterator[Listening]:
    """Listen until it is left; then what is being submitted is answered, and the rest told to come again.

    Raises ConfigError for a certificate, UnavailableError for an address that cannot be listened at.
    """
    context = _tls_context(settings)
    throttle = Throttle(settings.mails_per_client, clock)
    connections = Connections(most=settings.connections, most_per_client=settings.connections_per_client)
    door = ConnectionLimiter(connections, metrics)
    listening = Listening()
    loop = asyncio.get_running_loop()

    def factory(protocol: type[_Connection], **options: Any) -> Callable[[], asyncio.BaseProtocol]:
        reception = Reception(
            submit=submit,
            addressees=addressees,
            throttle=throttle,
            submit_ms=settings.submit_ms,
            per_recipient=protocol is _Lmtp,
            metrics=metrics,
        )
        listening.receptions.append(reception)
        return lambda: protocol(
            reception,
            door,
            hostname=host_name,
            ident="Postroad",
            data_size_limit=settings.max_message_bytes,
            loop=loop,
            **options,
        )

    try:
        if settings.smtp is not None:
            server = await _bind(settings.smtp, factory(_Smtp, tls_context=context, command_call_limit=CALLS))
            listening.servers.append(server)
        if settings.lmtp is not None:
            listening.servers.append(await _bind(settings.lmtp, factory(_Lmtp)))
        listening.places = [_place(server) for server in listening.servers]
        yield listening
    finally:
        for server in listening.servers:
            server.close()
        for reception in listening.receptions:
            await reception.close()
        door.shut()


def greeting(settings: InboundSettings, *, timeout_s: float = 2.0) -> str | None:
    """What a listener of these settings says to whoever connects. None: nobody answers there. Blocking."""
    where = settings.smtp or settings.lmtp or ""
    try:
        with _connected(where, timeout_s) as connection:
            said = connection.recv(512).decode("ascii", "replace").strip()
    except OSError:
        return None
    return said or None


def _connected(where: str, timeout_s: float) -> socket.socket:
    if where.startswith(UNIX):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(where.removeprefix(UNIX))
        except BaseException:
            connection.close()
            raise
        return connection
    host, _, port = where.rpartition(":")
    # Who listens everywhere is reached on this machine.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104
    return socket.create_connection((host, int(port)), timeout=timeout_s)


async def _bind(where: str, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        if where.startswith(UNIX):
            path = Path(where.removeprefix(UNIX))
            server = await loop.create_unix_server(factory, path)
            # Who may connect is who may enter its folder: the mail server runs as a user of its own.
            await asyncio.to_thread(path.chmod, 0o666)
            return server
        host, _, port = where.rpartition(":")
        return await loop.create_server(factory, host.strip("[]"), int(port))
    except (OSError, OverflowError) as error:
        raise UnavailableError(
            f"cannot listen at {where}: {error}", remedy="Is the port in use, or below 1024 and kept for root?"
        ) from None


def _place(server: asyncio.Server) -> str:
    address = server.sockets[0].getsockname()
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else f"{UNIX}{address}"


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

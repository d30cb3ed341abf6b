"""Open an SMTP session: TCP connect, EHLO, STARTTLS, AUTH. aiosmtplib speaks the protocol."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

import aiosmtplib

from postroad.settings import TlsMode
from postroad.smtp.dane import check_chain, peer_chain
from postroad.smtp.endpoint import Endpoint
from postroad.smtp.errors import Timeouts, TransportError
from postroad.smtp.oauth import TokenError, TokenSource
from postroad.smtp.reply import Phase, Reply, clean, parse_reply
from postroad.smtp.tls import client_context

MAX_ADDRESSES = 6
MAX_REASON = 500
"""Maximum length of a malformed reply in an error, characters."""
_NO_SUCH_COMMAND = frozenset({500, 501, 502, 504})
_BAD_CREDENTIALS = 535  # RFC 4954 §6. XOAUTH2 sends a 334 with a reason in JSON first.


async def open_client(endpoint: Endpoint, timeouts: Timeouts) -> aiosmtplib.SMTP:
    """Open a session within `Timeouts.opening`.

    Args:
        endpoint: The host, with its protection and login.
        timeouts: The deadlines, in seconds.

    Returns:
        A client that is connected, encrypted as the endpoint requires, and authenticated.

    Raises:
        TransportError: The session could not be opened. Contains the server's reply, if there was one.
    """
    progress = _Progress()
    try:
        async with asyncio.timeout(timeouts.opening):
            try:
                return await _open(endpoint, timeouts, progress)
            except TransportError as error:
                if endpoint.tls is not TlsMode.OPPORTUNISTIC or error.phase is not Phase.TLS:
                    raise
                # RFC 7435 §3: if opportunistic encryption fails, deliver without it.
                return await _open(replace(endpoint, tls=TlsMode.NONE), timeouts, progress)
    except TimeoutError:
        reason = f"{endpoint.name} has not opened a session within {timeouts.opening:g} s"
        raise TransportError(progress.phase, reason, late_s=timeouts.opening) from None


class _Progress:
    """The phase that the opening of a session has reached."""

    phase = Phase.CONNECT


async def _open(endpoint: Endpoint, timeouts: Timeouts, progress: _Progress) -> aiosmtplib.SMTP:
    progress.phase = Phase.CONNECT
    try:
        client = aiosmtplib.SMTP(
            hostname=endpoint.host,
            local_hostname=endpoint.origin.helo,
            use_tls=endpoint.tls is TlsMode.IMPLICIT,
            start_tls=False,  # `starttls` is called below, so that an error has the right phase.
            tls_context=_context(endpoint),
            timeout=timeouts.greeting,
        )
        with ExitStack() as unless_opened:
            unless_opened.callback(client.close)
            # From here asyncio owns the socket and closes it in any case. A close here could hit a reused descriptor.
            await client.connect(sock=await connect(endpoint, timeouts.connect))
            progress.phase = Phase.EHLO
            await _greet(client)
            if endpoint.tls is TlsMode.STARTTLS or (
                endpoint.tls is TlsMode.OPPORTUNISTIC and client.supports_extension("starttls")
            ):
                progress.phase = Phase.TLS
                await client.starttls()
                _check_tlsa(client, endpoint)
                progress.phase = Phase.EHLO
                await client.ehlo()
            progress.phase = Phase.AUTH
            await _log_in(client, endpoint)
            unless_opened.pop_all()
            return client
    except aiosmtplib.SMTPResponseException as error:
        if not 200 <= error.code < 600:  # not an SMTP reply
            raise TransportError(progress.phase, clean(str(error.message))[:MAX_REASON]) from None
        reply = parse_reply(progress.phase, error.code, str(error.message).splitlines())
        reason = _login_reason(reply, endpoint) if progress.phase is Phase.AUTH else str(reply)
        raise TransportError(progress.phase, reason, reply=reply) from None
    # ValueError: the host is not a valid name. OSError: any failure of sockets, TLS and files.
    except (aiosmtplib.SMTPException, TokenError, OSError, ValueError) as error:
        silent = f"{endpoint.name} does not answer" if isinstance(error, TimeoutError) else type(error).__name__
        late_s = _expired_deadline_s(error, timeouts)
        raise TransportError(progress.phase, str(error) or silent, late_s=late_s) from None


async def connect(endpoint: Endpoint, timeout_s: float) -> socket.socket:
    """Connect to the first of the host's addresses that accepts, from the endpoint's source address.

    Args:
        endpoint: The host.
        timeout_s: Deadline for all addresses together, in seconds.

    Returns:
        The connected socket, non-blocking.

    Raises:
        OSError: No address accepts a connection. TimeoutError is an OSError.
    """
    async with asyncio.timeout(timeout_s):
        failures: list[OSError] = []
        targets = await _targets(endpoint)
        for family, address in targets[:MAX_ADDRESSES]:
            try:
                # An address that drops packets must not use up the time of the others.
                async with asyncio.timeout(timeout_s / min(len(targets), 3)):
                    return await _connect_to(family, address, endpoint.origin.source_address)
            except OSError as error:
                failures.append(error)
    if not failures:
        raise OSError(f"{endpoint.host} has no address that can be reached from {endpoint.origin.source_address}")
    raise failures[0] if str(failures[0]) else TimeoutError(f"{endpoint.name} accepts no connection")


async def _targets(endpoint: Endpoint) -> list[tuple[int, tuple[str, int]]]:
    """Return family and address of each place to connect to, only those that the source address can reach."""
    if endpoint.addresses:
        targets = [
            (int(socket.AF_INET6 if ":" in address else socket.AF_INET), (address, endpoint.port))
            for address in endpoint.addresses
        ]
    else:
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        targets = [(int(info[0]), (str(info[4][0]), endpoint.port)) for info in infos]
    source = endpoint.origin.source_address
    if source is None:
        return targets
    source_family = socket.AF_INET6 if ":" in source else socket.AF_INET
    return [(family, address) for family, address in targets if family == source_family]


async def _connect_to(family: int, address: tuple[str, int], source: str | None) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        # So that a peer that vanished while the session was idle is noticed before a message waits minutes for a reply.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if source is not None:
            connection.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


def _expired_deadline_s(error: Exception, timeouts: Timeouts) -> float | None:
    """Return the deadline that expired, in seconds. None if the error is not a timeout."""
    if isinstance(error, aiosmtplib.SMTPTimeoutError):
        return timeouts.greeting
    return timeouts.connect if isinstance(error, TimeoutError) else None


def _login_reason(reply: Reply, endpoint: Endpoint) -> str:
    """Return why the login failed, with the setting to correct."""
    if reply.code < 500:
        return f"{endpoint.name} takes no login now: {reply}"
    to_fix = "password: POSTROAD_ROUTES__NAME__PASSWORD" if endpoint.tokens is None else "section oauth"
    return (
        f"{endpoint.name} refuses the login of {endpoint.username}: {reply}. Correct the route's username or {to_fix}"
    )


def _context(endpoint: Endpoint) -> ssl.SSLContext | None:
    if endpoint.tls is TlsMode.NONE:
        return None
    verify = endpoint.verify_certificate and endpoint.tls is not TlsMode.OPPORTUNISTIC and not endpoint.tlsa
    return client_context(
        endpoint.ca_file, verify=verify, certificate=endpoint.client_certificate, key=endpoint.client_key
    )


async def _greet(client: aiosmtplib.SMTP) -> None:
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError as error:
        if error.code not in _NO_SUCH_COMMAND:
            raise
        await client.helo()  # RFC 5321 §3.2: a server without extensions


def _check_tlsa(client: aiosmtplib.SMTP, endpoint: Endpoint) -> None:
    if endpoint.tlsa:
        connection = client.get_transport_info("ssl_object")
        check_chain(peer_chain(connection), endpoint.tlsa, endpoint.host, datetime.now(UTC))


async def _log_in(client: aiosmtplib.SMTP, endpoint: Endpoint) -> None:
    if endpoint.username is None or (endpoint.password is None and endpoint.tokens is None):
        return
    if client.get_transport_info("ssl_object") is None and not endpoint.clear_text_login:
        raise TokenError("the connection is not encrypted, and clear_text_login is not set: no login")
    if endpoint.tokens is not None:
        await _log_in_by_token(client, endpoint.username, endpoint.tokens)
    elif endpoint.password is not None:
        await client.login(endpoint.username, endpoint.password.get_secret_value())


async def _log_in_by_token(client: aiosmtplib.SMTP, username: str, tokens: TokenSource) -> None:
    if "xoauth2" not in client.server_auth_methods:
        raise TokenError("the server does not offer XOAUTH2")
    token = await tokens.token()
    try:
        await client.auth_xoauth2(username, token.get_secret_value())
    except aiosmtplib.SMTPAuthenticationError as error:
        tokens.refused(token)
        if error.code != _BAD_CREDENTIALS:
            raise
        # The token may have been revoked before it expired. Try one fresh token; its result is final.
        fresh = await tokens.token()
        await client.auth_xoauth2(username, fresh.get_secret_value())

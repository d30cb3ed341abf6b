"""Open an SMTP session: connect, EHLO, STARTTLS, AUTH. aiosmtplib speaks the protocol."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

import aiosmtplib

from postroad.settings import TlsMode
from postroad.smtp.connect import connect
from postroad.smtp.dane import check_chain, peer_chain
from postroad.smtp.endpoint import Endpoint
from postroad.smtp.failure import Timeouts, TransportError
from postroad.smtp.oauth import TokenError, TokenSource
from postroad.smtp.reply import Phase, Reply, clean, parse_reply
from postroad.smtp.tls import client_context

MAX_REASON = 500
"""Characters that are kept of what a server said in place of a reply."""
_NO_SUCH_COMMAND = frozenset({500, 501, 502, 504})
_BAD_CREDENTIALS = 535  # RFC 4954 §6; the 334 of XOAUTH2, with its reason in JSON, is followed by it


async def open_client(endpoint: Endpoint, timeouts: Timeouts) -> aiosmtplib.SMTP:
    """Open a session within `Timeouts.opening`. Raises TransportError, with the reply where there was one."""
    progress = _Progress()
    try:
        async with asyncio.timeout(timeouts.opening):
            try:
                return await _open(endpoint, timeouts, progress)
            except TransportError as error:
                if endpoint.tls is not TlsMode.OPPORTUNISTIC or error.phase is not Phase.TLS:
                    raise
                # RFC 7435 §3: encryption that does not come about is no reason not to deliver.
                return await _open(replace(endpoint, tls=TlsMode.NONE), timeouts, progress)
    except TimeoutError:
        reason = f"{endpoint.name} has not opened a session within {timeouts.opening:g} s"
        raise TransportError(progress.phase, reason, late_s=timeouts.opening) from None


class _Progress:
    """How far the opening of a session has come."""

    phase = Phase.CONNECT


async def _open(endpoint: Endpoint, timeouts: Timeouts, progress: _Progress) -> aiosmtplib.SMTP:
    progress.phase = Phase.CONNECT
    try:
        client = aiosmtplib.SMTP(
            hostname=endpoint.host,
            local_hostname=endpoint.origin.helo,
            use_tls=endpoint.tls is TlsMode.IMPLICIT,
            start_tls=False,  # We say when: an error then knows its phase.
            tls_context=_context(endpoint),
            timeout=timeouts.greeting,
        )
        with ExitStack() as unless_it_stands:
            unless_it_stands.callback(client.close)
            # From here the socket is asyncio's, which closes it whatever happens: we could close another's by then.
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
            unless_it_stands.pop_all()
            return client
    except aiosmtplib.SMTPResponseException as error:
        if not 200 <= error.code < 600:  # what was said was no reply
            raise TransportError(progress.phase, clean(str(error.message))[:MAX_REASON]) from None
        reply = parse_reply(progress.phase, error.code, str(error.message).splitlines())
        reason = _words_for_login(reply, endpoint) if progress.phase is Phase.AUTH else str(reply)
        raise TransportError(progress.phase, reason, reply=reply) from None
    # ValueError: a host that cannot be a name; OSError: all that goes wrong with sockets, TLS and files.
    except (aiosmtplib.SMTPException, TokenError, OSError, ValueError) as error:
        late_s = _late_s(error, timeouts)
        raise TransportError(progress.phase, str(error) or _words_for(error, endpoint), late_s=late_s) from None


def _late_s(error: Exception, timeouts: Timeouts) -> float | None:
    """The deadline that cut it off, in seconds. None: it failed otherwise."""
    if isinstance(error, aiosmtplib.SMTPTimeoutError):
        return timeouts.greeting
    return timeouts.connect if isinstance(error, TimeoutError) else None


def _words_for(error: Exception, endpoint: Endpoint) -> str:
    return f"{endpoint.name} does not answer" if isinstance(error, TimeoutError) else type(error).__name__


def _words_for_login(reply: Reply, endpoint: Endpoint) -> str:
    """What somebody who can mend it has to know."""
    if reply.code < 500:
        return f"{endpoint.name} takes no login now: {reply}"
    mend = "password: POSTROAD_ROUTES__NAME__PASSWORD" if endpoint.tokens is None else "section oauth"
    return f"{endpoint.name} refuses the login of {endpoint.username}: {reply}. Correct the route's username or {mend}"


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
        await client.helo()  # RFC 5321 §3.2: a server of old


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
        # It may have been revoked before its time. One more, and what is said to that stands.
        fresh = await tokens.token()
        await client.auth_xoauth2(username, fresh.get_secret_value())

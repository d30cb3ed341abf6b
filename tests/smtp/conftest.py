"""Fixtures and helpers of the session tests."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import hypothesis
import pytest
import trustme
from pydantic import SecretStr

from postroad.mail.message import Message
from postroad.settings import TlsMode
from postroad.smtp.endpoint import Endpoint
from postroad.smtp.errors import Timeouts
from postroad.smtp.session import SmtpSession
from tests.on_uvloop import pytest_asyncio_loop_factories  # noqa: F401
from tests.smtp.scripted import ScriptedServer

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

QUICK = Timeouts(connect=5, greeting=5, mail=5, rcpt=5, data=5, dot=5)


def message(
    content: bytes = b"Subject: hello\r\n\r\nbody\r\n",
    *,
    return_path: str = "bounce@example.com",
    recipient: str = "ada@example.org",
) -> Message:
    return Message(return_path=return_path, recipient=recipient, message_id="<1@x>", content=content)


def route(
    port: int,
    *,
    tls: TlsMode = TlsMode.NONE,
    ca_file: Path | None = None,
    username: str | None = None,
    password: str | None = None,
    connections: int = 10,
    messages_per_connection: int = 100,
    host: str = "127.0.0.1",
) -> Endpoint:
    return Endpoint(
        host=host,
        port=port,
        tls=tls,
        ca_file=ca_file,
        username=username,
        password=SecretStr(password) if password is not None else None,
        clear_text_login=tls in (TlsMode.NONE, TlsMode.OPPORTUNISTIC),
        connections=connections,
        messages_per_connection=messages_per_connection,
    )


async def nothing() -> None:
    """A before_body that does nothing."""


async def unusable(session: SmtpSession) -> None:
    """Return once the session has noticed that its connection is gone."""
    async with asyncio.timeout(10):
        while session.usable:
            await asyncio.sleep(0)


class Marks:
    """A before_body that counts its calls and runs a test's own action."""

    def __init__(self, act: Callable[[], Awaitable[None]] = nothing) -> None:
        self.count = 0
        self._act = act

    async def __call__(self) -> None:
        self.count += 1
        await self._act()


@asynccontextmanager
async def opened(server: ScriptedServer, timeouts: Timeouts = QUICK) -> AsyncIterator[SmtpSession]:
    async with server:
        session = await SmtpSession.open(route(server.port), timeouts)
        try:
            yield session
        finally:
            await session.close()


class Certificates:
    """A private authority and a server certificate that it signed."""

    def __init__(self, folder: Path, names: tuple[str, ...] = ("127.0.0.1", "localhost")) -> None:
        authority = trustme.CA()
        self._server = authority.issue_cert(*names)
        self.ca_file = folder / "ca.pem"
        self.certificate = folder / "server.pem"
        self.private_key = folder / "server.key"
        authority.cert_pem.write_to_path(self.ca_file)
        self._server.private_key_pem.write_to_path(self.private_key)
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in self._server.cert_chain_pems))

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server.configure_cert(context)
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))

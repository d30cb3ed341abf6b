"""SMTP clients that hold connections of `postroad inbound`, or send what has no end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from pydantic import SecretStr

from postroad.bounce.intake import IntakeResult
from postroad.bounce.report import Envelope
from postroad.bounce.sources import listener
from postroad.bounce.sources.listener import OVERRUN, listen
from postroad.bounce.sources.recipient_policy import RecipientPolicy
from postroad.clock import SystemClock
from postroad.mail.token import TokenSigner
from postroad.settings import InboundSettings

BOUND_S = 30.0
SIZE = 100_000
ADDRESS = "postmaster@example.com"


async def no_mail(raw: bytes, envelope: Envelope) -> IntakeResult:
    raise AssertionError(f"{len(raw)} bytes from {envelope.mail_from} were taken for a mail")


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    settings = InboundSettings.model_validate({"smtp": "127.0.0.1:0", "max_message_bytes": SIZE})
    recipient_policy = RecipientPolicy(
        TokenSigner(SecretStr("a key of the tests")), domains=[], addresses=[ADDRESS], senders=()
    )
    async with listen(
        settings, host_name="in.example.com", submit=no_mail, recipient_policy=recipient_policy, clock=SystemClock()
    ) as found:
        yield int(found.addresses[0].rpartition(":")[2])


async def connect(port: int, client: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(client, 0))
    return reader, writer, await reader.readline()


async def test_silent_connections_of_many_clients_do_not_keep_another_out() -> None:
    async with AsyncExitStack() as stack, listening() as port, asyncio.timeout(BOUND_S):
        for _ in range(15):
            for number in range(1, 16):
                _, writer, _ = await connect(port, f"127.0.1.{number}")
                stack.callback(writer.close)
        _, writer, greeting = await connect(port, "127.0.0.3")
        writer.close()
    assert greeting.startswith(b"220 ")


LINE, LINES = b"x" * 1_000, b"x" * 998 + b"\r\n"
MAIL = b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<%s>\r\nDATA\r\n"


@pytest.mark.parametrize(
    ("commands", "unit"),
    [(b"", LINE), (MAIL, LINE), (MAIL, LINES)],
    ids=["a command", "a line of a mail", "lines of a mail"],
)
async def test_what_has_no_end_is_cut_off(commands: bytes, unit: bytes) -> None:
    sent = 0
    async with listening() as port, asyncio.timeout(BOUND_S):
        reader, writer, _ = await connect(port, "127.0.0.2")
        writer.write(commands.replace(b"%s", ADDRESS.encode()))
        await writer.drain()
        with suppress(ConnectionError):
            while not writer.is_closing() and not reader.at_eof():
                writer.write(unit)
                await writer.drain()
                sent += len(unit)
        writer.close()
    assert sent < 100 * OVERRUN * SIZE  # the kernel's buffers of both sides come on top: some MiB each


async def test_a_mail_of_too_many_lines_is_refused_as_they_arrive() -> None:
    lines = listener.MAX_LINES + 10
    assert 2 * lines < OVERRUN * SIZE  # Its bytes alone would be read to their end.
    async with listening() as port, asyncio.timeout(BOUND_S):
        reader, writer, _ = await connect(port, "127.0.0.2")
        writer.write(MAIL.replace(b"%s", ADDRESS.encode()))
        replies = [await reader.readline() for _ in range(4)]
        writer.write(b"\r\n" * lines)
        refusal = await reader.readline()
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
    assert replies[-1].startswith(b"354 ")
    assert refusal.startswith(b"552 5.3.4")


async def test_a_session_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "SESSION_S", 0.5)
    async with listening() as port, asyncio.timeout(BOUND_S):
        reader, writer, _ = await connect(port, "127.0.0.2")
        with suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"NOOP\r\n" if writer.transport.get_write_buffer_size() == 0 else b"")
                await writer.drain()
                await reader.readline()
                await asyncio.sleep(0.05)
        writer.close()

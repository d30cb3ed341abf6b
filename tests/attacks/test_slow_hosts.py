"""Mail hosts that are slow on purpose: none of them holds a session, a job or a worker beyond a deadline."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from postroad.delivery.outcome import classify_transport_error
from postroad.delivery.result import DeliveryVerdict
from postroad.settings import TlsMode
from postroad.smtp.errors import Timeouts, TransportError
from postroad.smtp.pool import SessionPool
from postroad.smtp.reply import Phase
from postroad.smtp.session import SmtpSession
from tests.smtp.conftest import QUICK, Certificates, Marks, message, nothing, route
from tests.smtp.scripted import Connection, ScriptedServer

SHORT_S = 0.3

BOUND_S = 15.0
"""Far beyond the deadlines, and far below the time that the attack would take."""

SHORT = Timeouts(connect=SHORT_S, greeting=SHORT_S, mail=SHORT_S, rcpt=SHORT_S, data=SHORT_S, dot=SHORT_S)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


def trickling(unit: bytes) -> Callable[[Connection], Awaitable[None]]:
    """Say the beginning of a reply, then more of it for ever, faster than any deadline."""

    async def trickle(connection: Connection) -> None:
        connection.say(b"250-")
        with suppress(ConnectionError):
            while not connection.writer.is_closing():
                connection.say(unit)
                await connection.writer.drain()
                await asyncio.sleep(SHORT_S / 10)

    return trickle


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["grouped", "in turn"])
@pytest.mark.parametrize("unit", [b"x", b"x\r\n250-"], ids=["one line", "many lines"])
@pytest.mark.parametrize("phase", ["MAIL", "RCPT", "DATA", "DOT"])
async def test_a_reply_that_trickles_is_cut_off(phase: str, unit: bytes, extensions: tuple[str, ...]) -> None:
    async with ScriptedServer({phase: trickling(unit)}, extensions=extensions) as server, asyncio.timeout(BOUND_S):
        session = await SmtpSession.open(route(server.port), SHORT)
        with pytest.raises(TransportError) as caught:
            await session.send(message(), nothing)
    error = caught.value
    assert error.phase is Phase[phase]
    assert error.late_s == SHORT_S
    assert error.unknown is (phase == "DOT")
    assert not session.usable
    assert classify_transport_error(error).verdict is (
        DeliveryVerdict.UNKNOWN if phase == "DOT" else DeliveryVerdict.RETRY
    )


@pytest.mark.parametrize("unit", [b"x", b"x\r\n250-"], ids=["one line", "many lines"])
@pytest.mark.parametrize("step", ["CONNECT", "EHLO", "STARTTLS", "AUTH"])
async def test_a_session_whose_opening_trickles_is_cut_off(step: str, unit: bytes, certificates: Certificates) -> None:
    server = ScriptedServer(
        {step: trickling(unit)},
        extensions=("AUTH PLAIN", *(["STARTTLS"] if step == "STARTTLS" else [])),
        starttls=None,
    )
    endpoint = route(
        0,
        tls=TlsMode.STARTTLS if step == "STARTTLS" else TlsMode.NONE,
        ca_file=certificates.ca_file,
        username="ada",
        password="pony",
    )
    async with server, asyncio.timeout(BOUND_S):
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(replace(endpoint, port=server.port), SHORT)
    assert caught.value.late_s == SHORT_S
    assert caught.value.before_mail


@pytest.mark.parametrize("tls", [TlsMode.STARTTLS, TlsMode.IMPLICIT])
async def test_a_tls_handshake_that_never_ends_is_cut_off(tls: TlsMode, certificates: Certificates) -> None:
    async def handshake(connection: Connection) -> None:
        if tls is TlsMode.STARTTLS:
            connection.say("220 2.0.0 go ahead")
        connection.say(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB
        with suppress(ConnectionError):
            while not connection.writer.is_closing():
                connection.say(b"\x02")
                await connection.writer.drain()
                await asyncio.sleep(SHORT_S / 10)

    step = "STARTTLS" if tls is TlsMode.STARTTLS else "CONNECT"
    async with (
        ScriptedServer({step: handshake}, extensions=("STARTTLS",)) as server,
        asyncio.timeout(BOUND_S),
    ):
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(route(server.port, tls=tls, ca_file=certificates.ca_file), SHORT)
    assert caught.value.before_mail


def slowly(reply: str) -> Callable[[Connection], Awaitable[None]]:
    async def answer(connection: Connection) -> None:
        await asyncio.sleep(SHORT_S / 2)
        connection.say(reply)

    return answer


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["grouped", "in turn"])
async def test_slow_replies_are_cut_off_by_the_deadline_of_the_transaction(extensions: tuple[str, ...]) -> None:
    answers = {"MAIL": slowly("250 ok"), "RCPT": slowly("250 ok"), "DATA": slowly("354 go on")}
    async with ScriptedServer(answers, extensions=extensions) as server, asyncio.timeout(BOUND_S):
        session = await SmtpSession.open(route(server.port), replace(QUICK, transaction=SHORT_S))
        with pytest.raises(TransportError) as caught:
            await session.send(message(), nothing)
    assert caught.value.phase in (Phase.RCPT, Phase.DATA)
    assert caught.value.late_s is not None


async def test_slow_steps_are_cut_off_by_the_deadline_of_the_opening() -> None:
    answers = {"CONNECT": slowly("220 hello"), "EHLO": slowly("250-x\r\n250 AUTH PLAIN"), "AUTH": slowly("235 in")}
    async with ScriptedServer(answers) as server, asyncio.timeout(BOUND_S):
        endpoint = route(server.port, username="ada", password="pony")
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(endpoint, replace(QUICK, opening=SHORT_S))
    assert caught.value.phase in (Phase.EHLO, Phase.AUTH)
    assert caught.value.late_s == SHORT_S


async def test_a_host_that_does_not_read_is_cut_off_and_took_nothing() -> None:
    """A TCP window of zero: what has not left this machine was not accepted, so it is not unknown."""
    released = asyncio.Event()

    async def serve(client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"220 hello\r\n")
        for reply in (b"250-x\r\n250 PIPELINING\r\n", b"250 ok\r\n250 ok\r\n354 go on\r\n"):
            await loop.sock_recv(client, 4096)
            await loop.sock_sendall(client, reply)
        await released.wait()
        client.close()

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)

        async def accept() -> None:
            client, _ = await asyncio.get_running_loop().sock_accept(listener)
            client.setblocking(False)
            await serve(client)

        serving = asyncio.create_task(accept())
        try:
            async with asyncio.timeout(BOUND_S):
                session = await SmtpSession.open(route(listener.getsockname()[1]), replace(QUICK, dot=SHORT_S))
                body = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 1_000_000
                with pytest.raises(TransportError) as caught:
                    await session.send(message(body), nothing)
        finally:
            released.set()
            await serving
    assert (caught.value.phase, caught.value.unknown, caught.value.late_s) == (Phase.DATA, False, SHORT_S)
    assert not session.usable


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"250-ok\r\n550 no\r\n", "different codes"),
        (b"550-no\r\n250 ok\r\n", "different codes"),
        (b"250 " + b"x" * 100_000 + b"\r\n", "too long|does not speak SMTP"),
        (b"250-\r\n" * 100_000 + b"250 ok\r\n", "too long"),
    ],
    ids=["refused at last", "accepted at last", "long line", "many lines"],
)
async def test_a_reply_that_is_malformed_or_too_long_ends_the_session(reply: bytes, why: str) -> None:
    async with ScriptedServer({"RCPT": reply}) as server, asyncio.timeout(BOUND_S):
        session = await SmtpSession.open(route(server.port), QUICK)
        with pytest.raises(TransportError, match=why) as caught:
            await session.send(message(), nothing)
    assert caught.value.phase is Phase.RCPT
    assert not session.usable


async def test_a_quit_that_is_never_answered_holds_nothing_up() -> None:
    async with ScriptedServer({"QUIT": trickling(b"x")}) as server, asyncio.timeout(BOUND_S):
        session = await SmtpSession.open(route(server.port), QUICK)
        assert (await session.send(message(), nothing)).code == 250
        await session.close()
        assert not session.usable


async def test_a_host_that_is_cut_off_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedServer({"RCPT": trickling(b"x")}) as server:
        async with SessionPool(route(server.port), SHORT) as pool:
            with pytest.raises(TransportError):
                await pool.send(message(), Marks())
        assert f"127.0.0.1:{server.port} timed out at rcpt after {SHORT_S} s" in caplog.text

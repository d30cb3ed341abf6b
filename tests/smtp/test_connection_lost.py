"""Lost, hanging and invalid connections: a message is unknown only if its final dot may have been written."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from postroad.smtp.errors import Timeouts, TransportError
from postroad.smtp.protocol import MAX_LINE_OCTETS, MAX_REPLY_OCTETS
from postroad.smtp.reply import Phase
from postroad.smtp.session import SmtpSession
from tests.smtp.conftest import QUICK, Marks, message, nothing, opened, route, unusable
from tests.smtp.scripted import Act, Answer, Connection, ScriptedServer

MODES = pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["grouped", "in turn"])


@MODES
@pytest.mark.parametrize("how", [Act.DROP, Act.RESET])
@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA])
async def test_lost_before_the_dot_nothing_is_unknown(phase: Phase, how: Act, extensions: tuple[str, ...]) -> None:
    async with opened(ScriptedServer({phase.upper(): how}, extensions=extensions)) as session:
        marks = Marks()
        with pytest.raises(TransportError) as caught:
            await session.send(message(), marks)
        # A reset may overtake the replies that came before it; a close may not.
        assert caught.value.phase is phase or how is Act.RESET
        assert not caught.value.unknown
        assert marks.count == 0
        assert not session.usable


@pytest.mark.parametrize("how", [Act.DROP, Act.RESET])
async def test_lost_after_the_dot_the_message_is_unknown(how: Act) -> None:
    async with opened(ScriptedServer({"DOT": how})) as session:
        with pytest.raises(TransportError) as caught:
            await session.send(message(), nothing)
        assert caught.value.phase is Phase.DOT
        assert caught.value.unknown
        assert not session.usable


async def test_lost_during_before_body_is_not_unknown() -> None:
    server = ScriptedServer()
    async with opened(server) as session:

        async def lose_it() -> None:
            server.connections[0].drop()
            await unusable(session)

        with pytest.raises(TransportError) as caught:
            await session.send(message(), lose_it)
        assert caught.value.phase is Phase.DATA
        assert not caught.value.unknown
        assert server.bodies == []


@MODES
@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT])
async def test_no_reply_in_time_is_a_lost_connection(phase: Phase, extensions: tuple[str, ...]) -> None:
    timeouts = {
        Phase.MAIL: replace(QUICK, mail=0.05),
        Phase.RCPT: replace(QUICK, rcpt=0.05),
        Phase.DATA: replace(QUICK, data=0.05),
        Phase.DOT: replace(QUICK, dot=0.05),
    }[phase]
    async with opened(ScriptedServer({phase.upper(): Act.HANG}, extensions=extensions), timeouts) as session:
        with pytest.raises(TransportError, match=r"0\.05 s") as caught:
            await session.send(message(), nothing)
        assert caught.value.phase is phase
        assert caught.value.unknown is (phase is Phase.DOT)
        assert not session.usable


async def test_a_late_reply_is_not_taken_for_the_next_one() -> None:
    """After a timeout the connection is dropped, so a late reply is assigned to no command."""
    let_go = asyncio.Event()

    async def late(connection: Connection) -> None:
        await let_go.wait()
        connection.say("250 2.0.0 ok at last")

    server = ScriptedServer({"DOT": late})
    async with opened(server, replace(QUICK, dot=0.05)) as session:
        with pytest.raises(TransportError):
            await session.send(message(), nothing)
        let_go.set()
        with pytest.raises(TransportError) as caught:
            await session.send(message(), nothing)
        assert not caught.value.unknown


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello there\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"25 too short\r\n",
        b"2500 too long\r\n",
        b"250_neither\r\n",
        b"\r\n",
        b"\x16\x03\x01\x02\x00\r\n",
        b"099 no such code\r\n",
        b"150 nothing that is asked has it\r\n",
        b"600 no such code\r\n",
        "٢٥٠ digits of another script\r\n".encode(),
        b"-250 ok\r\n",
    ],
    ids=repr,
)
async def test_what_is_no_reply_ends_the_session(garbage: bytes) -> None:
    async with opened(ScriptedServer({"MAIL": garbage})) as session:
        with pytest.raises(TransportError, match="does not speak SMTP") as caught:
            await session.send(message(), nothing)
        assert caught.value.phase is Phase.MAIL
        assert not session.usable


@pytest.mark.parametrize(
    "unit", [b"x" * 64, b"250-" + b"y" * 60 + b"\r\n", b"250-\r\n"], ids=["one line", "many lines", "empty lines"]
)
async def test_a_reply_without_end_is_cut_off(unit: bytes) -> None:
    sent = 0

    async def flood(connection: Connection) -> None:
        nonlocal sent
        while not connection.writer.is_closing():
            connection.say(unit * 16)
            sent += len(unit) * 16
            await asyncio.sleep(0)
            await connection.writer.drain()

    async def flood_until_cut(connection: Connection) -> None:
        with suppress(ConnectionError):
            await flood(connection)

    server = ScriptedServer({"MAIL": flood_until_cut})
    async with opened(server) as session:
        with pytest.raises(TransportError, match=r"too long|does not speak") as caught:
            await asyncio.wait_for(session.send(message(), nothing), 10)
        assert caught.value.phase is Phase.MAIL
        assert not session.usable
    assert sent > (MAX_REPLY_OCTETS if unit.endswith(b"\n") else MAX_LINE_OCTETS)


@pytest.mark.parametrize("said", ["421 4.4.2 idle for too long", "250 2.0.0 nobody asked", "what?"])
async def test_a_session_is_not_used_after_the_server_spoke_unasked(said: str) -> None:
    server = ScriptedServer()
    async with opened(server) as session:
        assert (await session.send(message(), nothing)).code == 250
        server.connections[0].say(said)
        await unusable(session)
        with pytest.raises(TransportError) as caught:
            await session.send(message(), nothing)
        assert caught.value.phase is Phase.MAIL
        assert not caught.value.unknown
        assert len(server.bodies) == 1


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO"])
@pytest.mark.parametrize("how", [Act.DROP, Act.RESET])
async def test_lost_while_opening(verb: str, how: Act) -> None:
    async with ScriptedServer({verb: how}) as server:
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(route(server.port), QUICK)
        assert caught.value.phase is Phase(verb.lower())
        assert caught.value.reply is None
        assert not caught.value.unknown


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO"])
async def test_a_server_that_greets_and_hangs_is_given_up(verb: str) -> None:
    async with ScriptedServer({verb: Act.HANG}) as server:
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(route(server.port), Timeouts(greeting=0.05))
        assert caught.value.phase is Phase(verb.lower())
        await asyncio.wait_for(server.connections[0].gone.wait(), 5)


@pytest.mark.parametrize(("verb", "said"), [("CONNECT", "554 5.7.1 no service for you"), ("EHLO", "550 5.7.1 no")])
async def test_rejected_while_opening_the_error_has_the_reply(verb: str, said: str) -> None:
    async with ScriptedServer({verb: said}) as server:
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(route(server.port), QUICK)
        assert caught.value.phase is Phase(verb.lower())
        assert caught.value.reply is not None
        assert str(caught.value.reply) == said
        await asyncio.wait_for(server.connections[0].gone.wait(), 5)


@pytest.mark.parametrize(
    "greeting", [b"hello\r\n", b"\x00\r\n", b"220" + b"x" * 40_000 + b"\r\n"], ids=["text", "nul", "long"]
)
async def test_invalid_greeting_is_a_transport_error_without_reply(greeting: bytes) -> None:
    async with ScriptedServer({"CONNECT": greeting}) as server:
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(route(server.port), QUICK)
        assert caught.value.phase is Phase.CONNECT
        assert caught.value.reply is None


async def test_closed_in_the_moment_it_is_opened() -> None:
    async def ehlo_and_close(connection: Connection) -> None:
        connection.say("250 scripted.test")
        connection.drop()

    answers: dict[str, Answer | list[Answer]] = {"EHLO": ehlo_and_close}
    async with ScriptedServer(answers) as server:

        async def open_and_send() -> None:
            session = await SmtpSession.open(route(server.port), QUICK)
            await session.send(message(), nothing)

        with pytest.raises(TransportError) as caught:
            await open_and_send()
        assert not caught.value.unknown


@pytest.mark.parametrize("host", ["127.0.0.1", "smtp..example.com", "x" * 64 + ".example.com", "no-such-host.invalid"])
async def test_a_host_that_cannot_be_reached_is_a_transport_error(host: str) -> None:
    async with ScriptedServer() as server:
        port = server.port
    with pytest.raises(TransportError) as caught:
        await SmtpSession.open(route(port, host=host), QUICK)
    assert caught.value.phase is Phase.CONNECT


async def test_quit_that_is_not_answered_is_not_waited_for_long() -> None:
    loop = asyncio.get_running_loop()
    async with ScriptedServer({"QUIT": Act.HANG}) as server:
        session = await SmtpSession.open(route(server.port), QUICK)
        began = loop.time()
        await session.close()
        assert loop.time() - began < 4
        assert server.commands[-1] == b"QUIT\r\n"
        await asyncio.wait_for(server.connections[0].gone.wait(), 5)


async def test_close_twice_and_close_after_abort_are_harmless() -> None:
    async with ScriptedServer() as server:
        session = await SmtpSession.open(route(server.port), QUICK)
        await session.close()
        await session.close()
        session.abort()
        await session.close()
        assert not session.usable
        assert server.commands.count(b"QUIT\r\n") == 1

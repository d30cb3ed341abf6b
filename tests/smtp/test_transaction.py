"""One transaction, octet for octet: what is written together, what waits, and how a rejected one ends."""

from __future__ import annotations

import asyncio

import pytest

from postroad.smtp.errors import TransportError, UnsendableError
from postroad.smtp.reply import Phase
from tests.smtp.conftest import Marks, message, nothing, opened
from tests.smtp.scripted import Act, Answer, Connection, ScriptedServer

MAIL = b"MAIL FROM:<bounce@example.com>\r\n"
RCPT = b"RCPT TO:<ada@example.org>\r\n"
GROUP = MAIL + RCPT + b"DATA\r\n"
NO_PIPELINING = ("8BITMIME", "SMTPUTF8")


def transactions(server: ScriptedServer) -> list[bytes]:
    """The commands after EHLO."""
    return [command for command in server.commands if not command.startswith(b"EHLO")]


async def test_mail_rcpt_and_data_leave_in_one_write() -> None:
    server = ScriptedServer()
    async with opened(server) as session:
        reply = await session.send(message(), nothing)
        assert (reply.phase, reply.code, reply.enhanced) == (Phase.DOT, 250, "2.0.0")
        assert server.connections[0].chunks[1:] == [GROUP, b"Subject: hello\r\n\r\nbody\r\n.\r\n"]


async def test_without_pipelining_each_command_waits_for_its_reply() -> None:
    server = ScriptedServer(extensions=NO_PIPELINING)
    async with opened(server) as session:
        assert not session.pipelining
        reply = await session.send(message(), nothing)
        assert reply.code == 250
        assert server.connections[0].chunks[1:] == [MAIL, RCPT, b"DATA\r\n", server.bodies[0]]


async def test_the_body_waits_for_before_body() -> None:
    server = ScriptedServer()
    async with opened(server) as session:

        async def look() -> None:
            assert transactions(server) == [MAIL, RCPT, b"DATA\r\n"]
            assert server.connections[0].left_over == b""
            assert server.bodies == []

        marks = Marks(look)
        await session.send(message(), marks)
        assert marks.count == 1
        assert len(server.bodies) == 1


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["grouped", "in turn"])
@pytest.mark.parametrize("said", ["450 4.2.0 later", "550 5.1.1 never"])
@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT])
async def test_a_rejection_has_its_phase_and_keeps_the_session(
    phase: Phase, said: str, extensions: tuple[str, ...]
) -> None:
    answers: dict[str, Answer | list[Answer]] = {phase.upper(): [said]}
    if phase in (Phase.MAIL, Phase.RCPT) and extensions:
        answers["DATA"] = ["503 5.5.1 nobody to send it to"]
    if phase is Phase.MAIL and extensions:
        answers["RCPT"] = ["503 5.5.1 no MAIL yet"]
    server = ScriptedServer(answers, extensions=extensions)
    async with opened(server) as session:
        marks = Marks()
        reply = await session.send(message(), marks)
        assert (reply.phase, f"{reply.code} {reply.enhanced} {reply.text}") == (phase, said)
        assert marks.count == (1 if phase is Phase.DOT else 0)
        assert session.usable
        again = await session.send(message(), marks)
        assert (again.phase, again.code) == (Phase.DOT, 250)
        begun = transactions(server)
        # RFC 5321 §4.1.4: no MAIL while a transaction is open, and a refused RCPT or DATA leaves it open.
        assert (b"RSET\r\n" in begun) is (phase in (Phase.RCPT, Phase.DATA))
        if b"RSET\r\n" in begun:
            assert begun.index(b"RSET\r\n") < len(begun) - 1 - begun[::-1].index(MAIL)
        assert len(server.connections) == 1


async def test_354_with_no_valid_recipient_gets_a_lone_dot() -> None:
    server = ScriptedServer({"RCPT": ["550 5.1.1 no such user"], "DOT": ["554 5.5.1 no valid recipients"]})
    async with opened(server) as session:
        marks = Marks()
        reply = await session.send(message(), marks)
        assert (reply.phase, reply.code) == (Phase.RCPT, 550)
        assert server.bodies == [b".\r\n"]
        assert marks.count == 0
        assert (await session.send(message(), marks)).code == 250
        assert server.bodies[1:] == [b"Subject: hello\r\n\r\nbody\r\n.\r\n"]


async def test_no_lone_dot_after_a_rejected_mail_command() -> None:
    # It rejected MAIL but accepted RCPT and DATA: a lone dot could deliver an empty message.
    server = ScriptedServer({"MAIL": ["550 5.7.1 not you"]})
    async with opened(server) as session:
        reply = await session.send(message(), nothing)
        assert (reply.phase, reply.code) == (Phase.MAIL, 550)
        assert not session.usable
        await asyncio.wait_for(server.connections[0].gone.wait(), 5)
        assert server.bodies == []


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["grouped", "in turn"])
@pytest.mark.parametrize("then", [Act.DROP, Act.HANG])
@pytest.mark.parametrize(("phase", "verb_after"), [(Phase.MAIL, "RCPT"), (Phase.RCPT, "DATA"), (Phase.DATA, "QUIT")])
async def test_421_is_returned_although_no_more_replies_follow(
    phase: Phase, verb_after: str, then: Act, extensions: tuple[str, ...]
) -> None:
    server = ScriptedServer({phase.upper(): "421 4.7.0 too many for now", verb_after: then}, extensions=extensions)
    async with opened(server) as session:
        marks = Marks()
        reply = await asyncio.wait_for(session.send(message(), marks), 3)
        assert (reply.phase, reply.code, reply.enhanced) == (phase, 421, "4.7.0")
        assert not session.usable
        assert marks.count == 0


async def test_421_at_the_dot_ends_the_session() -> None:
    async with opened(ScriptedServer({"DOT": "421 4.3.2 shutting down"})) as session:
        reply = await session.send(message(), nothing)
        assert (reply.phase, reply.code) == (Phase.DOT, 421)
        assert not session.usable


@pytest.mark.parametrize(("verb", "after"), [("MAIL", "RCPT"), ("RCPT", "DATA")])
async def test_a_rejection_counts_if_later_replies_are_missing(verb: str, after: str) -> None:
    server = ScriptedServer({verb: "550 5.7.1 go away", after: Act.DROP})
    async with opened(server) as session:
        reply = await session.send(message(), nothing)
        assert (reply.phase, reply.code) == (Phase(verb.lower()), 550)
        assert not session.usable


async def test_a_rejection_counts_if_the_lone_dot_is_unanswered() -> None:
    server = ScriptedServer({"RCPT": "550 5.1.1 no such user", "DOT": Act.DROP})
    async with opened(server) as session:
        reply = await session.send(message(), nothing)
        assert (reply.phase, reply.code) == (Phase.RCPT, 550)
        assert not session.usable


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["grouped", "in turn"])
@pytest.mark.parametrize(
    ("verb", "said"), [("MAIL", "354 go on"), ("RCPT", "334 hm"), ("DATA", "250 2.0.0 thank you"), ("DATA", "334 hm")]
)
async def test_a_positive_reply_to_another_question_is_no_acceptance(
    verb: str, said: str, extensions: tuple[str, ...]
) -> None:
    async with opened(ScriptedServer({verb: said}, extensions=extensions)) as session:
        marks = Marks()
        with pytest.raises(TransportError) as caught:
            await session.send(message(), marks)
        assert caught.value.phase is Phase(verb.lower())
        assert not caught.value.unknown
        assert marks.count == 0
        assert not session.usable


async def test_a_354_to_the_dot_leaves_the_message_unknown() -> None:
    async with opened(ScriptedServer({"DOT": "354 go on"})) as session:
        with pytest.raises(TransportError) as caught:
            await session.send(message(), nothing)
        assert caught.value.unknown


async def test_failed_before_body_sends_no_body_and_drops_the_session() -> None:
    class RefusedError(Exception):
        pass

    async def refuse() -> None:
        raise RefusedError

    server = ScriptedServer()
    async with opened(server) as session:
        with pytest.raises(RefusedError):
            await session.send(message(), refuse)
        assert not session.usable
        await asyncio.wait_for(server.connections[0].gone.wait(), 5)
        assert server.bodies == []
        assert server.connections[0].left_over == b""
        with pytest.raises(TransportError) as caught:
            await session.send(message(), nothing)
        assert not caught.value.unknown


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
async def test_cancelled_in_the_middle_the_session_is_gone(verb: str) -> None:
    reached = asyncio.Event()

    async def hang(connection: Connection) -> None:
        reached.set()
        await connection.until(b"no such octets")

    server = ScriptedServer({verb: hang})
    async with opened(server) as session:
        task = asyncio.create_task(session.send(message(), nothing))
        await asyncio.wait_for(reached.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not session.usable
        await asyncio.wait_for(server.connections[0].gone.wait(), 5)


async def test_a_message_that_cannot_be_sent_costs_no_session() -> None:
    server = ScriptedServer()
    async with opened(server) as session:
        with pytest.raises(UnsendableError):
            await session.send(message(b"bare\nline feed\r\n"), nothing)
        assert session.usable
        assert transactions(server) == []
        assert (await session.send(message(), nothing)).code == 250

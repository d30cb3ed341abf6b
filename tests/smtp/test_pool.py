"""A pool of sessions: their number, their lifetime, and the replacement of stale ones."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from postroad.smtp.errors import TransportError, UnsendableError
from postroad.smtp.pool import SessionPool
from postroad.smtp.reply import Phase
from tests.smtp.conftest import QUICK, Marks, message, nothing, route
from tests.smtp.scripted import Act, Answer, Connection, ScriptedServer


async def all_gone(server: ScriptedServer) -> None:
    async with asyncio.timeout(10):
        for connection in server.connections:
            await connection.gone.wait()


async def test_a_warm_session_is_used_again() -> None:
    async with ScriptedServer() as server:
        async with SessionPool(route(server.port), QUICK) as pool:
            for _ in range(5):
                assert (await pool.send(message(), nothing)).code == 250
            assert len(server.connections) == 1
        await all_gone(server)
        assert server.commands.count(b"QUIT\r\n") == 1


@pytest.mark.parametrize("connections", [1, 3])
async def test_no_more_connections_are_open_than_the_route_allows(connections: int) -> None:
    async with ScriptedServer() as server:
        settings = route(server.port, connections=connections, messages_per_connection=2)
        async with SessionPool(settings, QUICK) as pool:
            replies = await asyncio.gather(*(pool.send(message(), nothing) for _ in range(40)))
        assert [reply.code for reply in replies] == [250] * 40
        assert server.most_open == connections
        assert len(server.bodies) == 40


async def test_a_connection_counts_until_the_server_has_let_it_go() -> None:
    """A session whose QUIT is not yet answered still counts as a connection on the server."""
    let_go = asyncio.Event()
    asked = asyncio.Event()

    async def slow_goodbye(connection: Connection) -> None:
        asked.set()
        await let_go.wait()
        connection.say("221 2.0.0 bye")

    async with ScriptedServer({"QUIT": slow_goodbye}) as server:
        settings = route(server.port, connections=1, messages_per_connection=1)
        async with SessionPool(settings, QUICK) as pool:
            # The reply is not held back by the goodbye.
            assert (await asyncio.wait_for(pool.send(message(), nothing), 1)).code == 250
            await asyncio.wait_for(asked.wait(), 5)
            second = asyncio.create_task(pool.send(message(), nothing))
            done, _ = await asyncio.wait({second}, timeout=0.2)
            assert not done
            assert len(server.connections) == 1
            let_go.set()
            assert (await asyncio.wait_for(second, 5)).code == 250
        assert server.most_open == 1


async def test_messages_per_connection() -> None:
    async with ScriptedServer() as server:
        settings = route(server.port, connections=1, messages_per_connection=3)
        async with SessionPool(settings, QUICK) as pool:
            for _ in range(8):
                await pool.send(message(), nothing)
        await all_gone(server)
        assert [len(connection.bodies) for connection in server.connections] == [3, 3, 2]
        assert all(connection.commands[-1] == b"QUIT\r\n" for connection in server.connections)


async def test_a_refused_message_counts_as_one_of_the_connection() -> None:
    async with ScriptedServer({"RCPT": "550 5.1.1 no", "DATA": "503 5.5.1 no"}) as server:
        settings = route(server.port, connections=1, messages_per_connection=2)
        async with SessionPool(settings, QUICK) as pool:
            for _ in range(4):
                assert (await pool.send(message(), nothing)).code == 550
        assert len(server.connections) == 2


STALE: list[Answer] = [Act.DROP, Act.RESET, "421 4.4.2 idle for too long"]


@pytest.mark.parametrize("how", STALE, ids=str)
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
async def test_a_stale_session_is_replaced_and_the_message_sent_once(how: Answer, seen: bool) -> None:
    """Whether or not the loss is noticed before the next message is written."""
    async with ScriptedServer() as server, SessionPool(route(server.port), QUICK) as pool:
        await pool.send(message(), nothing)
        first = server.connections[0]
        match how:
            case Act.DROP:
                first.drop()
            case Act.RESET:
                first.reset()
            case str():
                first.say(how)
                first.drop()
        if seen:
            await asyncio.wait_for(first.gone.wait(), 5)
        marks = Marks()
        assert (await pool.send(message(), marks)).code == 250
        assert marks.count == 1
        assert [len(connection.bodies) for connection in server.connections] == [1, 1]


@pytest.mark.parametrize("answer", ["421 4.7.0 too many messages", Act.DROP])
async def test_a_session_that_ends_at_mail_is_replaced(answer: Answer) -> None:
    async with ScriptedServer({"MAIL": ["250 2.1.0 ok", answer]}) as server:
        async with SessionPool(route(server.port), QUICK) as pool:
            await pool.send(message(), nothing)
            marks = Marks()
            assert (await pool.send(message(), marks)).code == 250
        assert marks.count == 1
        assert len(server.connections) == 2


async def test_a_new_session_that_ends_at_mail_is_not_replaced() -> None:
    async with ScriptedServer({"MAIL": "421 4.7.0 not now"}) as server:
        async with SessionPool(route(server.port), QUICK) as pool:
            reply = await pool.send(message(), nothing)
        assert (reply.phase, reply.code) == (Phase.MAIL, 421)
        assert len(server.connections) == 1


@pytest.mark.parametrize("verb", ["RCPT", "DATA", "DOT"])
async def test_a_session_that_dies_later_is_not_replaced_silently(verb: str) -> None:
    usual = {"RCPT": "250 2.1.5 ok", "DATA": "354 go on", "DOT": "250 2.0.0 ok"}[verb]
    async with ScriptedServer({verb: [usual, Act.DROP]}) as server:
        async with SessionPool(route(server.port), QUICK) as pool:
            await pool.send(message(), nothing)
            with pytest.raises(TransportError) as caught:
                await pool.send(message(), nothing)
            assert caught.value.unknown is (verb == "DOT")
            assert len(server.connections) == 1
            assert (await pool.send(message(), nothing)).code == 250
        assert len(server.connections) == 2


async def test_an_idle_session_grown_cold_is_left_with_a_goodbye() -> None:
    async with ScriptedServer() as server:
        async with SessionPool(route(server.port, connections=1), QUICK, idle_seconds=0) as pool:
            for _ in range(3):
                assert (await pool.send(message(), nothing)).code == 250
        await all_gone(server)
        assert len(server.connections) == 3
        assert server.most_open == 1
        assert all(connection.commands[-1] == b"QUIT\r\n" for connection in server.connections)


async def test_an_unsendable_message_releases_its_slot() -> None:
    async with ScriptedServer() as server:
        async with SessionPool(route(server.port, connections=1), QUICK) as pool:
            for _ in range(3):
                with pytest.raises(UnsendableError):
                    await pool.send(message(b"bare\nline\r\n"), nothing)
            assert (await pool.send(message(), nothing)).code == 250
        await all_gone(server)
        assert len(server.connections) == 1


async def test_failed_before_body_releases_slot_and_drops_session() -> None:
    async def refuse() -> None:
        raise LookupError

    async with ScriptedServer() as server:
        async with SessionPool(route(server.port, connections=1), QUICK) as pool:
            for _ in range(2):
                with pytest.raises(LookupError):
                    await pool.send(message(), refuse)
            assert (await pool.send(message(), nothing)).code == 250
        assert [len(connection.bodies) for connection in server.connections] == [0, 0, 1]
        assert server.most_open == 1


@pytest.mark.parametrize("verb", ["EHLO", "MAIL", "DATA", "DOT"])
async def test_cancelled_it_gives_its_place_back(verb: str) -> None:
    reached = asyncio.Event()

    async def hang(connection: Connection) -> None:
        reached.set()
        await connection.until(b"no such octets")

    async with ScriptedServer({verb: [hang]}) as server:
        async with SessionPool(route(server.port, connections=1), QUICK) as pool:
            task = asyncio.create_task(pool.send(message(), nothing))
            await asyncio.wait_for(reached.wait(), 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await asyncio.wait_for(pool.send(message(), nothing), 5)).code == 250
        await all_gone(server)


async def test_a_route_that_is_down_takes_no_place_for_good() -> None:
    server = ScriptedServer({"CONNECT": ["421 4.3.2 not now", "421 4.3.2 not now"]})
    async with server, SessionPool(route(server.port, connections=1), QUICK) as pool:
        for _ in range(2):
            with pytest.raises(TransportError) as caught:
                await pool.send(message(), nothing)
            assert caught.value.reply is not None
            assert caught.value.reply.code == 421
        assert (await pool.send(message(), nothing)).code == 250


async def test_an_unanswered_quit_delays_no_message_for_long() -> None:
    loop = asyncio.get_running_loop()
    async with ScriptedServer({"QUIT": Act.HANG}) as server:
        async with SessionPool(route(server.port, connections=3), QUICK) as pool:
            await asyncio.gather(*(pool.send(message(), nothing) for _ in range(3)))
            assert len(server.connections) == 3
            began = loop.time()
        assert loop.time() - began < 4
        await all_gone(server)


async def test_a_timeout_is_not_tried_again_but_at_mail() -> None:
    limits = replace(QUICK, mail=0.05, rcpt=0.05)
    async with ScriptedServer({"MAIL": ["250 2.1.0 ok", Act.HANG], "RCPT": ["250 2.1.5 ok"]}) as server:
        async with SessionPool(route(server.port), limits) as pool:
            await pool.send(message(), nothing)
            assert (await pool.send(message(), nothing)).code == 250
        assert len(server.connections) == 2

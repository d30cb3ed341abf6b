"""Successive messages on one connection: the commands of the next one follow the final dot of the current one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from postroad.smtp.errors import Timeouts, TransportError, UnsendableError
from postroad.smtp.pool import SessionPool
from postroad.smtp.reply import Phase, Reply
from tests.smtp.conftest import QUICK, Marks, message, nothing, route
from tests.smtp.scripted import EXTENSIONS, Act, Answer, Connection, ScriptedServer


def group(name: str) -> bytes:
    return f"MAIL FROM:<bounce@example.com>\r\nRCPT TO:<{name}@example.org>\r\nDATA\r\n".encode()


class HeldReply:
    """A reply that is sent when the test releases it."""

    def __init__(self, said: str | Act = "250 2.0.0 ok") -> None:
        self.asked = asyncio.Event()
        self.let_go = asyncio.Event()
        self._said = said

    async def __call__(self, connection: Connection) -> None:
        self.asked.set()
        await self.let_go.wait()
        match self._said:
            case str():
                connection.say(self._said)
            case Act.DROP:
                connection.drop()
            case _:
                connection.reset()


@dataclass
class Line:
    """A pool of one connection. Its first message awaits the reply to its dot, and others wait for the connection."""

    server: ScriptedServer
    pool: SessionPool
    dot: HeldReply

    def send(self, name: str, marks: Marks | None = None) -> asyncio.Task[Reply]:
        named = message(f"Subject: {name}\r\n\r\nbody\r\n".encode(), recipient=f"{name}@example.org")
        return asyncio.create_task(self.pool.send(named, marks or nothing))

    def recipients_of_bodies(self) -> list[list[str]]:
        return [[b.split()[1].decode() for b in connection.bodies] for connection in self.server.connections]


@asynccontextmanager
async def line(
    *waiting: str,
    said: str | Act = "250 2.0.0 ok",
    answers: Mapping[str, Answer | list[Answer]] | None = None,
    extensions: tuple[str, ...] = EXTENSIONS,
    timeouts: Timeouts = QUICK,
    limit: int = 100,
) -> AsyncIterator[tuple[Line, list[asyncio.Task[Reply]]]]:
    """Send `ada` and the waiting messages. All of them wait before ada's body leaves; the reply to her dot is held."""
    dot = HeldReply(said)
    server = ScriptedServer({"DOT": [dot], **(answers or {})}, extensions=extensions)
    async with server, SessionPool(route(server.port, connections=1, messages_per_connection=limit), timeouts) as pool:
        in_line = asyncio.Event()

        async def wait_for_the_others() -> None:
            await in_line.wait()

        here = Line(server, pool, dot)
        sent = [here.send("ada", Marks(wait_for_the_others)), *(here.send(name) for name in waiting)]
        await asyncio.sleep(0)
        in_line.set()
        await asyncio.wait_for(dot.asked.wait(), 5)
        yield here, sent
        dot.let_go.set()
        await asyncio.gather(*sent, return_exceptions=True)


async def test_next_commands_leave_in_one_write_with_the_body() -> None:
    async with line("bob", "eve") as (here, (ada, bob, eve)):
        assert here.server.connections[0].left_over == group("bob")
        here.dot.let_go.set()
        assert [(await each).code for each in (ada, bob, eve)] == [250, 250, 250]
        assert here.recipients_of_bodies() == [["ada", "bob", "eve"]]
        one, two, three = here.server.bodies
        chunks = b"".join(here.server.connections[0].chunks[1:])
        assert chunks == group("ada") + one + group("bob") + two + group("eve") + three


async def test_next_before_body_waits_for_the_previous_dot_reply() -> None:
    async with line() as (here, _):
        assert here.server.connections[0].left_over == b""
    marked = Marks()
    dot = HeldReply()
    async with ScriptedServer({"DOT": [dot]}) as server, SessionPool(route(server.port, connections=1), QUICK) as pool:
        first, second = (asyncio.create_task(pool.send(message(), marks)) for marks in (nothing, marked))
        await asyncio.wait_for(dot.asked.wait(), 5)
        assert marked.count == 0
        dot.let_go.set()
        assert [(await first).code, (await second).code] == [250, 250]
        assert marked.count == 1


@pytest.mark.parametrize("said", ["550 5.7.1 spam", "451 4.3.0 later"])
async def test_a_rejected_body_does_not_affect_the_next_message(said: str) -> None:
    async with line("bob", said=said) as (here, (ada, bob)):
        here.dot.let_go.set()
        assert str(await ada) == said
        assert (await bob).code == 250
        assert here.recipients_of_bodies() == [["ada", "bob"]]


@pytest.mark.parametrize("phase", [Phase.RCPT, Phase.DATA])
async def test_a_rejected_pipelined_recipient_affects_no_other(phase: Phase) -> None:
    ok = {Phase.RCPT: "250 2.1.5 ok", Phase.DATA: "354 go on"}[phase]
    refused = {Phase.RCPT: "550 5.1.1 nobody", Phase.DATA: "554 5.5.1 no"}[phase]
    answers: dict[str, Answer | list[Answer]] = {phase.upper(): [ok, refused]}
    if phase is Phase.RCPT:
        answers["DATA"] = ["354 go on", "554 5.5.1 no valid recipients"]
    async with line("bob", "eve", answers=answers) as (here, (ada, bob, eve)):
        here.dot.let_go.set()
        assert (await ada).code == 250
        assert ((await bob).phase, str(await bob)) == (phase, refused)
        assert (await eve).code == 250
        assert here.recipients_of_bodies() == [["ada", "eve"]]


@pytest.mark.parametrize("how", [Act.DROP, Act.RESET])
async def test_lost_at_the_dot_only_that_message_is_unknown(how: Act) -> None:
    async with line("bob", said=how) as (here, (ada, bob)):
        here.dot.let_go.set()
        with pytest.raises(TransportError) as caught:
            await ada
        assert caught.value.unknown
        assert (await bob).code == 250
        assert here.recipients_of_bodies() == [["ada"], ["bob"]]


async def test_after_421_at_the_dot_the_next_uses_a_new_connection() -> None:
    async def farewell(connection: Connection) -> None:
        connection.say("421 4.3.2 shutting down")
        connection.drop()

    answers: dict[str, Answer | list[Answer]] = {"DOT": [farewell]}
    async with ScriptedServer(answers) as server, SessionPool(route(server.port, connections=1), QUICK) as pool:
        first, second = (asyncio.create_task(pool.send(message(), nothing)) for _ in range(2))
        assert ((await first).phase, (await first).code) == (Phase.DOT, 421)
        assert (await second).code == 250
        assert [len(connection.bodies) for connection in server.connections] == [1, 1]


async def test_after_a_timeout_at_the_dot_the_next_reconnects() -> None:
    timeouts = replace(QUICK, dot=0.2, mail=0.05)
    async with line("bob", timeouts=timeouts) as (here, (ada, bob)):
        with pytest.raises(TransportError, match=r"0\.2 s") as caught:
            await ada
        assert caught.value.unknown
        assert (await bob).code == 250
        assert here.recipients_of_bodies() == [["ada"], ["bob"]]


async def test_timeout_of_the_next_starts_after_the_previous_dot_reply() -> None:
    async with line("bob", timeouts=replace(QUICK, mail=0.05)) as (here, (ada, bob)):
        done, _ = await asyncio.wait({bob}, timeout=0.2)
        assert not done
        here.dot.let_go.set()
        assert [(await ada).code, (await bob).code] == [250, 250]
        assert len(here.server.connections) == 1


async def test_cancelled_successor_keeps_the_previous_dot_reply() -> None:
    async with line("bob", "eve") as (here, (ada, bob, eve)):
        bob.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bob
        here.dot.let_go.set()
        assert (await ada).code == 250
        assert (await eve).code == 250
        assert here.recipients_of_bodies() == [["ada"], ["eve"]]
        assert here.server.most_open == 1


async def test_cancelled_at_its_dot_the_next_goes_elsewhere() -> None:
    async with line("bob") as (here, (ada, bob)):
        ada.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ada
        assert (await bob).code == 250
        assert here.recipients_of_bodies() == [["ada"], ["bob"]]


async def test_cancelled_while_waiting_keeps_the_connection() -> None:
    async with line("bob", "eve") as (here, (ada, bob, eve)):
        eve.cancel()
        here.dot.let_go.set()
        assert [(await ada).code, (await bob).code] == [250, 250]
        assert (await here.send("joe")).code == 250
        assert here.recipients_of_bodies() == [["ada", "bob", "joe"]]


async def test_cancelled_while_getting_a_slot_passes_it_on() -> None:
    async with ScriptedServer() as server, SessionPool(route(server.port, connections=1), QUICK) as pool:

        async def take_back() -> None:
            asyncio.get_running_loop().call_soon(second.cancel)

        first = asyncio.create_task(pool.send(message(), take_back))
        second = asyncio.create_task(pool.send(message(), nothing))
        third = asyncio.create_task(pool.send(message(), nothing))
        assert [(await first).code, (await third).code] == [250, 250]
        with pytest.raises(asyncio.CancelledError):
            await second
        assert server.most_open == 1


async def test_an_unsendable_message_is_not_pipelined() -> None:
    async with line() as (here, _):
        assert here.server.connections[0].left_over == b""
    async with ScriptedServer() as server, SessionPool(route(server.port, connections=1), QUICK) as pool:
        contents = [b"Subject: a\r\n\r\n", b"bare\nline feed\r\n", b"Subject: c\r\n\r\n"]
        found = await asyncio.gather(
            *(pool.send(message(content), nothing) for content in contents), return_exceptions=True
        )
        assert isinstance(found[1], UnsendableError)
        assert [reply.code for reply in found if isinstance(reply, Reply)] == [250, 250]
        assert len(server.connections) == 1


async def test_a_connection_carries_no_more_messages_than_it_may() -> None:
    async with line("bob", "eve", limit=2) as (here, (ada, bob, eve)):
        here.dot.let_go.set()
        assert [(await each).code for each in (ada, bob, eve)] == [250, 250, 250]
        assert here.recipients_of_bodies() == [["ada", "bob"], ["eve"]]


async def test_without_pipelining_no_command_follows_a_body() -> None:
    async with line("bob", extensions=("8BITMIME",)) as (here, (ada, bob)):
        assert here.server.connections[0].left_over == b""
        here.dot.let_go.set()
        assert [(await ada).code, (await bob).code] == [250, 250]

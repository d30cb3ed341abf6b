"""Who may answer a question, and how little of what is sent to us is believed: RFC 5452."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest

from postroad.clock import SystemClock
from postroad.dns.exchange import QUESTIONS_OF_A_PORT, Exchange, Server
from postroad.dns.lookup import LookupStatus
from postroad.dns.record import Address
from postroad.dns.resolver import Resolver
from postroad.dns.wire import WireError, ask_for
from postroad.settings import DnsSettings
from tests.dns.nameserver import Nameserver, Trouble

ZONE = {f"h{n}.test": {"A": [f"192.0.2.{n}"]} for n in range(200)}
QUESTION = ask_for("h1.test", "A")
TRUE, FALSE = Address("192.0.2.1"), Address("198.51.100.66")

Say = Callable[[bytes], Sequence[bytes]]
"""From the question, octets that go back in their order."""


def answer(message: bytes, address: bytes = b"\xc0\0\2\1", *, asked: bytes = QUESTION.octets) -> bytes:
    head = b"\x81\x80" + b"\0\1\0\1\0\0\0\0"
    return message[:2] + head + asked + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + address


FORGED = b"\xc6\x33\x64\x42"


class _Speaker(asyncio.DatagramProtocol):
    def __init__(self, say: Say) -> None:
        self._say = say
        self.clients: list[tuple[str, int]] = []
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        self.closed.set()

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        self.clients.append((str(addr[0]), addr[1]))
        for octets in self._say(data):
            self.transport.sendto(octets, addr)


@asynccontextmanager
async def speaking(say: Say) -> AsyncIterator[tuple[Server, _Speaker]]:
    loop = asyncio.get_running_loop()
    transport, speaker = await loop.create_datagram_endpoint(lambda: _Speaker(say), local_addr=("127.0.0.1", 0))
    try:
        yield Server("127.0.0.1", transport.get_extra_info("sockname")[1]), speaker
    finally:
        transport.close()
        await speaker.closed.wait()


FORGERIES: dict[str, Callable[[bytes], bytes]] = {
    "another id": lambda m: answer(bytes([m[0] ^ 1, m[1]]) + m[2:], FORGED),
    "another name": lambda m: answer(m, FORGED, asked=ask_for("h2.test", "A").octets),
    "another type": lambda m: answer(m, FORGED, asked=ask_for("h1.test", "AAAA").octets),
    "a question": lambda m: m,
    "cut off": lambda m: answer(m, FORGED)[:-2],
    "too long": lambda m: answer(m, FORGED) + b"\0",
    "nothing": lambda _: b"",
    "noise": lambda m: m[:2] + b"\xff" * 40,
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
async def test_what_does_not_fit_is_passed_over_and_what_fits_is_taken(forge: Callable[[bytes], bytes]) -> None:
    async with speaking(lambda message: [forge(message), answer(message)]) as (server, _):
        reply = await Exchange().ask(server, QUESTION, 5.0)
    assert [held.record for held in reply.answers] == [TRUE]


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
async def test_where_nothing_fits_there_is_no_answer(forge: Callable[[bytes], bytes]) -> None:
    async with speaking(lambda message: [forge(message)] * 3) as (server, _):
        with pytest.raises(TimeoutError):
            await Exchange().ask(server, QUESTION, 0.05)


async def test_what_comes_from_another_place_is_not_even_heard() -> None:
    async with speaking(lambda _: []) as (_, stranger):

        def forge_first(message: bytes) -> list[bytes]:
            stranger.transport.sendto(answer(message, FORGED), asked.clients[-1])
            return [answer(message)]

        async with speaking(forge_first) as (server, asked):
            reply = await Exchange().ask(server, QUESTION, 5.0)
    assert [held.record for held in reply.answers] == [TRUE]


async def test_the_first_answer_that_fits_is_the_answer() -> None:
    async with speaking(lambda message: [answer(message), answer(message, FORGED)]) as (server, _):
        reply = await Exchange().ask(server, QUESTION, 5.0)
    assert [held.record for held in reply.answers] == [TRUE]


async def test_many_questions_share_few_ports_and_each_has_an_id_of_its_own() -> None:
    asked: list[bytes] = []
    everybody = asyncio.Event()

    def collect(message: bytes) -> list[bytes]:
        asked.append(message)
        if len(asked) == len(ZONE):
            everybody.set()
        return []

    async with speaking(collect) as (server, speaker):
        exchange = Exchange()
        waiting = [asyncio.create_task(exchange.ask(server, ask_for(name, "A"), 30.0)) for name in ZONE]
        await everybody.wait()
        by_port: dict[int, list[bytes]] = {}
        for (_, port), message in zip(speaker.clients, asked, strict=True):
            by_port.setdefault(port, []).append(message[:2])
            question = next(ask_for(name, "A") for name in ZONE if ask_for(name, "A").octets in message)
            number = int(question.name[1:].partition(".")[0])
            reply = answer(message, bytes([192, 0, 2, number]), asked=question.octets)
            speaker.transport.sendto(reply, ("127.0.0.1", port))
        replies = await asyncio.gather(*waiting)
    assert [reply.answers[0].record for reply in replies] == [Address(f"192.0.2.{n}") for n in range(200)]
    assert sorted(map(len, by_port.values())) == [200 % QUESTIONS_OF_A_PORT] + [QUESTIONS_OF_A_PORT] * 3
    assert all(len(set(ids)) == len(ids) for ids in by_port.values())


async def test_a_question_on_its_own_has_a_port_of_its_own() -> None:
    async with speaking(lambda message: [answer(message)]) as (server, speaker):
        exchange = Exchange()
        for _ in range(20):
            await exchange.ask(server, QUESTION, 5.0)
    assert len(set(speaker.clients)) > 15  # by chance the kernel may take one again


async def test_nobody_there_is_said_at_once() -> None:
    async with speaking(lambda _: []) as (server, _):
        pass
    with pytest.raises(ConnectionRefusedError):
        await Exchange().ask(server, QUESTION, 30.0)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (lambda m: b"\0\x40" + answer(m), EOFError),  # and then it hangs up
        (lambda _: b"", EOFError),
        (lambda m: _framed(answer(b"\0\0" if m[:2] != b"\0\0" else b"\0\1")), WireError),
        (lambda m: _framed(answer(m)[:-3]), WireError),
        (lambda m: _framed(m[:2] + b"\x83\x80" + answer(m)[4:]), WireError),  # cut short here, too
    ],
)
async def test_by_tcp_an_answer_that_is_none_is_an_error(
    reply: Callable[[bytes], bytes], error: type[Exception]
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        writer.write(reply(await reader.readexactly(size)))
        writer.close()

    async with speaking(lambda message: [message[:2] + b"\x83\x80" + answer(message)[4:]]) as (server, _):
        streams = await asyncio.start_server(speak, server.address, server.port)
        async with streams:
            with pytest.raises(error):
                await Exchange().ask(server, QUESTION, 5.0)


def _framed(octets: bytes) -> bytes:
    return len(octets).to_bytes(2, "big") + octets


@pytest.mark.parametrize("trouble", list(Trouble))
async def test_another_server_answers_for_one_in_trouble(trouble: Trouble) -> None:
    async with Nameserver(ZONE, troubles={"h1.test": trouble}) as bad, Nameserver(ZONE) as good:
        both = (f"127.0.0.1:{bad.port}", f"127.0.0.1:{good.port}")
        async with Resolver(DnsSettings(nameservers=both, timeout_ms=600), SystemClock()) as resolver:
            found = await resolver.lookup("h1.test", "A")
        assert (found.status, found.records) == (LookupStatus.RECORDS, (TRUE,))
        assert bad.asked["h1.test", "A"] >= 1
        assert good.asked["h1.test", "A"] == (0 if trouble is Trouble.TRUNCATED else 1)


async def test_without_an_answer_it_is_said_what_each_server_did() -> None:
    async with (
        Nameserver(ZONE, troubles={"h1.test": Trouble.SILENT}) as silent,
        Nameserver(ZONE, troubles={"h1.test": Trouble.SERVFAIL}) as failing,
    ):
        both = (f"127.0.0.1:{silent.port}", f"127.0.0.1:{failing.port}")
        async with Resolver(DnsSettings(nameservers=both, timeout_ms=400), SystemClock()) as resolver:
            found = await resolver.lookup("h1.test", "A")
        assert found.status is LookupStatus.NO_ANSWER
        assert f"127.0.0.1:{silent.port} timed out" in found.why
        assert f"127.0.0.1:{failing.port} says SERVFAIL" in found.why
        # Who is silent may have lost the question; who says that it fails has said so.
        assert silent.asked["h1.test", "A"] > 1
        assert failing.asked["h1.test", "A"] == 1


async def test_no_more_questions_are_under_way_than_are_allowed_and_all_are_asked() -> None:
    under_way: set[bytes] = set()
    most = 0

    def later(message: bytes) -> list[bytes]:
        nonlocal most
        under_way.add(message)
        most = max(most, len(under_way))
        loop.call_later(0.002, reply, message, speaker.clients[-1])
        return []

    def reply(message: bytes, client: tuple[str, int]) -> None:
        under_way.discard(message)
        speaker.transport.sendto(answer(message, asked=message[12:-11]), client)

    loop = asyncio.get_running_loop()
    async with speaking(later) as (server, speaker):
        settings = DnsSettings(nameservers=(str(server),), concurrency=7)
        async with Resolver(settings, SystemClock()) as resolver:
            found = await resolver.lookup_all(*((name, "A") for name in ZONE))
    assert all(lookup.status is LookupStatus.RECORDS for lookup in found)
    assert 1 < most <= 7


async def test_who_asks_again_as_soon_as_there_is_an_answer_gets_one() -> None:
    async with Nameserver(ZONE) as server, Resolver(server.settings(concurrency=1), SystemClock()) as resolver:
        async with asyncio.timeout(10):
            found = [await resolver.lookup(name, "A") for name in list(ZONE)[:5]]
    assert all(lookup.status is LookupStatus.RECORDS for lookup in found)


async def test_who_waits_when_the_resolver_closes_waits_no_longer() -> None:
    heard = asyncio.Event()

    def listen(_: bytes) -> list[bytes]:
        heard.set()
        return []

    async with speaking(listen) as (server, _):
        async with Resolver(DnsSettings(nameservers=(str(server),), concurrency=1), SystemClock()) as resolver:
            waiting = [asyncio.create_task(resolver.lookup(name, "A")) for name in ("h1.test", "h2.test")]
            await heard.wait()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)

"""Acceptance of responses (RFC 5452). In each test the name server's responses are built from bytes."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import pytest
import uvloop
from dns.rdtypes.IN.A import A

from postroad.clock import SystemClock
from postroad.dns.lookup import LookupStatus, parse_name
from postroad.dns.record import Address
from postroad.dns.resolver import Resolver
from postroad.dns.transport import MAX_UDP_BYTES, Server, send_query
from postroad.settings import DnsSettings
from tests.dns.forger import question, response, rr, speaking
from tests.dns.nameserver import Nameserver, Trouble

ZONE = {f"h{n}.test": {"A": [f"192.0.2.{n}"]} for n in range(200)}
NAME = parse_name("h1.test")
RIGHT, FORGED = rr("A", b"\xc0\0\2\1"), rr("A", b"\xc6\x33\x64\x42")
TRUE = Address("192.0.2.1")
LABEL = b"\x3f" + b"x" * 63


async def addresses(server: Server, name: str = "h1.test", *, timeout_s: float = 5.0) -> list[str]:
    answered = await send_query(server, parse_name(name), "A", timeout_s)
    return [rdata.address for rrset in answered.answer for rdata in rrset if isinstance(rdata, A)]


def owned_by(owner: bytes) -> bytes:
    return owner + FORGED[2:]


FORGERIES: dict[str, Callable[[bytes], bytes]] = {
    "another id": lambda q: response(bytes([q[0] ^ 1, q[1]]) + q[2:], FORGED),
    "another name": lambda q: response(q, FORGED, asked=question("h2.test", "A")),
    "another type": lambda q: response(q, FORGED, asked=question("h1.test", "AAAA")),
    "another class": lambda q: response(q, FORGED, asked=question("h1.test", "A")[:-1] + b"\3"),
    "no question": lambda q: response(q, FORGED, asked=b"", counts=(0, 1, 0, 0)),
    "a question more": lambda q: response(
        q, FORGED, asked=question("h1.test", "A") + question("h2.test", "A"), counts=(2, 1, 0, 0)
    ),
    "a query": lambda q: q,
    "a query with an answer": lambda q: response(q, FORGED, flags=0x0180),
    "an update": lambda q: response(q, FORGED, flags=0xA980),
    "cut off": lambda q: response(q, FORGED)[:-2],
    "fewer records than it says": lambda q: response(q, FORGED, counts=(1, 2, 0, 0)),
    "too long": lambda q: response(q, FORGED) + b"\0",
    "an address of 3 octets": lambda q: response(q, rr("A", b"\xc6\x33\x64")),
    "a pointer forward": lambda q: response(q, owned_by(b"\xc0\x1b")),
    "a pointer to itself": lambda q: response(q, owned_by(b"\1b\xc0\x19")),
    "a long name to itself": lambda q: response(q, owned_by(LABEL + b"\xc0\x19")),
    "a pointer in the question": lambda q: response(q, FORGED, asked=b"\2h1\xc0\x0c\0\1\0\1"),
    "an unknown kind of label": lambda q: response(q, owned_by(b"\x80\x0c")),
    "a name of 257 octets": lambda q: response(q, owned_by(LABEL * 4 + b"\0")),
    "truncated, of another name": lambda q: response(q, asked=question("h2.test", "A"), flags=0x8380),
    "a failure, of another id": lambda q: response(bytes([q[0] ^ 1, q[1]]) + q[2:], flags=0x8182),
    "nothing": lambda _: b"",
    "noise": lambda q: q[:2] + b"\xff" * 40,
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
async def test_forged_responses_are_ignored(forge: Callable[[bytes], bytes]) -> None:
    async with speaking(lambda query: [forge(query), response(query, RIGHT)]) as (server, _):
        assert await addresses(server) == ["192.0.2.1"]


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
async def test_forged_responses_alone_are_a_timeout(forge: Callable[[bytes], bytes]) -> None:
    async with speaking(lambda query: [forge(query)] * 3) as (server, _):
        with pytest.raises(TimeoutError):
            await addresses(server, timeout_s=0.05)


async def test_datagrams_from_another_port_are_ignored() -> None:
    async with speaking(lambda _: []) as (_, stranger):

        def forge_first(query: bytes) -> list[bytes]:
            stranger.transport.sendto(response(query, FORGED), asked.clients[-1])
            return [response(query, RIGHT)]

        async with speaking(forge_first) as (server, asked):
            assert await addresses(server) == ["192.0.2.1"]


async def test_the_first_valid_response_counts() -> None:
    async with speaking(lambda query: [response(query, RIGHT), response(query, FORGED)]) as (server, _):
        assert await addresses(server) == ["192.0.2.1"]


async def test_the_question_may_return_in_another_case() -> None:
    async with speaking(lambda query: [response(query, RIGHT, asked=question("H1.TeSt", "A"))]) as (server, _):
        assert await addresses(server) == ["192.0.2.1"]


async def test_concurrent_queries_have_their_own_ports_and_ids() -> None:
    queries: list[bytes] = []
    all_sent = asyncio.Event()

    def collect(query: bytes) -> list[bytes]:
        queries.append(query)
        if len(queries) == len(ZONE):
            all_sent.set()
        return []

    async with speaking(collect) as (server, speaker):
        waiting = [asyncio.create_task(addresses(server, name, timeout_s=30.0)) for name in ZONE]
        await all_sent.wait()
        for client, query in zip(speaker.clients, queries, strict=True):
            number = next(n for n, name in enumerate(ZONE) if question(name, "A") in query)
            speaker.transport.sendto(response(query, rr("A", bytes([192, 0, 2, number]))), client)
        found = await asyncio.gather(*waiting)
    assert found == [[f"192.0.2.{n}"] for n in range(200)]
    assert len({port for _, port in speaker.clients}) == 200
    assert len({query[:2] for query in queries}) > 180  # two of 200 random ids of 16 bits may be equal


async def test_successive_queries_use_new_ports() -> None:
    async with speaking(lambda query: [response(query, RIGHT)]) as (server, speaker):
        for _ in range(20):
            await addresses(server)
    assert len(set(speaker.clients)) > 15  # the kernel may pick one again


async def test_a_query_requests_recursion_ad_and_small_datagrams() -> None:
    queries: list[bytes] = []

    def collect(query: bytes) -> list[bytes]:
        queries.append(query)
        return [response(query, RIGHT)]

    async with speaking(collect) as (server, _):
        await send_query(server, parse_name("bücher.test"), "MX", 5.0)
    query = dns.message.from_wire(queries[0])
    [asked] = query.question
    assert (asked.name, asked.rdtype) == (dns.name.from_text("xn--bcher-kva.test"), dns.rdatatype.MX)
    assert asked.rdclass == dns.rdataclass.IN
    assert (query.edns, query.payload) == (0, MAX_UDP_BYTES)
    assert query.flags == dns.flags.RD | dns.flags.AD


async def test_a_closed_port_is_reported_at_once() -> None:
    async with speaking(lambda _: []) as (server, _):
        pass
    with pytest.raises(ConnectionRefusedError):
        await addresses(server, timeout_s=30.0)


TRUNCATED = 0x8380


def framed(octets: bytes) -> bytes:
    return len(octets).to_bytes(2, "big") + octets


@pytest.mark.parametrize(
    ("over_tcp", "error"),
    [
        (lambda q: b"\0\x40" + response(q, RIGHT), EOFError),  # and then it closes the connection
        (lambda _: b"", EOFError),
        (lambda q: framed(response(b"\0\0" if q[:2] != b"\0\0" else b"\0\1", RIGHT)), dns.exception.DNSException),
        (lambda q: framed(response(q, FORGED, asked=question("h2.test", "A"))), dns.exception.DNSException),
        (lambda q: framed(response(q, RIGHT)[:-3]), dns.exception.DNSException),
        (lambda q: framed(response(q, RIGHT, flags=TRUNCATED)), EOFError),
    ],
    ids=["too short", "nothing", "another id", "another name", "cut off", "truncated"],
)
async def test_an_invalid_response_over_tcp_is_an_error(
    over_tcp: Callable[[bytes], bytes], error: type[Exception]
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        writer.write(over_tcp(await reader.readexactly(size)))
        writer.close()

    async with speaking(lambda query: [response(query, RIGHT, flags=TRUNCATED)]) as (server, _):
        streams = await asyncio.start_server(speak, server.address, server.port)
        async with streams:
            with pytest.raises(error):
                await addresses(server)


async def test_a_silent_tcp_server_is_a_timeout() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with speaking(lambda query: [response(query, flags=TRUNCATED)]) as (server, _):
        streams = await asyncio.start_server(wait, server.address, server.port)
        async with streams:
            with pytest.raises(TimeoutError):
                await addresses(server, timeout_s=0.2)


@pytest.mark.parametrize("trouble", list(Trouble))
async def test_another_server_answers_for_one_in_trouble(trouble: Trouble) -> None:
    async with Nameserver(ZONE, troubles={"h1.test": trouble}) as bad, Nameserver(ZONE) as good:
        both = (f"127.0.0.1:{bad.port}", f"127.0.0.1:{good.port}")
        async with Resolver(DnsSettings(nameservers=both, timeout_ms=600), SystemClock()) as resolver:
            found = await resolver.lookup("h1.test", "A")
        assert (found.status, found.records) == (LookupStatus.RECORDS, (TRUE,))
        assert bad.asked["h1.test", "A"] >= 1
        assert good.asked["h1.test", "A"] == (0 if trouble is Trouble.TRUNCATED else 1)


async def test_without_an_answer_the_failure_of_each_server_is_named() -> None:
    async with (
        Nameserver(ZONE, troubles={"h1.test": Trouble.SILENT}) as silent,
        Nameserver(ZONE, troubles={"h1.test": Trouble.SERVFAIL}) as failing,
    ):
        both = (f"127.0.0.1:{silent.port}", f"127.0.0.1:{failing.port}")
        async with Resolver(DnsSettings(nameservers=both, timeout_ms=1_200), SystemClock()) as resolver:
            found = await resolver.lookup("h1.test", "A")
        assert found.status is LookupStatus.NO_ANSWER
        assert f"127.0.0.1:{silent.port} timed out" in found.why
        assert f"127.0.0.1:{failing.port} says SERVFAIL" in found.why
        # A silent server may have lost the query. One that reports a failure has received it.
        assert silent.asked["h1.test", "A"] > 1
        assert failing.asked["h1.test", "A"] == 1


async def test_queries_in_flight_stay_within_the_limit() -> None:
    in_flight: set[bytes] = set()
    most = 0

    def later(query: bytes) -> list[bytes]:
        nonlocal most
        in_flight.add(query)
        most = max(most, len(in_flight))
        loop.call_later(0.002, reply, query, speaker.clients[-1])
        return []

    def reply(query: bytes, client: tuple[str, int]) -> None:
        in_flight.discard(query)
        speaker.transport.sendto(response(query, RIGHT), client)

    loop = asyncio.get_running_loop()
    async with speaking(later) as (server, speaker):
        settings = DnsSettings(nameservers=(str(server),), concurrency=7)
        async with Resolver(settings, SystemClock()) as resolver:
            found = await resolver.lookup_all(*((name, "A") for name in ZONE))
    assert all(lookup.status is LookupStatus.RECORDS for lookup in found)
    assert 1 < most <= 7


async def test_a_lookup_right_after_an_answer_is_answered() -> None:
    async with Nameserver(ZONE) as server, Resolver(server.settings(concurrency=1), SystemClock()) as resolver:
        async with asyncio.timeout(10):
            found = [await resolver.lookup(name, "A") for name in list(ZONE)[:5]]
    assert all(lookup.status is LookupStatus.RECORDS for lookup in found)


async def test_closing_the_resolver_cancels_lookups() -> None:
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


@pytest.mark.parametrize("turns", range(8))
def test_a_query_that_its_event_loop_cancels_leaves_no_socket_open(turns: int) -> None:
    async def cancel() -> None:
        async with speaking(lambda _: []) as (silent, _):
            query = asyncio.create_task(addresses(silent))
            for _turn in range(turns):
                await asyncio.sleep(0)
            query.cancel()
            await asyncio.wait([query])

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        uvloop.run(cancel())
        gc.collect()
    assert caught == []

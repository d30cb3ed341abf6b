"""Mail hosts that are slow on purpose: none of them holds a session, a job or a worker beyond a deadline."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.clock import SystemClock
from postroad.delivery.compiled_steps import CompiledSteps
from postroad.delivery.destinations import Destinations
from postroad.delivery.handler import SendHandler
from postroad.delivery.job import decode_job
from postroad.delivery.outcome import NoMailHostError, UnreachableReason, classify_transport_error
from postroad.delivery.result import DeliveryVerdict
from postroad.delivery.routes import open_routes
from postroad.delivery.submit import SubmitOptions, submit_due
from postroad.dns.public_address import may_connect, networks
from postroad.dns.resolver import Resolver
from postroad.gates.controller import GateController
from postroad.mail.token import TokenSigner
from postroad.queue import Lease, Queue, Worker, WorkerOptions
from postroad.queue import Verdict as QueueVerdict
from postroad.sandbox import Sandbox, SandboxConfig
from postroad.settings import RouteSettings, TlsMode
from postroad.shaping.config import read_shaping
from postroad.shaping.shaper import Shaper
from postroad.smtp.errors import Timeouts, TransportError
from postroad.smtp.pool import SessionPool
from postroad.smtp.reply import Phase
from postroad.smtp.session import SmtpSession
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from tests.dns.nameserver import Nameserver
from tests.smtp.conftest import QUICK, Certificates, Marks, message, nothing, route
from tests.smtp.scripted import Connection, ScriptedServer
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

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


# -- a worker


SLOW, FAST = 20, 100
CONCURRENCY = 6
ZONE = {
    "slow.example": {"MX": ["10 mx1.slow.example.", "10 mx2.slow.example.", "10 mx3.slow.example."]},
    **{f"mx{number}.slow.example": {"A": [f"127.0.0.{number + 1}"]} for number in (1, 2, 3)},
    "fast.example": {"MX": ["10 mx.fast.example."]},
    "mx.fast.example": {"A": ["127.0.0.1"]},
    "private.example": {"MX": ["10 mx.private.example."]},
    "mx.private.example": {"A": ["10.0.0.1", "169.254.169.254"], "AAAA": ["::1", "::ffff:127.0.0.1"]},
}


@asynccontextmanager
async def delivering(
    engine: sa.Engine, queue: Queue, server: Nameserver, port: int, destinations: Destinations
) -> AsyncIterator[SendHandler]:
    clock = SystemClock()
    settings = RouteSettings.model_validate({"kind": "direct", "port": port, "tls": "none"})
    async with (
        Resolver(server.settings(), clock) as resolver,
        open_routes(
            {"relay": settings},
            shaping=read_shaping(None),
            resolver=resolver,
            engine=engine,
            clock=clock,
            rng=Random(7),
            destinations=destinations,
        ) as routes,
        SendHandler(
            steps=CompiledSteps(
                engine=engine,
                signer=TokenSigner(SecretStr("a key that is only used in tests")),
                public_url="https://mail.example.com",
                clock=clock,
            ),
            queue=queue,
            routes=routes,
            origins={},
            clock=clock,
            shaper=Shaper(
                engine=engine,
                gates=GateController(engine, queue, []),
                shaping=read_shaping(None),
                clock=clock,
            ),
        ) as delivery,
    ):
        yield delivery


def listening_at(hosts: list[str], stack: AsyncExitStack) -> int:
    """Accept connections at one port of these addresses, free at 127.0.0.1, and say nothing there."""
    while True:
        with ExitStack() as listeners:
            try:
                with socket.create_server(("127.0.0.1", 0)) as free:
                    port: int = free.getsockname()[1]
                    for host in hosts:
                        listeners.enter_context(socket.create_server((host, port), backlog=100))
            except OSError:
                continue  # It is in use at one of them.
            stack.callback(listeners.pop_all().close)
            return port


async def enqueue(engine: sa.Engine, queue: Queue, addresses: list[str]) -> None:
    with write(engine) as connection:
        campaign_id, (step,) = add_campaign(connection, name="trial")
        for address in addresses:
            recipient_id = add_recipient(connection, address)
            add_touch(connection, campaign_id, step, TouchState.PLANNED, recipient_id=recipient_id)
    await submit_due(
        engine,
        queue,
        "trial",
        SubmitOptions(expire_ms=10 * 365 * 86_400_000, horizon_ms=1),
        now=NOW,
        cursor=0,
        limit=1_000,
    )


async def test_recipients_at_a_slow_destination_do_not_stop_the_others(
    engine: sa.Engine, queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its hosts accept connections and say nothing: jobs wait there for minutes, and other mail is delivered."""
    addresses = [f"slow{n}@slow.example" for n in range(SLOW)] + [f"fast{n}@fast.example" for n in range(FAST)]
    Random(7).shuffle(addresses)
    verdicts: dict[str, QueueVerdict] = {}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Nameserver(ZONE))
        port = listening_at([f"127.0.0.{number + 1}" for number in (1, 2, 3)], stack)
        config = SandboxConfig(directory=str(tmp_path / "sandbox"), host="127.0.0.1", port=port)
        sandbox = await stack.enter_async_context(Sandbox(config, rng=Random(7)))
        await enqueue(engine, queue, addresses)
        destinations = Destinations(jobs=CONCURRENCY // 2, allowed=networks(["127.0.0.0/8"]), slot_timeout_s=SHORT_S)
        delivery = await stack.enter_async_context(delivering(engine, queue, server, sandbox.port, destinations))

        async def handle(lease: Lease) -> QueueVerdict:
            address = decode_job(lease.job.payload).address
            verdicts[address] = await delivery(lease)
            return verdicts[address]

        stop = asyncio.Event()
        worker = Worker(queue, handle, concurrency=CONCURRENCY, options=WorkerOptions(drain_ms=1_000, name="w"))
        working = asyncio.create_task(worker.run(stop))
        try:
            async with asyncio.timeout(60):
                while len(sandbox.accepted()) < FAST or sum(a.startswith("slow") for a in verdicts) < SLOW - 3:
                    await asyncio.sleep(0.02)
        finally:
            stop.set()
            await working
    assert {found.recipient for found in sandbox.accepted()} == {a for a in addresses if a.startswith("fast")}
    # Three jobs were held by the slow hosts all the time; all others of theirs were put off.
    causes = [getattr(verdict, "cause", "") for address, verdict in verdicts.items() if address.startswith("slow")]
    assert causes.count("mail hosts busy") == SLOW - 3
    assert "the mail hosts of" in caplog.text
    assert "are slow" in caplog.text


# -- addresses


PUBLIC = ["8.8.8.8", "2a00:1450:4001:800::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]
_NOT_PUBLIC = """
127.0.0.1 127.255.0.1 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0
0.1.2.3 255.255.255.255 224.0.0.1 239.1.1.1 240.0.0.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.9 192.0.0.8
192.88.99.1 ::1 :: ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 2002:7f00:1::1
2002:a00:1::1 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b:1::1 fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254
ff02::1 ff0e::1 fec0::1 2001::1 2001:db8::1 3fff::1 100::1
"""


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_connected_to(address: str) -> None:
    assert may_connect(address)


@pytest.mark.parametrize("address", _NOT_PUBLIC.split())
def test_an_address_that_is_not_public_is_refused_unless_allowed(address: str) -> None:
    assert not may_connect(address)
    assert may_connect(address, networks(["0.0.0.0/0", "::/0"]))


def test_a_network_that_is_allowed_allows_the_addresses_that_lead_there() -> None:
    allowed = networks(["10.0.0.0/8"])
    assert may_connect("10.1.2.3", allowed)
    assert may_connect("::ffff:10.1.2.3", allowed)
    assert not may_connect("192.168.1.1", allowed)
    assert not may_connect("::ffff:192.168.1.1", allowed)


async def test_a_domain_whose_hosts_are_not_public_is_not_connected_to(engine: sa.Engine, queue: Queue) -> None:
    clock = SystemClock()
    async with Nameserver(ZONE) as server, Resolver(server.settings(), clock) as resolver:
        routes = {"direct": RouteSettings.model_validate({"kind": "direct", "port": 9})}
        async with open_routes(
            routes, shaping=read_shaping(None), resolver=resolver, engine=engine, clock=clock, rng=Random(7)
        ) as opened:
            with pytest.raises(NoMailHostError, match=r"no public address: 10\.0\.0\.1") as caught:
                await opened["direct"].send(message(recipient="ada@private.example"), nothing)
    assert caught.value.kind is UnreachableReason.NOT_PUBLIC

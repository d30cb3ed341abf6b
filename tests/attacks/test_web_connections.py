"""Clients that hold connections of `postroad web`: they have a share and deadlines, and others are served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import httpx
import pytest
import sqlalchemy as sa
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from postroad.queue import Queue
from postroad.settings import WebSettings
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.web.connections import ConnectionLimits, WebConnectionLimiter
from postroad.web.rate_limit import networks
from postroad.web.serve import serving
from tests.kit.waiting import until
from tests.store.rows import add_campaign, add_touch
from tests.web.conftest import open_web, path_of

BOUND_S = 30.0
QUICK = ConnectionLimits(head_s=1.0, body_s=1.0, answer_s=1.0, closing_s=1.0, check_s=0.05)
PATIENT = ConnectionLimits(head_s=600, body_s=600, answer_s=600, closing_s=600, check_s=0.05)
MAILGUN = WebSettings.model_validate({"webhooks": {"mailgun": {"signing_key": "a key of the tests"}}})
HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: x\r\nX-More: "
HALF_A_CALL = (
    b"POST /webhooks/mailgun HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{"
)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class World:
    """A server with a touch to unsubscribe, and clients at addresses of their own."""

    port: int
    limiter: WebConnectionLimiter
    path: str
    stack: AsyncExitStack

    async def connect(self, client: str, sent: bytes = b"") -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(client, 0))
        self.stack.callback(writer.close)
        with suppress(ConnectionError):
            writer.write(sent)
            await writer.drain()
        return reader, writer

    async def attack(self, clients: Sequence[str], each: int, sent: bytes) -> list[Streams]:
        return [await self.connect(client, sent) for _ in range(each) for client in clients]

    async def post(self, path: str, client: str, **headers: str) -> int:
        transport = httpx.AsyncHTTPTransport(local_address=client)
        async with httpx.AsyncClient(
            transport=transport, base_url=f"http://127.0.0.1:{self.port}", timeout=BOUND_S
        ) as http:
            return (await http.post(path, data=ONE_CLICK_FORM, headers=headers)).status_code

    async def get(self, path: str, client: str) -> int:
        transport = httpx.AsyncHTTPTransport(local_address=client)
        async with httpx.AsyncClient(
            transport=transport, base_url=f"http://127.0.0.1:{self.port}", timeout=BOUND_S
        ) as http:
            return (await http.get(path)).status_code


ONE_CLICK_FORM = {"List-Unsubscribe": "One-Click"}


@asynccontextmanager
async def opened_world(
    engine: sa.Engine, queue: Queue, limits: ConnectionLimits, settings: WebSettings = MAILGUN
) -> AsyncIterator[World]:
    with write(engine) as connection:
        campaign_id, (step,) = add_campaign(connection)
        touch = add_touch(connection, campaign_id, step, TouchState.ACCEPTED)

    async def opened() -> Queue:
        return queue

    limiter = WebConnectionLimiter(limits, networks(settings.trusted_proxies))
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(open_web(engine, opened, settings, limiter=limiter))
        clients = await stack.enter_async_context(AsyncExitStack())
        assert http.base_url.port is not None
        yield World(http.base_url.port, limiter, path_of(touch), clients)


async def closed(streams: Sequence[Streams]) -> None:
    """Return once the server has closed all these connections."""
    for reader, _ in streams:
        with suppress(ConnectionError):
            while await reader.read(65_536):
                pass


async def test_half_sent_heads_of_one_client_do_not_keep_another_out(engine: sa.Engine, queue: Queue) -> None:
    async with opened_world(engine, queue, PATIENT) as world, asyncio.timeout(BOUND_S):
        await world.attack(["127.0.0.2"], 600, HALF_A_HEAD)
        assert len(world.limiter) <= PATIENT.per_client
        assert await world.post(world.path, "127.0.0.3") == 200


async def test_half_sent_heads_of_many_clients_do_not_keep_another_out(engine: sa.Engine, queue: Queue) -> None:
    limits = ConnectionLimits(**{**vars(PATIENT), "connections": 100, "per_client": 30})
    async with opened_world(engine, queue, limits) as world, asyncio.timeout(BOUND_S):
        await world.attack([f"127.0.1.{number}" for number in range(1, 11)], 30, HALF_A_HEAD)
        while len(world.limiter) < 100:
            await asyncio.sleep(0.01)
        for _ in range(5):
            assert await world.post(world.path, "127.0.0.3") == 200


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"", b""),
        (b"GET / HT", b"T"),
        (HALF_A_HEAD, b"y"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n", b"z"),
        (HALF_A_CALL, b" "),
        (HALF_A_CALL.replace(b"Content-Length: 9999", b"Transfer-Encoding: chunked") + b"\r\n", b""),
        (b"POST /nothing-here HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n", b"z"),
    ],
    ids=["silence", "first line", "headers", "body of a GET", "body of a call", "chunks", "body of a 404"],
)
async def test_a_request_that_trickles_is_cut_off(engine: sa.Engine, queue: Queue, begun: bytes, more: bytes) -> None:
    async with opened_world(engine, queue, QUICK) as world, asyncio.timeout(BOUND_S):
        streams = await world.connect("127.0.0.2", begun)

        async def trickle() -> None:
            with suppress(ConnectionError):
                while not streams[1].is_closing():
                    streams[1].write(more)
                    await streams[1].drain()
                    await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        await closed([streams])
        while len(world.limiter):
            await asyncio.sleep(0.01)
        trickling.cancel()


async def test_slow_calls_do_not_keep_other_calls_out(engine: sa.Engine, queue: Queue) -> None:
    async with opened_world(engine, queue, PATIENT) as world, asyncio.timeout(BOUND_S):
        await world.attack(["127.0.0.2"], 40, HALF_A_CALL)
        while len(world.limiter) < 40:
            await asyncio.sleep(0.01)
        # It is read and refused for what it says: 503 would mean that no call is taken.
        assert await world.post("/webhooks/mailgun", "127.0.0.3") == 400


async def test_a_client_that_reads_no_answers_is_cut_off(engine: sa.Engine, queue: Queue) -> None:
    settings = MAILGUN.model_copy(update={"rate": WebSettings.model_validate({"rate": "1000000/1s"}).rate})
    async with opened_world(engine, queue, QUICK, settings) as world, asyncio.timeout(BOUND_S):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.bind(("127.0.0.2", 0))
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, ("127.0.0.1", world.port))
        request = f"GET {world.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        with raw, suppress(ConnectionError):
            while True:
                await loop.sock_sendall(raw, request * 50)
        while len(world.limiter):
            await asyncio.sleep(0.01)


async def test_a_slow_client_of_a_proxy_is_rejected_and_others_are_served(
    engine: sa.Engine,
    queue: Queue,
) -> None:
    settings = WebSettings.model_validate(
        {**MAILGUN.model_dump(), "trusted_proxies": ["127.0.0.2"], "connections_per_client": 8}
    )
    limits = ConnectionLimits(**{**vars(PATIENT), "per_client": 8})
    async with opened_world(engine, queue, limits, settings) as world, asyncio.timeout(BOUND_S):
        slow = HALF_A_CALL.replace(b"Host: x\r\n", b"Host: x\r\nX-Forwarded-For: 192.0.2.7\r\n")
        streams = await world.attack(["127.0.0.2"], 20, slow)
        refused = 0
        for reader, _ in streams[8:]:
            refused += (await reader.readline()).startswith(b"HTTP/1.1 429")
        assert refused == 12
        headers = {"X-Forwarded-For": "192.0.2.8"}
        assert await world.post(world.path, "127.0.0.2", **headers) == 200
        assert await world.post("/webhooks/mailgun", "127.0.0.2", **headers) == 400


async def test_bodies_take_a_bounded_part_of_the_memory(engine: sa.Engine, queue: Queue) -> None:
    """Each call sends all of its body but the last byte: of one client no more than 8 MiB are held."""
    head = HALF_A_CALL.replace(b"9999", str(1 << 20).encode())
    async with opened_world(engine, queue, PATIENT) as world, asyncio.timeout(BOUND_S):
        streams = [await world.connect("127.0.0.2", head + b" " * ((1 << 20) - 2)) for _ in range(12)]
        ended = [asyncio.create_task(closed([stream])) for stream in streams]
        while sum(task.done() for task in ended) < 4:
            await asyncio.sleep(0.01)
        assert sum(task.done() for task in ended) == 4
        assert await world.post("/webhooks/mailgun", "127.0.0.3") == 400
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)


FEW = MAILGUN.model_copy(update={"rate": WebSettings.model_validate({"rate": "40/1h"}).rate})
"""Two refused calls, which count for 20 each."""


async def test_healthz_has_the_limit_of_its_client(engine: sa.Engine, queue: Queue) -> None:
    settings = MAILGUN.model_copy(update={"rate": WebSettings.model_validate({"rate": "5/1h"}).rate})
    async with opened_world(engine, queue, PATIENT, settings) as world, asyncio.timeout(BOUND_S):
        assert [await world.get("/healthz", "127.0.0.2") for _ in range(7)] == [200] * 5 + [429] * 2
        assert await world.get("/healthz", "127.0.0.3") == 200


@pytest.mark.parametrize(
    ("begun", "limits"),
    [
        (HALF_A_CALL.replace(b"9999", b"9999999") + b" " * (1 << 21), PATIENT),
        (HALF_A_CALL, QUICK),
        (HALF_A_CALL.replace(b"Content-Length: 9999", b"Transfer-Encoding: chunked") + b"\r\n", QUICK),
    ],
    ids=["too long", "too slow", "chunks that do not come"],
)
async def test_calls_with_a_slow_or_long_body_are_charged_to_their_client(
    engine: sa.Engine, queue: Queue, begun: bytes, limits: ConnectionLimits
) -> None:
    async with opened_world(engine, queue, limits, FEW) as world, asyncio.timeout(BOUND_S):
        for _ in range(2):
            await closed([await world.connect("127.0.0.2", begun)])
        # What is not a call of the service gets 400, until its client has used up its rate.
        assert await world.post("/webhooks/mailgun", "127.0.0.2") == 429
        assert await world.post("/webhooks/mailgun", "127.0.0.3") == 400


async def test_a_call_that_is_abandoned_is_charged_to_its_client(engine: sa.Engine, queue: Queue) -> None:
    async with opened_world(engine, queue, PATIENT, FEW) as world, asyncio.timeout(BOUND_S):
        for _ in range(2):
            _, writer = await world.connect("127.0.0.2", HALF_A_CALL)
            while not len(world.limiter):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)  # so that its head was read
            writer.close()
            while len(world.limiter):
                await asyncio.sleep(0.01)
        assert await world.post("/webhooks/mailgun", "127.0.0.2") == 429


async def test_a_long_response_that_is_read_is_not_cut_off_and_one_that_is_not_is() -> None:
    """Each part of a response has the deadline: such as of a list of all messages of a campaign."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x" * 1_000_000
            await asyncio.sleep(QUICK.answer_s / 4)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(parts())(scope, receive, send)

    limiter = WebConnectionLimiter(QUICK)
    async with serving(app, "127.0.0.1", 0, limiter) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with httpx.AsyncClient(timeout=BOUND_S) as http:
            answer = await http.get(f"http://127.0.0.1:{port}/")
        assert len(answer.content) == 8_000_000
        await until(lambda: len(limiter) == 0, within_s=BOUND_S)
        received = 0
        with suppress(ConnectionError):
            while part := await reader.read(1 << 16):
                received += len(part)
        assert received < 8_000_000
        writer.close()

"""Recipients at a slow destination do not stop the others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
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
from postroad.delivery.routes import open_routes
from postroad.delivery.submit import SubmitOptions, submit_due
from postroad.dns.public_address import networks
from postroad.dns.resolver import Resolver
from postroad.gates.controller import GateController
from postroad.mail.token import TokenSigner
from postroad.queue import Lease, Queue, Worker, WorkerOptions
from postroad.queue import Verdict as QueueVerdict
from postroad.sandbox import Sandbox, SandboxConfig
from postroad.settings import RouteSettings
from postroad.shaping.config import read_shaping
from postroad.shaping.shaper import Shaper
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from tests.dns.nameserver import Nameserver
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

SHORT_S = 0.3

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

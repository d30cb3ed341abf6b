"""`benchmarks events`: time and memory of an export of a million events, and events that a receiver gets per second."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from msgspec import Struct
from pydantic import SecretStr

from benchmarks.databases import POSTGRESQL, SQLITE, running_postgresql
from benchmarks.figures import Figure, Measure, alone
from benchmarks.large_ledger import large_ledger
from benchmarks.server import Server
from postroad.clock import SystemClock
from postroad.dns.resolver import Resolver
from postroad.event_types import DEFAULT_EVENTS
from postroad.events_out.client import EndpointClient
from postroad.events_out.feeder import WebhookFeeder
from postroad.events_out.handler import WebhookHandler, WebhookTarget
from postroad.events_out.signature import WebhookSigner, make_secret
from postroad.queue import Queue, Worker, WorkerOptions
from postroad.settings import DnsSettings
from postroad.settings.webhooks_out import WebhookEndpointSettings
from postroad.store.engine import open_engine, read, sqlite_url, write
from postroad.store.migrate import upgrade
from postroad.store.webhook_out import WebhookDeliveryState, add_endpoint, endpoint_states, open_deliveries

SECONDS_BAR, MEGABYTES_BAR = 120.0, 250.0
GROWTH_BAR = 1.25
"""Memory of the whole export, in relation to that of a hundredth of it."""
PER_SECOND_BAR = 100.0
FORMATS = ("ndjson", "parquet")


class Effort(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    events: int = 1_000_000
    sent: int = 3_000


QUICK = Effort(events=20_000, sent=300)


def measures(effort: Effort) -> list[Measure]:
    """Return what is measured of each database."""
    return [
        measure
        for database in (SQLITE, POSTGRESQL)
        for measure in (
            *(
                measure
                for kind in FORMATS
                for measure in (
                    Measure(name=f"export of {effort.events:,} events as {kind} from {database}, s", bar=SECONDS_BAR),
                    Measure(name=f"its memory, {kind}, {database}, MB", bar=MEGABYTES_BAR),
                    Measure(name=f"the same, by that of a hundredth, {kind}, {database}", bar=GROWTH_BAR),
                )
            ),
            Measure(name=f"webhooks per second with {database}", bar=PER_SECOND_BAR, at_least=True),
        )
    ]


async def measure(server: Server, effort: Effort) -> list[Figure]:
    """Measure both databases."""
    values: list[float] = []
    with TemporaryDirectory(prefix="postroad-bench-") as name:
        folder = Path(name)
        values += await _measure(folder, sqlite_url(folder), server, effort)
        async with running_postgresql() as url:
            values += await _measure(folder, url, server, effort)
    return [alone(each, value) for each, value in zip(measures(effort), values, strict=True)]


async def _measure(folder: Path, url: str, server: Server, effort: Effort) -> list[float]:
    engine = open_engine(url)
    upgrade(engine)
    large_ledger(engine, effort.events)
    found: list[float] = []
    for kind in FORMATS:
        _, small = _export(folder, url, kind, effort.events - effort.events // 100)
        seconds, large = _export(folder, url, kind, 0)
        found += [seconds, large, large / small]
    found.append(await _send(engine, server, effort.sent))
    engine.dispose()
    return found


def _export(folder: Path, url: str, kind: str, after: int) -> tuple[float, float]:
    """Run the command. Returns the seconds that it took, and its peak memory in MB."""
    code = (
        "import resource, sys\n"
        "from postroad.cli.app import main\n"
        f"sys.argv = ['postroad', 'events', 'export', '--after', '{after}', '--format', '{kind}', '--to', 'out', "
        "'--json']\n"
        "try:\n    main()\n"
        "finally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    )
    environment = {**os.environ, "POSTROAD_DATABASE_URL": url, "POSTROAD_STATE_DIR": str(folder / "state")}
    began_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - began_s
    assert json.loads(done.stdout)["events"] > 0
    return seconds, int(done.stderr.split()[-1]) * (1 if sys.platform == "darwin" else 1024) / 1e6


async def _send(engine: sa.Engine, server: Server, number: int) -> float:
    """Send the last events to a receiver on loopback. Returns how many arrived per second."""
    receiver = await asyncio.start_server(_receive, "127.0.0.1", 0)
    port = receiver.sockets[0].getsockname()[1]
    secret = make_secret()
    settings = WebhookEndpointSettings(
        url=f"http://127.0.0.1:{port}/", secret=SecretStr(secret), allow_networks=("127.0.0.0/8",), concurrency=50
    )
    clock = SystemClock()
    with write(engine) as connection:
        newest = connection.execute(sa.text("SELECT max(id) FROM delivery_event")).scalar_one()
        add_endpoint(connection, "shop", newest - number, clock.now())
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(Queue.open(server.url, f"events-{engine.dialect.name}"))
        resolver = await stack.enter_async_context(Resolver(DnsSettings(), clock))
        client = await stack.enter_async_context(EndpointClient("shop", settings, resolver))
        handler = WebhookHandler(
            engine=engine,
            queue=queue,
            clock=clock,
            endpoints={"shop": WebhookTarget(client, WebhookSigner([secret]))},
            attempts=3,
        )
        stack.push_async_callback(handler.aclose)
        feeder = WebhookFeeder(
            engine=engine, queue=queue, clock=clock, subscriptions={"shop": frozenset(DEFAULT_EVENTS)}, keep_ms=10**9
        )
        worker = Worker(queue, handler, prepare=handler.prepare, concurrency=50, options=WorkerOptions())
        stop = asyncio.Event()
        began_s = time.perf_counter()
        running = asyncio.create_task(worker.run(stop))
        while not _is_over(engine, newest):
            await feeder.feed_once()
            await asyncio.sleep(0.02)
        seconds = time.perf_counter() - began_s
        stop.set()
        await running
    receiver.close()
    return number / seconds


def _is_over(engine: sa.Engine, newest: int) -> bool:
    with read(engine) as connection:
        waiting = open_deliveries(connection, "shop", WebhookDeliveryState.WAITING, limit=1)
        return not waiting and endpoint_states(connection)["shop"].cursor >= newest


async def _receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
    writer.close()

"""The queue as a library: the webhook example with real HTTP servers, and its imports."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from examples.queue_alone.webhooks import POLICY, QUEUE, Delivery, gate_of, send
from postroad.clock import SystemClock
from postroad.queue import JobState, Queue, QueueOptions, Worker
from tests.conftest import RedisServer
from tests.kit.waiting import until
from tests.queue.conftest import running

ROOT = Path(__file__).parents[2]


class Receiver:
    """An HTTP server whose responses are set by the events: `429 once`, `500`, `410`, `hang up`."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        event = handler.headers["Event-Id"]
        handler.rfile.read(int(handler.headers["Content-Length"]))
        self.seen.append(event)
        wish = event.partition(":")[2]
        if wish == "hang up":
            handler.close_connection = True
            return
        status = {"410": 410, "429 once": 429 if self.seen.count(event) == 1 else 200}.get(wish, 200)
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        if status == 429:
            handler.send_header("Retry-After", "1")
        handler.end_headers()


@contextmanager
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.answer(self)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def shop() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def bank() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


async def test_every_receiver_gets_its_events_once_at_its_own_rate(
    redis_url: str, shop: Receiver, bank: Receiver
) -> None:
    async with Queue.open(redis_url, QUEUE, options=QueueOptions(retry=POLICY)) as queue, httpx.AsyncClient() as client:
        for event in ["1", "2", "3:410", "4:hang up", "5:429 once"]:
            assert await send(queue, event, shop.url, "{}")
            assert not await send(queue, event, shop.url, "{}")
        for n in range(20):
            await send(queue, f"bank {n}", bank.url, "{}")
        names = ["1", "2", "3:410", "4:hang up", "5:429 once", *(f"bank {n}" for n in range(20))]
        ended = [JobState.REMEMBERED, JobState.REMEMBERED, JobState.DEAD, JobState.UNCERTAIN, JobState.REMEMBERED]

        async def settled() -> bool:
            return await queue.states(names) == [*ended, *[JobState.REMEMBERED] * 20]

        begun_ms = SystemClock().now_ms()
        async with running(Worker(queue, Delivery(queue, client, SystemClock()), concurrency=50)):
            await until(settled)
        assert sorted(shop.seen) == ["1", "2", "3:410", "4:hang up", "5:429 once", "5:429 once"]
        assert sorted(bank.seen) == sorted(names[5:])
        # 20 at 10/s with a burst of 5 take at least this long.
        at_ms = [event.at_ms for name in names[5:] for event in (await queue.find(name)).history]
        assert max(at_ms) - begun_ms >= 1_490
        gates = {state.gate.name: state.gate for state in await queue.gates()}
        assert gates[gate_of(shop.url)].paused_until_ms
        assert not gates[gate_of(bank.url)].paused_until_ms
        assert await queue.audit() == []


async def test_the_example_program_runs(own_redis: RedisServer, shop: Receiver) -> None:
    script = str(ROOT / "examples/queue_alone/webhooks.py")
    worker = start([sys.executable, script, "work", own_redis.url])
    try:
        sender = start([sys.executable, script, "send", own_redis.url, "order-1042", shop.url, '{"paid": true}'])
        assert await asyncio.to_thread(sender.wait, 20) == 0

        async def delivered() -> bool:
            return shop.seen == ["order-1042"]

        await until(delivered)
        worker.terminate()
        assert await asyncio.to_thread(worker.wait, 20) == 0
    finally:
        worker.kill()
        worker.wait()


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command)


def test_the_queue_imports_no_other_package() -> None:
    """It needs only redis-py and msgspec; the metrics also need prometheus-client."""
    program = (
        "import sys, postroad.queue; "
        "print(*{name.partition('.')[0] for name in sys.modules} & {'sqlalchemy', 'pydantic', 'prefect', 'typer', "
        "'fastapi', 'prometheus_client'}); "
        "print(*sorted({'.'.join(name.split('.')[:2]) for name in sys.modules if name.startswith('postroad.')}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert loaded.splitlines() == ["", "postroad.clock postroad.errors postroad.queue"]

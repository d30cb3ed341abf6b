# ruff: noqa: INP001
"""Deliver webhooks, every receiver at its own pace: the queue without the rest of Postroad.

Run a Redis 7 or Valkey with `appendonly yes`, then, in as many terminals as you like::

    python webhooks.py work redis://localhost:6379/0
    python webhooks.py send redis://localhost:6379/0 order-1042 https://shop.example/hook '{"paid": true}'
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx
import msgspec

from postroad.clock import Clock, SystemClock
from postroad.queue import (
    Dead,
    Defer,
    Done,
    Gate,
    Job,
    Lane,
    Lease,
    Queue,
    QueueOptions,
    Rate,
    Retry,
    RetryPolicy,
    Uncertain,
    Verdict,
    Worker,
)

QUEUE = "webhooks"
POLICY = RetryPolicy(attempts=5, delays_ms=(1_000, 10_000, 60_000, 600_000), jitter=0.2)
PACE = Rate(count=10, per_ms=1_000, burst=5)
AT_ONCE = 4
REST_MS = 30_000


class Hook(msgspec.Struct, frozen=True, tag="hook.v1"):
    """What one job carries. A new shape gets a new tag, so that old jobs are still understood."""

    url: str
    body: str


def gate_of(url: str) -> str:
    """Each receiver has a gate, so that a slow one holds up nobody else."""
    return f"host:{urlsplit(url).netloc}"


async def send(queue: Queue, event_id: str, url: str, body: str) -> bool:
    """Queue one event, once: a second one of the same id is ignored. False: it was known."""
    gate = gate_of(url)
    if gate not in {state.gate.name for state in await queue.gates()}:
        await queue.set_gate(Gate(name=gate, rate=PACE, concurrency=AT_ONCE))
    lane = Lane(name=urlsplit(url).netloc, gates=(gate,))
    job = Job(id=event_id, payload=msgspec.msgpack.encode(Hook(url=url, body=body)))
    return (await queue.enqueue(lane, [job])).accepted == 1


class Delivery:
    """Handles one job: whatever happens is a verdict."""

    def __init__(self, queue: Queue, client: httpx.AsyncClient, clock: Clock) -> None:
        self._queue = queue
        self._client = client
        self._clock = clock

    async def __call__(self, lease: Lease) -> Verdict:
        hook = msgspec.msgpack.decode(lease.job.payload, type=Hook)
        request = self._client.build_request("POST", hook.url, content=hook.body, headers={"Event-Id": lease.job.id})
        # From here on the receiver may have seen it: a worker that dies now leaves the job uncertain, not repeated.
        await lease.mark()
        try:
            response = await self._client.send(request)
        except httpx.ConnectError as error:
            return Retry(cause="connect", error=str(error))
        except httpx.TransportError as error:
            return Uncertain(cause=type(error).__name__)
        return await self._judge(hook, response)

    async def _judge(self, hook: Hook, response: httpx.Response) -> Verdict:
        said = f"{response.status_code} {response.reason_phrase}"
        match response.status_code:
            case status if status < 300:
                return Done(note=said.encode())
            case 429 | 503:
                # RFC 9110 §10.2.3. All that goes to this receiver waits, and nothing else does.
                until_ms = self._clock.now_ms() + self._rest_ms(response.headers.get("Retry-After"))
                await self._queue.pause_gate(gate_of(hook.url), until_ms)
                return Defer(at_ms=until_ms, cause=said)
            case status if status >= 500:
                return Retry(cause=said, error=response.text)
            case _:
                return Dead(cause=said, error=response.text)

    def _rest_ms(self, retry_after: str | None) -> int:
        """Read a number of seconds, or a date."""
        if retry_after and retry_after.isdecimal():
            return int(retry_after) * 1000
        try:
            until = parsedate_to_datetime(retry_after or "")
        except ValueError:
            return REST_MS
        return max(int(until.timestamp() * 1000) - self._clock.now_ms(), 0)


async def work(url: str, stop: asyncio.Event) -> None:
    """Deliver until told to stop. Any number of processes may do so; a receiver's limits hold for all of them."""
    async with (
        Queue.open(url, QUEUE, options=QueueOptions(retry=POLICY)) as queue,
        httpx.AsyncClient(timeout=10) as client,
    ):
        report = await Worker(queue, Delivery(queue, client, SystemClock()), concurrency=50).run(stop)
        logging.getLogger(__name__).info("stopped: %s", report)


async def main(command: str, url: str, *event: str) -> None:
    if command == "send":
        async with Queue.open(url, QUEUE, options=QueueOptions(retry=POLICY)) as queue:
            await send(queue, *event)
        return
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await work(url, stop)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(*sys.argv[1:]))

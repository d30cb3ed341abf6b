"""Shapers of workers on one queue, and the replies that they get."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from postroad.clock import Clock
from postroad.gates.controller import GateController
from postroad.gates.name import Receiver
from postroad.queue import Gate, Queue
from postroad.shaping.config import read_shaping
from postroad.shaping.gate_source import ShapingLimits
from postroad.shaping.limits import LimitScope
from postroad.shaping.shaper import Shaper
from postroad.smtp.reply import Phase, Reply, parse_reply
from postroad.store.engine import read
from postroad.store.shaping import ShapingChange, newest_changes
from tests.kit.clock import FakeClock

SENDER = "a@example.com"

GMAIL, YAHOO = (
    LimitScope(sender=SENDER, receiver=Receiver("google")),
    LimitScope(sender=SENDER, receiver=Receiver("yahoo")),
)

MINUTE_MS = 60_000


def reply(text: str, phase: Phase = Phase.DOT) -> Reply:
    return parse_reply(phase, int(text[:3]), [text[4:]])


TSS04 = reply("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume")

UNUSUAL = reply("421 4.7.28 Gmail has detected an unusual rate of unsolicited mail.")

BUSY = reply("451 4.7.500 Server busy. Please try again later.")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def queue(redis_url: str, clock: FakeClock) -> AsyncIterator[Queue]:
    from postroad.queue.redis.client import connect

    async with Queue.open(redis_url, "shaping", clock=clock) as queue:
        yield queue
        assert await queue.audit() == []
    client = connect(redis_url)
    for key in await client.keys("pr:{shaping}:*"):
        await client.delete(key)
    await client.aclose()


def controller(
    engine: sa.Engine,
    queue: Queue,
    clock: Clock,
    shaped: Collection[str] = (),
    path: Path | None = None,
) -> GateController:
    return GateController(engine, queue, [], expiring=ShapingLimits(engine, read_shaping(path), shaped, clock))


def shaper(
    engine: sa.Engine,
    queue: Queue,
    clock: Clock,
    shaped: Collection[str] = (),
    path: Path | None = None,
    registry: CollectorRegistry | None = None,
) -> Shaper:
    gates = controller(engine, queue, clock, shaped, path)
    return Shaper(engine=engine, gates=gates, shaping=read_shaping(path), clock=clock, registry=registry)


async def gate(queue: Queue, name: str) -> Gate:
    return next((state.gate for state in await queue.gates() if state.gate.name == name), Gate(name=name))


def log(engine: sa.Engine) -> list[ShapingChange]:
    with read(engine) as connection:
        return newest_changes(connection, None, 100)

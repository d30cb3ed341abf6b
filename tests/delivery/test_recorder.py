"""The recorder while its database is unavailable: no event is lost or repeated, and it keeps one batch in memory."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from postroad.delivery.job import job_id
from postroad.delivery.recorder import BATCH, Recorder
from postroad.delivery.result import DeliveryResult, encode_result
from postroad.queue import Done, Event, Job, Queue
from postroad.settings import BounceSettings
from postroad.store.engine import open_engine, read, write
from postroad.store.ledger import TouchState
from tests.delivery.queue_of_touches import lane
from tests.kit.clock import FakeClock
from tests.postgresql import PostgresqlServer
from tests.store.rows import add_campaign, add_touch

TOUCHES = 2 * BATCH + 500


@pytest.fixture
def away(own_postgresql: PostgresqlServer) -> Iterator[tuple[PostgresqlServer, sa.Engine]]:
    """A database that a test may take away."""
    engine = open_engine(own_postgresql.url(own_postgresql.create()))
    yield own_postgresql, engine
    engine.dispose()


async def deliver(engine: sa.Engine, queue: Queue, count: int) -> list[int]:
    """Touches that were accepted, as their events say; the ledger has not heard of it."""
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring")
        touches = [add_touch(connection, campaign, step, TouchState.SENDING, claim=1) for _ in range(count)]
    await queue.enqueue(lane(), [Job(id=job_id(touch), payload=b"") for touch in touches])
    note = encode_result(DeliveryResult(state=TouchState.ACCEPTED, reply_code=250, reply="250 ok"))
    while jobs := (await queue.claim("w", want=1000, lease_ms=60_000, nonce=str(await queue.stats()))).jobs:
        await queue.settle("w", [(job, Done(note=note)) for job in jobs])
    return touches


def recorded(engine: sa.Engine) -> tuple[int, int]:
    """Touches that are accepted, and rows that say so."""
    with read(engine) as connection:
        counts = connection.execute(
            sa.text(
                "SELECT (SELECT count(*) FROM touch WHERE state = 'accepted'), (SELECT count(*) FROM delivery_event)"
            )
        ).one()
    return counts[0], counts[1]


class Patient(FakeClock):
    """A clock on which a wait takes no time, and which says how long was waited for."""

    def __init__(self, now_ms: int) -> None:
        super().__init__(now_ms)
        self.waited = asyncio.Event()
        self.waits = 0

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        self.waits += 1
        if self.waits >= 300:
            self.waited.set()
        await asyncio.sleep(0)


def _events_in_memory() -> int:
    return sum(isinstance(kept, Event) for kept in gc.get_objects())


@pytest.mark.postgresql
async def test_minutes_without_the_database_lose_nothing_and_hold_one_batch(
    away: tuple[PostgresqlServer, sa.Engine], queue: Queue
) -> None:
    server, engine = away
    await deliver(engine, queue, TOUCHES)
    gc.collect()
    before = _events_in_memory()  # those of other tests, which something may hold still
    [oldest] = await queue.read_events("test", "t", count=1, block_ms=0)
    clock = Patient(oldest.at_ms)
    recorder = Recorder(engine=engine, queue=queue, clock=clock, name="r", bounce=BounceSettings())
    assert recorder.lag_seconds == 0
    server.stop()
    stop = asyncio.Event()
    running = asyncio.create_task(recorder.run(stop))
    async with asyncio.timeout(30):
        await clock.waited.wait()
    assert recorder.lag_seconds >= 300
    assert recorder.recorded == 0
    held = _events_in_memory() - before - 1
    # Its batch, and the rest of the entry into which this test looked.
    assert held < 2 * BATCH
    assert (
        sum(group.pending + group.unread for group in (await queue.stats()).groups if group.name == "recorder")
        == TOUCHES
    )
    server.start()
    async with asyncio.timeout(30):
        while recorder.recorded < TOUCHES or recorder.lag_seconds:
            await asyncio.sleep(0.01)
    assert recorded(engine) == (TOUCHES, TOUCHES)
    stop.set()
    async with asyncio.timeout(10):
        await running


@pytest.mark.postgresql
async def test_a_stop_without_the_database_leaves_its_events_for_the_next_recorder(
    away: tuple[PostgresqlServer, sa.Engine], queue: Queue, redis_url: str
) -> None:
    server, engine = away
    await deliver(engine, queue, 10)
    [oldest] = await queue.read_events("test", "t", count=1, block_ms=0)
    clock = Patient(oldest.at_ms)
    stop = asyncio.Event()
    server.stop()
    running = asyncio.create_task(
        Recorder(engine=engine, queue=queue, clock=clock, name="r", bounce=BounceSettings()).run(stop)
    )
    while clock.waits < 2:
        await asyncio.sleep(0.01)
    stop.set()
    async with asyncio.timeout(10):
        await running
    server.start()
    async with asyncio.timeout(10):
        # As after a restart: unacknowledged events first.
        async with Queue.open(redis_url, queue.name) as restarted:
            await Recorder(engine=engine, queue=restarted, clock=clock, name="r", bounce=BounceSettings()).drain()
    assert recorded(engine) == (10, 10)


@pytest.mark.postgresql
async def test_a_database_that_dies_within_a_batch_has_it_once_in_the_end(
    away: tuple[PostgresqlServer, sa.Engine], queue: Queue
) -> None:
    server, engine = away
    await deliver(engine, queue, TOUCHES)
    [oldest] = await queue.read_events("test", "t", count=1, block_ms=0)
    recorder = Recorder(engine=engine, queue=queue, clock=Patient(oldest.at_ms), name="r", bounce=BounceSettings())
    stop = asyncio.Event()
    running = asyncio.create_task(recorder.run(stop))
    for _ in range(3):
        await asyncio.sleep(0.05)
        server.stop()
        server.start()
    async with asyncio.timeout(40):
        while recorder.recorded < TOUCHES:
            await asyncio.sleep(0.01)
    stop.set()
    await running
    assert recorded(engine) == (TOUCHES, TOUCHES)

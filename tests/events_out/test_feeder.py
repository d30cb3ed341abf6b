"""The feeder: each event of a type that an endpoint wants becomes one delivery with one job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from postroad.clock import SystemClock
from postroad.errors import UnavailableError
from postroad.event_types import DEFAULT_EVENTS, EventType
from postroad.events_out import feeder as module
from postroad.events_out.feeder import WebhookFeeder
from postroad.events_out.job import gate_of, job_id
from postroad.queue import JobState, Queue
from postroad.store.engine import read, write
from postroad.store.event_stream import EventHorizon
from postroad.store.ledger import TouchState
from postroad.store.webhook_out import (
    MAX_WAITING,
    OpenDelivery,
    WebhookDeliveryState,
    disable_endpoint,
    enable_endpoint,
    endpoint_states,
    open_deliveries,
    settle_deliveries,
)
from tests.events_out.events import add_events, add_sent_touch, ids_of
from tests.store.rows import NOW

BOTH = {"shop": frozenset(DEFAULT_EVENTS), "bounces": frozenset({EventType.BOUNCED})}
KEEP_MS = 86_400_000


def a_feeder(engine: sa.Engine, queue: Queue, **subscriptions: frozenset[EventType]) -> WebhookFeeder:
    return WebhookFeeder(
        engine=engine, queue=queue, clock=SystemClock(), subscriptions=subscriptions or BOTH, keep_ms=KEEP_MS
    )


def waiting(engine: sa.Engine, endpoint: str) -> list[OpenDelivery]:
    with read(engine) as connection:
        return open_deliveries(connection, endpoint, WebhookDeliveryState.WAITING)


async def feed(feeder: WebhookFeeder) -> None:
    while await feeder.feed_once():
        pass


async def test_an_endpoint_gets_the_events_from_its_first_sight_on(engine: sa.Engine, queue: Queue) -> None:
    with write(engine) as connection:
        touch = add_sent_touch(connection)
        add_events(connection, touch, 5)
    feeder = a_feeder(engine, queue)
    await feed(feeder)
    assert waiting(engine, "shop") == []
    with write(engine) as connection:
        add_events(connection, touch, 2)
        add_events(connection, touch, 1, state=TouchState.BOUNCED)
        add_events(connection, touch, 4, state=TouchState.DEFERRED)  # only an endpoint that names the type gets it
    await feed(feeder)
    assert [delivery.event_id for delivery in waiting(engine, "shop")] == ids_of(engine)[5:8]
    assert [delivery.event_id for delivery in waiting(engine, "bounces")] == ids_of(engine)[7:8]
    ids = [job_id(delivery) for name in BOTH for delivery in waiting(engine, name)]
    assert await queue.states(ids) == [JobState.QUEUED] * 4


async def test_two_feeders_insert_each_delivery_once(engine: sa.Engine, queue: Queue) -> None:
    feeders = [a_feeder(engine, queue) for _ in range(2)]
    await feed(feeders[0])
    with write(engine) as connection:
        touch = add_sent_touch(connection)
        for _ in range(30):
            add_events(connection, touch, 10)
    await asyncio.gather(*(feed(feeder) for feeder in feeders))
    await feed(feeders[0])
    assert [delivery.event_id for delivery in waiting(engine, "shop")] == ids_of(engine)
    assert (await queue.stats()).queued == 300


async def test_the_backlog_of_an_endpoint_that_is_down_waits_in_the_ledger(engine: sa.Engine, queue: Queue) -> None:
    feeder = a_feeder(engine, queue)
    await feed(feeder)
    with write(engine) as connection:
        touch = add_sent_touch(connection)
        add_events(connection, touch, MAX_WAITING + 500)
        add_events(connection, touch, 3, state=TouchState.BOUNCED)
    await feed(feeder)
    assert len(waiting(engine, "shop")) == MAX_WAITING
    assert len(waiting(engine, "bounces")) == 3  # The other endpoint is not delayed.
    assert (await queue.stats()).queued == MAX_WAITING + 3
    done = [delivery.id for delivery in waiting(engine, "shop")[:700]]
    with write(engine) as connection:
        settle_deliveries(connection, done, WebhookDeliveryState.DELIVERED, NOW)
    await feed(feeder)
    assert len(waiting(engine, "shop")) == 803
    with read(engine) as connection:
        assert endpoint_states(connection)["shop"].cursor == ids_of(engine)[-1]


async def test_a_death_between_the_ledger_and_the_queue_loses_nothing(
    engine: sa.Engine, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = frozenset(DEFAULT_EVENTS)
    feeder = a_feeder(engine, queue, shop=shop)
    await feed(feeder)
    with write(engine) as connection:
        touch = add_sent_touch(connection)
        add_events(connection, touch, 20)

    async def dies(*_: object) -> None:
        raise UnavailableError("the process dies here")

    with monkeypatch.context() as patched:
        patched.setattr(queue, "enqueue", dies)
        with pytest.raises(UnavailableError):
            await feed(feeder)
    assert (await queue.stats()).queued == 0
    assert len(waiting(engine, "shop")) == 20
    successor = a_feeder(engine, queue, shop=shop)
    assert await successor.resync() == 20
    assert await successor.resync() == 0
    await feed(successor)
    assert (await queue.stats()).queued == 20
    assert [delivery.event_id for delivery in waiting(engine, "shop")] == ids_of(engine)


async def test_deliveries_whose_job_ended_otherwise_are_settled(engine: sa.Engine, queue: Queue) -> None:
    feeder = a_feeder(engine, queue, shop=frozenset(DEFAULT_EVENTS))
    await feed(feeder)
    with write(engine) as connection:
        touch = add_sent_touch(connection)
        add_events(connection, touch, 3)
    await feed(feeder)
    first, *others = waiting(engine, "shop")
    assert await queue.cancel([job_id(first)], "by hand") == 1
    await feeder.resync()
    assert waiting(engine, "shop") == others


async def test_a_disabled_endpoint_keeps_its_place(engine: sa.Engine, queue: Queue) -> None:
    feeder = a_feeder(engine, queue)
    await feed(feeder)
    change: list[tuple[Callable[..., bool], tuple[object, ...]]] = [
        (disable_endpoint, ("shop", "gone", NOW)),
        (enable_endpoint, ("shop",)),
    ]
    for number, (apply, arguments) in enumerate(change, start=1):
        with write(engine) as connection:
            assert apply(connection, *arguments)
            assert not apply(connection, *arguments)
            add_events(connection, add_sent_touch(connection), 2)
        await feeder.resync()
        await feed(feeder)
        paused = (await queue.stats()).paused_groups
        if number == 1:
            assert waiting(engine, "shop") == []
            assert paused == [gate_of("shop")]
        else:
            assert [delivery.event_id for delivery in waiting(engine, "shop")] == ids_of(engine)
            assert paused == []


async def test_the_loop_survives_an_outage(engine: sa.Engine, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "POLL_S", 0.01)
    feeder = a_feeder(engine, queue)
    await feed(feeder)
    failures = iter([True] * 3)
    find = EventHorizon.find

    def sometimes(horizon: EventHorizon, given: sa.Engine) -> int:
        if next(failures, False):
            raise UnavailableError("the database does not answer")
        return find(horizon, given)

    monkeypatch.setattr(EventHorizon, "find", sometimes)
    with write(engine) as connection:
        add_events(connection, add_sent_touch(connection), 5)
    running = asyncio.create_task(feeder.run_forever())
    try:
        async with asyncio.timeout(20):
            while (await queue.stats()).queued < 5:
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [delivery.event_id for delivery in waiting(engine, "shop")] == ids_of(engine)

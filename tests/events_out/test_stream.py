"""The stream of events: each row once, in an order that is final, whatever commits when."""

from __future__ import annotations

import random
import threading
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.event_types import EventType
from postroad.store.engine import read, write, write_connection
from postroad.store.event_stream import (
    EventHorizon,
    event_before,
    event_type,
    newest_event,
    published_events,
    published_pages,
    stream_page,
)
from postroad.store.ledger import TouchState, record_complaint, record_reply, record_unsubscribe
from postroad.store.retention import Before, delete_old
from postroad.store.touches.results import insert_events
from tests.events_out.events import AT_MS, add_events, add_sent_touch, ids_of, result
from tests.store.rows import NOW


def test_every_state_of_a_touch_has_a_type_or_is_not_published() -> None:
    types = {state: event_type(state, None) for state in TouchState}
    assert {state for state, type_ in types.items() if type_ is None} == {
        TouchState.WITHHELD,
        TouchState.AWAITING,
        TouchState.PLANNED,
        TouchState.QUEUED,
        TouchState.SENDING,
    }
    by_cause = {event_type(TouchState.ACCEPTED, cause) for cause in ("unsubscribe", "reply", "complaint")}
    assert {*types.values(), *by_cause} - {None} == set(EventType)


def test_acts_of_recipients_are_events_of_their_own_types(engine: sa.Engine) -> None:
    with write(engine) as connection:
        touch = add_sent_touch(connection, "ada@example.com")
        add_events(connection, touch, 1)
        record_unsubscribe(connection, touch, "by link", NOW)
        record_reply(connection, touch, "d1", NOW)
        for _ in range(2):
            record_complaint(connection, touch, "d2", NOW)
    with read(engine) as connection:
        events = published_events(connection, ids_of(engine))
    assert [event.type for event in events.values()] == [
        EventType.ACCEPTED,
        EventType.UNSUBSCRIBED,
        EventType.REPLIED,
        EventType.COMPLAINED,
    ]
    first = next(iter(events.values()))
    assert (first.recipient, first.sender, first.touch) == ("ada@example.com", "news@example.com", touch)
    assert first.at == NOW
    assert len({event.message_id for event in events.values()}) == 4


def test_the_horizon_does_not_pass_an_open_transaction(postgresql_engine: sa.Engine) -> None:
    engine, horizon = postgresql_engine, EventHorizon()
    with write(engine) as connection:
        touch = add_sent_touch(connection)
        add_events(connection, touch, 1)
    first = horizon.find(engine)
    assert first == newest(engine)
    slow = write_connection(engine)
    try:
        with slow.begin():
            insert_events(slow, [result(touch)])  # It takes an id, and commits last.
            with write(engine) as connection:
                add_events(connection, touch, 3)
            assert newest(engine) == first + 4
            for _ in range(3):
                assert horizon.find(engine) == first
                assert horizon.is_waiting
            with read(engine) as connection:
                assert stream_page(connection, first, horizon.find(engine), 10) == []
    finally:
        slow.close()
    end = horizon.find(engine)
    assert end == first + 4
    with read(engine) as connection:
        assert [row.id for row in stream_page(connection, first, end, 10)] == [first + n for n in range(1, 5)]


def test_a_rolled_back_transaction_leaves_a_gap_that_holds_nothing(postgresql_engine: sa.Engine) -> None:
    engine, horizon = postgresql_engine, EventHorizon()
    with write(engine) as connection:
        touch = add_sent_touch(connection)
    slow = write_connection(engine)
    transaction = slow.begin()
    insert_events(slow, [result(touch)])
    with write(engine) as connection:
        add_events(connection, touch, 1)
    assert horizon.find(engine) == 0
    transaction.rollback()
    slow.close()
    assert horizon.find(engine) == newest(engine) == 2


@pytest.mark.parametrize("seed", range(3))
def test_concurrent_writers_lose_no_event(engine: sa.Engine, seed: int) -> None:
    """A reader follows while writers commit in any order, some after a delay, some never."""
    with write(engine) as connection:
        touch = add_sent_touch(connection)
    stop = threading.Event()
    rng = random.Random(seed)
    plans = [[(rng.randint(1, 4), rng.random() < 0.2, rng.random() * 0.01) for _ in range(25)] for _ in range(4)]

    def writing(plan: list[tuple[int, bool, float]]) -> None:
        for number, rolled_back, delay_s in plan:
            connection = write_connection(engine)
            transaction = connection.begin()
            add_events(connection, touch, number)
            time.sleep(delay_s)
            transaction.rollback() if rolled_back else transaction.commit()
            connection.close()

    seen: list[int] = []
    horizon = EventHorizon()

    def step() -> None:
        end = horizon.find(engine)
        after = seen[-1] if seen else 0
        with read(engine) as connection:
            seen.extend(row.id for row in stream_page(connection, after, end, 7))

    def reading() -> None:
        while not stop.is_set():
            step()

    reader = threading.Thread(target=reading)
    writers = [threading.Thread(target=writing, args=(plan,)) for plan in plans]
    reader.start()
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    for _ in range(1000):
        if seen and seen[-1] == newest(engine):
            break
        step()
    assert seen == ids_of(engine)


def test_pages_contain_each_event_once(engine: sa.Engine) -> None:
    with write(engine) as connection:
        touch = add_sent_touch(connection)
        add_events(connection, touch, 25)
        add_events(connection, touch, 2, state=TouchState.QUEUED)  # not published
        add_events(connection, touch, 3, state=TouchState.DEFERRED, next_ms=AT_MS + 1000)
    pages = list(published_pages(engine, 0, newest(engine), page=7))
    events = [event for _, page in pages for event in page]
    assert len(events) == 28
    assert [last for last, _ in pages][-1] == newest(engine)
    assert events[-1].next_at == NOW + timedelta(seconds=1)
    assert all(len(page) <= 7 for _, page in pages)


def test_a_time_is_found_though_events_are_recorded_late(engine: sa.Engine) -> None:
    with write(engine) as connection:
        touch = add_sent_touch(connection)
        for hours in (0, 5, 1, 6, 2):  # the third and the last were recorded late
            add_events(connection, touch, 1, at_ms=AT_MS + hours * 3_600_000)
    ids = ids_of(engine)
    with read(engine) as connection:
        assert event_before(connection, NOW - timedelta(days=1)) == ids[0] - 1
        assert event_before(connection, NOW + timedelta(hours=2)) == ids[1] - 1
        assert event_before(connection, NOW + timedelta(hours=6)) == ids[3] - 1
        assert event_before(connection, NOW + timedelta(days=1)) == newest_event(connection)


def test_a_cursor_follows_the_ids_that_sqlite_uses_again(engine: sa.Engine) -> None:
    with write(engine) as connection:
        touch = add_sent_touch(connection)
        add_events(connection, touch, 3)
        newest_id = newest_event(connection)
        connection.execute(
            sa.text("INSERT INTO webhook_endpoint (name, cursor, round, created_at) VALUES ('shop', :id, 0, :now)"),
            {"id": newest_id, "now": NOW.replace(tzinfo=None)},
        )
    later = NOW + timedelta(days=500)
    deleted = delete_old(engine, Before(touches=NOW, events=later, bounce_effects=NOW), later)
    assert deleted.events == 3
    with write(engine) as connection:
        add_events(connection, touch, 1)
        cursor = connection.execute(sa.text("SELECT cursor FROM webhook_endpoint")).scalar_one()
        assert cursor < newest_event(connection)


def newest(engine: sa.Engine) -> int:
    with read(engine) as connection:
        return newest_event(connection)

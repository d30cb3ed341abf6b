"""The counts of touches follow whatever moves a touch, and reading them costs the same in any ledger."""

from __future__ import annotations

import time

import sqlalchemy as sa

from postroad.store.engine import open_engine, read, write
from postroad.store.ledger import TouchState
from postroad.store.touch_count import count_in_progress, counts_by_step, fold_counts
from tests.store.effort import effort_of
from tests.store.large import add_large_campaign
from tests.store.rows import add_campaign, add_touch

SMALL, LARGE = 2_000, 20_000


def test_counts_follow_a_plain_statement(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, [step] = add_campaign(connection)
        touches = [add_touch(connection, campaign, step, TouchState.QUEUED) for _ in range(5)]
    with write(engine) as connection:
        move = sa.text("UPDATE touch SET state = 'accepted' WHERE id <= :id")
        connection.execute(move, {"id": touches[1]})
        connection.execute(sa.text("UPDATE touch SET claim = 7"))
    with read(engine) as connection:
        counts = counts_by_step(connection, campaign)
        in_progress = count_in_progress(connection, seeds=False)
    assert counts == {step: {TouchState.QUEUED: 3, TouchState.ACCEPTED: 2}}
    assert in_progress == 3


def test_counts_of_a_rolled_back_transaction_are_gone(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, [step] = add_campaign(connection)
    with engine.connect() as connection, connection.begin() as transaction:
        add_touch(connection, campaign, step, TouchState.QUEUED)
        transaction.rollback()
    with read(engine) as connection:
        assert counts_by_step(connection, campaign) == {}


def test_counts_outlive_their_touches(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, [step] = add_campaign(connection)
        add_touch(connection, campaign, step, TouchState.ACCEPTED)
        connection.execute(sa.text("DELETE FROM touch"))
    with read(engine) as connection:
        assert counts_by_step(connection, campaign) == {step: {TouchState.ACCEPTED: 1}}


def test_two_connections_count_without_waiting_and_their_slots_are_folded(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, [step] = add_campaign(connection)
        for _ in range(2):
            add_touch(connection, campaign, step, TouchState.QUEUED)
    with write(engine) as first:
        first.execute(sa.text("UPDATE touch SET state = 'sending' WHERE id = (SELECT min(id) FROM touch)"))
        if engine.dialect.name == "postgresql":  # SQLite has one writer.
            with write(engine) as second:
                second.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
                second.execute(sa.text("UPDATE touch SET state = 'sending' WHERE id = (SELECT max(id) FROM touch)"))
    with read(engine) as connection:
        before = counts_by_step(connection, campaign)
    engine.dispose()
    fresh = open_engine(engine.url.render_as_string(hide_password=False))
    folded = 0
    deadline_s = time.monotonic() + 30
    while not folded and engine.dialect.name == "postgresql":  # A server process ends a moment after its connection.
        assert time.monotonic() < deadline_s
        with write(fresh) as connection:
            folded += fold_counts(connection)
    with write(fresh) as connection:
        assert counts_by_step(connection, campaign) == before
        assert fold_counts(connection) == 0
    fresh.dispose()


def test_counts_cost_the_same_in_a_larger_campaign(engine: sa.Engine) -> None:
    efforts = []
    for number in (SMALL, LARGE):
        with write(engine) as connection:
            campaign, [step, _] = add_large_campaign(connection, number, TouchState.ACCEPTED)
        with read(engine) as connection, effort_of(connection) as effort:
            assert counts_by_step(connection, campaign) == {step: {TouchState.ACCEPTED: number}}
        efforts.append(effort.count)
    assert efforts[1] <= max(1.3 * efforts[0], efforts[0] + 100)

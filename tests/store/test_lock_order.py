"""Transactions that change the same touches at once lock them in one order on PostgreSQL, and so never deadlock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Barrier, Thread

import pytest
import sqlalchemy as sa

from postroad.delivery.recorder import record
from postroad.queue import Event
from postroad.settings import BounceSettings
from postroad.settings.types import RateSetting
from postroad.store.engine import read, write
from postroad.store.frequency import FrequencyRule
from postroad.store.ledger import TouchState
from postroad.store.touches.sending import Claim, admit
from tests.store.outcomes import add_sent_touches, outcome_event
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

S = TouchState
ROUNDS = 12
MANY = 400

Work = Callable[[sa.Connection], object]


def run_at_once(engine: sa.Engine, works: Sequence[Work]) -> list[Exception]:
    """Run each in a transaction of its own, all at once. Return what they raised."""
    failures: list[Exception] = []
    begin = Barrier(len(works))

    def run(work: Work) -> None:
        try:
            with write(engine) as connection:
                connection.execute(sa.text("SELECT 1"))
                begin.wait()
                work(connection)
        except Exception as error:
            failures.append(error)

    threads = [Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


@pytest.mark.postgresql
def test_capped_admissions_in_opposite_orders_do_not_deadlock(postgresql_engine: sa.Engine) -> None:
    """Four campaigns wait for the same recipients, and each batch has two of them, in an order of its own."""
    rule = FrequencyRule(caps={"normal": RateSetting.parse("1/7d")}, now=NOW)
    with write(postgresql_engine) as connection:
        recipients = {f"r{n}@example.com": add_recipient(connection, f"r{n}@example.com") for n in range(MANY)}
        campaigns = [add_campaign(connection) for _ in range(4)]
        claims = [
            [
                Claim(add_touch(connection, campaign, step, S.QUEUED, recipient_id=recipient), 7, address=address)
                for address, recipient in recipients.items()
            ]
            for campaign, (step,) in campaigns
        ]
    batches = [claims[0] + claims[1], (claims[0] + claims[1])[::-1], claims[2][::-1] + claims[3]]
    for _ in range(ROUNDS):
        works = [lambda connection, batch=batch: admit(connection, batch, rule) for batch in batches]
        assert run_at_once(postgresql_engine, works) == []
        with write(postgresql_engine) as connection:
            sent = sa.text("SELECT recipient_id, count(*) FROM touch WHERE state = 'sending' GROUP BY recipient_id")
            assert dict(connection.execute(sent).all()) == dict.fromkeys(recipients.values(), 1)  # type: ignore[arg-type]
            connection.execute(sa.text("UPDATE touch SET state = 'queued', claim = 0"))


def outcomes(touches: Sequence[int], token: int) -> list[Event]:
    """Return events of several kinds, two for every other touch."""
    states = (S.ACCEPTED, S.BOUNCED, S.DEFERRED, S.DEAD)
    first = [outcome_event(touch, states[n % 4], NOW, token=token) for n, touch in enumerate(touches)]
    second = [outcome_event(touch, S.ACCEPTED, NOW, token=token + 1) for touch in touches[::2]]
    return first + second


@pytest.mark.postgresql
def test_recorders_of_the_same_events_do_not_deadlock(postgresql_engine: sa.Engine) -> None:
    with write(postgresql_engine) as connection:
        touches = add_sent_touches(connection, "one.example", MANY)
    for n in range(ROUNDS):
        events = outcomes(touches, token=10 * n + 1)
        with write(postgresql_engine) as connection:
            connection.execute(sa.text("UPDATE touch SET state = 'sending', claim = :claim"), {"claim": 10 * n + 1})
        works = [
            lambda connection, batch=batch: record(connection, batch, NOW, BounceSettings())
            for batch in (events, events[::-1], events[MANY // 2 :] + events[: MANY // 2])
        ]
        assert run_at_once(postgresql_engine, works) == []
        with read(postgresql_engine) as connection:
            count = sa.text("SELECT count(*) FROM delivery_event")
            assert connection.execute(count).scalar_one() == (n + 1) * len(events)


@pytest.mark.postgresql
def test_recorders_of_other_events_of_the_same_touches_do_not_deadlock(postgresql_engine: sa.Engine) -> None:
    """Each state is moved by a statement of its own, so the order of the states must not be the order of locking."""
    with write(postgresql_engine) as connection:
        touches = add_sent_touches(connection, "one.example", MANY)
    half = MANY // 2
    for n in range(ROUNDS):
        token = 10 * n + 1
        with write(postgresql_engine) as connection:
            connection.execute(sa.text("UPDATE touch SET state = 'sending', claim = :claim"), {"claim": token})
        works = []
        for first, second in ((touches[:half], touches[half:]), (touches[half:], touches[:half])):
            batch = [outcome_event(touch, S.ACCEPTED, NOW, token=token) for touch in first]
            batch += [outcome_event(touch, S.DEAD, NOW, token=token) for touch in second]
            works.append(lambda connection, batch=batch: record(connection, batch, NOW, BounceSettings()))
        assert run_at_once(postgresql_engine, works) == []
        with read(postgresql_engine) as connection:
            states = set(connection.execute(sa.text("SELECT state FROM touch")).scalars())
        assert states == {"accepted"}  # What was accepted is not dead, in whichever order it was recorded.

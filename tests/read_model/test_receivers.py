"""Receivers: each number has a list that sums to it, and the replies of a number are grouped."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from postroad.errors import StateError, UsageError
from postroad.read_model.receivers import (
    GROUPED,
    OutcomesOf,
    TrafficWindow,
    group_events,
    receiver_events,
    receivers,
    reply_groups,
    window_start,
)
from postroad.store.bounce import BounceMail, finish_mail, save_mail
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.outcome import DeliveryOutcome
from postroad.store.outcome_event import insert_outcomes
from postroad.store.traffic import fold_traffic
from postroad.store.types import sql_time
from tests.read_model.world import all_rows
from tests.store.effort import effort_of
from tests.store.large import series
from tests.store.outcomes import add_provider, add_sent_touches, record_outcome
from tests.store.rows import NOW

S = TouchState
STATES = (S.ACCEPTED, S.DEFERRED, S.BOUNCED, S.DEAD, S.UNKNOWN)


def complain(connection: sa.Connection, touch_id: int, at: datetime) -> None:
    mail = BounceMail(digest=f"complaint-{touch_id}", received_at=at, source="test", raw=b"x")
    assert save_mail(connection, mail)
    mail.processed_at, mail.kind, mail.verdict, mail.rule = at, "feedback", "complaint", "feedback report"
    mail.touch_id, mail.matched_by = touch_id, "token"
    finish_mail(connection, mail)


def add_outcomes(connection: sa.Connection) -> list[str]:
    """Add outcomes of two senders at two providers, of all ages. Returns the names of the senders."""
    add_provider(connection, "one.example", "google")
    for domain in ("one.example", "two.example"):
        for n, touch in enumerate(add_sent_touches(connection, domain, 35)):
            at = NOW - timedelta(minutes=13 * (n + 1) * (1 + n // 7 * 8))
            record_outcome(connection, touch, STATES[n % 5], at, reply=f"reply {n % 3}", cause=f"cause {n % 2}")
            if n % 5 == 0:
                complain(connection, touch, at + timedelta(minutes=1))
    return list(connection.execute(sa.text("SELECT name FROM sender ORDER BY id")).scalars())


@pytest.mark.parametrize("window", TrafficWindow)
@pytest.mark.parametrize("folded", [False, True])
def test_each_number_has_a_list_that_sums_to_it(engine: sa.Engine, window: TrafficWindow, folded: bool) -> None:
    with write(engine) as connection:
        names = add_outcomes(connection)
    if folded:
        assert fold_traffic(engine, NOW, NOW - timedelta(days=1_000)) > 0
    with read(engine) as connection:
        found = receivers(connection, NOW, window)
        assert found.since <= NOW - window.length
        assert [(row.sender, row.provider) for row in found.rows] == [(names[0], "google"), (names[1], "other")]
        for row in found.rows:
            for outcome in DeliveryOutcome:
                of = OutcomesOf(sender=row.sender, provider=row.provider, outcome=outcome, since=found.since)
                listed = all_rows(lambda after, of=of: receiver_events(connection, of, NOW, after=after, limit=3))  # type: ignore[misc]
                assert len(listed) == getattr(row, outcome), (row, outcome)
                assert [one.at for one in listed] == sorted((one.at for one in listed), reverse=True)
                assert {one.outcome for one in listed} <= {outcome.value}
    assert sum(row.accepted for row in found.rows) >= 2
    alone = [row for row in found.rows if row.sender == names[0]]
    with read(engine) as connection:
        assert receivers(connection, NOW, window, sender=names[0]).rows == alone


def test_a_receiver_without_mail_has_no_row_and_an_empty_list(engine: sa.Engine) -> None:
    with write(engine) as connection:
        names = add_outcomes(connection)
        of = OutcomesOf(sender=names[0], provider="yahoo", outcome=DeliveryOutcome.ACCEPTED, since=NOW)
        assert receiver_events(connection, of, NOW).rows == []
        assert reply_groups(connection, of, NOW).groups == []
        with pytest.raises(StateError, match="there is no sender of a campaign named 'nobody'"):
            receivers(connection, NOW, TrafficWindow.DAY, sender="nobody")
        with pytest.raises(UsageError, match="is not one of this list"):
            receiver_events(connection, of, NOW, after="nonsense")


def test_replies_are_grouped_without_what_differs_between_messages(engine: sa.Engine) -> None:
    since = window_start(TrafficWindow.DAY, NOW)
    with write(engine) as connection:
        touches = add_sent_touches(connection, "one.example", 9)
        for n, touch in enumerate(touches):
            greylisted = n % 3 > 0
            record_outcome(
                connection,
                touch,
                S.DEFERRED,
                NOW - timedelta(minutes=n),
                reply=f"4.7.1 <r{n}@one.example> greylisted, try in {n} s" if greylisted else "4.3.2 too busy",
                reply_code=450 if greylisted else 421,
                enhanced_code="4.7.1" if greylisted else "4.3.2",
                cause="greylisted" if greylisted else "busy",
            )
    with read(engine) as connection:
        [sender] = connection.execute(sa.text("SELECT name FROM sender")).scalars()
        of = OutcomesOf(sender=sender, provider="other", outcome=DeliveryOutcome.DEFERRED, since=since)
        found = reply_groups(connection, of, NOW)
        assert (found.events, found.read) == (9, 9)
        assert [
            (group.rule, group.reply_code, group.events, group.recipients, group.text) for group in found.groups
        ] == [
            ("greylisted", 450, 6, 6, "greylisted, try in s"),
            ("busy", 421, 3, 3, "too busy"),
        ]
        assert found.groups[0].newest.touch_id == touches[1]
        for group in found.groups:
            listed = all_rows(lambda after, key=group.key: group_events(connection, of, key, NOW, after=after, limit=2))  # type: ignore[misc]
            assert len(listed) == group.events
            assert {one.cause for one in listed} == {group.rule}


def test_replies_of_many_events_are_those_of_the_newest(engine: sa.Engine) -> None:
    number = GROUPED + 200
    with write(engine) as connection:
        [touch] = add_sent_touches(connection, "one.example", 1)
        add_events(connection, touch, number, minutes=60)
        [sender] = connection.execute(sa.text("SELECT name FROM sender")).scalars()
        since = window_start(TrafficWindow.WEEK, NOW)
        of = OutcomesOf(sender=sender, provider="other", outcome=DeliveryOutcome.DEFERRED, since=since)
        found = reply_groups(connection, of, NOW)
    assert (found.events, found.read) == (number, GROUPED)
    assert sum(group.events for group in found.groups) == GROUPED


def add_events(connection: sa.Connection, touch: int, number: int, *, minutes: int, name: str = "e") -> None:
    """Add deferrals of a touch to the other providers, spread over the last minutes."""
    at = sql_time(NOW, connection.dialect.name)
    ago = f"datetime(:now, '-' || (n % {minutes}) || ' minutes') || '.000000'"
    if connection.dialect.name == "postgresql":
        ago = f"CAST(:now AS TIMESTAMPTZ) - (n % {minutes}) * INTERVAL '1 minute'"
    columns = {
        "uid": f"'{name}' || n",
        "touch_id": "touch.id",
        "state": "'deferred'",
        "at": ago,
        "attempt": "1",
        "reply": "'450 later'",
    }
    insert_outcomes(connection, columns, {"now": at}, touch=str(touch), rows=series(connection, 1, number))


def test_reads_cost_the_same_among_more_events(engine: sa.Engine) -> None:
    efforts = []
    with write(engine) as connection:
        [touch] = add_sent_touches(connection, "one.example", 1)
        [sender] = connection.execute(sa.text("SELECT name FROM sender")).scalars()
    of = OutcomesOf(
        sender=sender, provider="other", outcome=DeliveryOutcome.DEFERRED, since=window_start(TrafficWindow.WEEK, NOW)
    )
    for number in (4_000, 40_000):
        with write(engine) as connection:
            add_events(connection, touch, number, minutes=300, name=f"e{number}-")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
        with read(engine) as connection, effort_of(connection) as effort:
            receivers(connection, NOW, TrafficWindow.DAY)
            page = receiver_events(connection, of, NOW)
            receiver_events(connection, of, NOW, after=page.next)
            reply_groups(connection, of, NOW)
        efforts.append(effort.count)
    assert efforts[1] <= max(1.3 * efforts[0], efforts[0] + 150)

"""The traffic equals a count of the events, for every writer, after repetitions, and before and after a fold."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from postroad.bounce.apply import EffectSource, apply_action
from postroad.bounce.classify import BounceClass, ClassifiedRecipient
from postroad.bounce.policy import BounceAction
from postroad.bounce.report import RecipientStatus
from postroad.delivery.recorder import record
from postroad.queue import Event
from postroad.settings import BounceSettings, UnsubscribeScope
from postroad.store import migrate
from postroad.store.bounce import BounceMail, finish_mail, lock_touch, save_mail
from postroad.store.engine import open_engine, read, write
from postroad.store.ledger import TouchState, record_reply, record_unsubscribe
from postroad.store.touches.results import resolve_unknown
from postroad.store.touches.sending import mark_unknown
from postroad.store.traffic import (
    MinuteTraffic,
    ReceiverCount,
    bucket_start,
    fold_traffic,
    traffic_by_minute,
    traffic_by_receiver,
)
from postroad.store.types import UtcDateTime
from tests.postgresql import assert_counts_agree
from tests.store.effort import effort_of
from tests.store.outcomes import add_provider, add_sent_touches, outcome_event, record_outcome
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

S = TouchState
LONG_AGO = NOW - timedelta(days=2_000)
WINDOWS = (timedelta(hours=1), timedelta(hours=24), timedelta(days=7), timedelta(days=30))


def counted(connection: sa.Connection, since: datetime) -> Counter[tuple[int, str, str]]:
    """Count the events themselves."""
    statement = sa.text(
        "SELECT sender_id, provider, state, count(*) AS n FROM delivery_event "
        "WHERE sender_id IS NOT NULL AND at >= :since GROUP BY sender_id, provider, state"
    ).bindparams(sa.bindparam("since", type_=UtcDateTime()))
    return Counter({(row[0], row[1], row[2]): row.n for row in connection.execute(statement, {"since": since})})


def kept(connection: sa.Connection, since: datetime) -> Counter[tuple[int, str, str]]:
    rows = traffic_by_receiver(connection, since)
    return Counter({(row.sender_id, row.provider, row.outcome): row.events for row in rows})


def assert_equal_to_events(engine: sa.Engine) -> None:
    with read(engine) as connection:
        for window in WINDOWS:
            since = bucket_start(NOW - window, NOW)
            assert kept(connection, since) == counted(connection, since), window
        since = NOW - timedelta(hours=24)
        minutes = traffic_by_minute(connection, since)
        accepted = sum(
            n for (_, _, state), n in counted(connection, since.replace(second=0)).items() if state == S.ACCEPTED
        )
    assert sum(minute.accepted for minute in minutes) == accepted


@pytest.mark.parametrize("seed", range(3))
def test_traffic_equals_the_events_under_concurrent_recorders_and_replays(engine: sa.Engine, seed: int) -> None:
    chance = random.Random(seed)
    with write(engine) as connection:
        add_provider(connection, "one.example", "google")
        touches = [t for domain in ("one.example", "two.example") for t in add_sent_touches(connection, domain, 40)]
    states = (S.ACCEPTED, S.ACCEPTED, S.DEFERRED, S.BOUNCED, S.DEAD, S.UNKNOWN)

    def age() -> timedelta:
        return timedelta(seconds=chance.choice((600, 20_000, 200_000, 1_500_000)) * chance.random())

    events = [
        outcome_event(touch, chance.choice(states), NOW - age(), token=token) for touch in touches for token in (1, 2)
    ]
    events += [outcome_event(touch, S.ACCEPTED, NOW - age(), token=-3) for touch in touches[::7]]
    batches = [chance.sample(events, 60) for _ in range(12)] + [events[::2], events[1::2]]

    def work(batch: list[Event]) -> None:
        with write(engine) as connection:
            record(connection, batch, NOW, BounceSettings())

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, batch) for batch in batches]:
            future.result()
        assert_equal_to_events(engine)
        # Late events arrive while the fold runs.
        late = [outcome_event(touch, S.DEFERRED, NOW - age(), token=9) for touch in touches]
        folds = [pool.submit(fold_traffic, engine, NOW, LONG_AGO) for _ in range(3)]
        works = [pool.submit(work, late[part::4]) for part in range(4)]
        for fold in folds:
            assert fold.result() >= 0
        for future in works:
            future.result()
    assert_equal_to_events(engine)
    assert fold_traffic(engine, NOW, LONG_AGO) >= 0
    assert_equal_to_events(engine)
    assert fold_traffic(engine, NOW, LONG_AGO) == 0


def test_every_way_to_an_outcome_counts_it_once(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        add_provider(connection, "one.example", "google")

        def touch(state: S) -> int:
            address = f"{state}-{len(made)}@one.example"
            made.append(add_touch(connection, campaign, step, state, recipient_id=add_recipient(connection, address)))
            return made[-1]

        made: list[int] = []
        for _ in range(2):  # The same event twice.
            record_outcome(connection, touch(S.SENDING) if not made else made[0], S.ACCEPTED, NOW)
        lost = touch(S.SENDING)
        assert mark_unknown(connection, [lost], NOW) == 1
        assert mark_unknown(connection, [lost], NOW) == 0
        assert resolve_unknown(connection, lost, S.DEAD, by="ada", now=NOW) is not None
        bounced = lock_touch(connection, touch(S.ACCEPTED))
        assert bounced is not None
        judgement = ClassifiedRecipient(
            reported=RecipientStatus(address=None), verdict=BounceClass.HARD, rule="test: no such user"
        )
        for _ in range(2):
            apply_action(
                connection,
                bounced,
                BounceAction(touch=S.BOUNCED),
                judgement,
                EffectSource("digest", "test", NOW),
                UnsubscribeScope.EVERYWHERE,
            )
        # Notes about a touch are no outcomes.
        record_unsubscribe(connection, made[0], "one click", NOW)
        record_reply(connection, made[0], "digest", NOW)
        complain(connection, "complaint", made[0])
    with read(engine) as connection:
        sender_id = int(connection.execute(sa.text("SELECT max(id) FROM sender")).scalar_one())
        found = traffic_by_receiver(connection, NOW)
        minutes = traffic_by_minute(connection, NOW)
    expected = {S.ACCEPTED: 1, S.UNKNOWN: 1, S.DEAD: 1, S.BOUNCED: 1, "complained": 1}
    assert sorted(found) == sorted(ReceiverCount(sender_id, "google", state, n) for state, n in expected.items())
    assert minutes == [MinuteTraffic(NOW, accepted=1, deferred=0, bounced=1)]


def complain(connection: sa.Connection, digest: str, touch_id: int, at: datetime = NOW) -> None:
    """Store a complaint about a touch, and process it twice."""
    assert save_mail(connection, BounceMail(digest=digest, received_at=at, source="test", raw=b"x"))
    mail = BounceMail(
        digest=digest, received_at=at, source="test", processed_at=at, kind="feedback", verdict="complaint",
        rule="feedback report", touch_id=touch_id, matched_by="token",
    )  # fmt: skip
    finish_mail(connection, mail)
    finish_mail(connection, mail)


def test_an_outcome_of_a_touch_of_another_ledger_is_not_counted(engine: sa.Engine) -> None:
    with write(engine) as connection:
        record_outcome(connection, 987_654_321, S.ACCEPTED, NOW)
        assert traffic_by_receiver(connection, NOW) == []


def test_a_rolled_back_outcome_is_not_counted(engine: sa.Engine) -> None:
    with write(engine) as connection:
        [touch] = add_sent_touches(connection, "one.example", 1)
    with engine.connect() as connection, connection.begin() as transaction:
        record_outcome(connection, touch, S.ACCEPTED, NOW)
        assert len(traffic_by_receiver(connection, NOW)) == 1
        transaction.rollback()
    with read(engine) as connection:
        assert traffic_by_receiver(connection, NOW) == []


def test_a_fold_deletes_days_that_are_too_old_and_works_in_steps(engine: sa.Engine) -> None:
    with write(engine) as connection:
        touches = add_sent_touches(connection, "one.example", 40)
        for n, touch in enumerate(touches):
            record_outcome(connection, touch, S.ACCEPTED, NOW - timedelta(days=20 * n))
    assert fold_traffic(engine, NOW, NOW - timedelta(days=401)) > 0
    assert grains(engine) == {"minute": 1, "total": 1, "day": 20}
    with read(engine) as connection:
        assert sum(row.events for row in traffic_by_receiver(connection, LONG_AGO)) == 21
    with write(engine) as connection:
        connection.execute(sa.text("DELETE FROM delivery_event"))  # Their retention is shorter than that of the days.


def grains(engine: sa.Engine) -> dict[str, int]:
    with read(engine) as connection:
        rows = connection.execute(sa.text("SELECT grain, count(*) AS n FROM traffic GROUP BY grain"))
        return {row.grain: row.n for row in rows}


def test_reading_the_traffic_costs_the_same_among_more_events(engine: sa.Engine) -> None:
    efforts = []
    for rounds in (1, 10):
        with write(engine) as connection:
            [touch] = add_sent_touches(connection, "one.example", 1)
            for n in range(rounds * 50):
                at = NOW - timedelta(minutes=n % 50)
                record(connection, [outcome_event(touch, S.DEFERRED, at, token=n + 1)], NOW, BounceSettings())
            connection.execute(sa.text("DELETE FROM traffic WHERE sender_id <> (SELECT max(id) FROM sender)"))
        with read(engine) as connection, effort_of(connection) as effort:
            traffic_by_receiver(connection, NOW - timedelta(hours=1))
            traffic_by_minute(connection, NOW - timedelta(hours=24))
        efforts.append(effort.count)
        with write(engine) as connection:
            connection.execute(sa.text("DELETE FROM delivery_event"))
    assert efforts[1] <= max(1.3 * efforts[0], efforts[0] + 150)


def test_an_upgrade_counts_the_events_and_complaints_of_before(empty_database_url: str) -> None:
    engine = open_engine(empty_database_url)
    now = datetime.now(UTC)
    ages = (timedelta(minutes=5), timedelta(hours=30), timedelta(days=5), timedelta(days=100))
    with write(engine) as connection:
        migrate.run_migrations(connection, "0041")
        campaign = old_campaign(connection)
        for age in ages:
            for n in range(3):
                at = UtcDateTime().process_bind_param(now - age, connection.dialect)
                insert(connection, "delivery_event", uid=f"{age}:{n}", touch_id=1, state="deferred", at=at, attempt=1)
        at = UtcDateTime().process_bind_param(now - ages[-1], connection.dialect)
        values = {"state": "dead", "at": at, "attempt": 1}
        insert(connection, "delivery_event", uid="dead", touch_id=2, cause="no route", **values)
        insert(connection, "delivery_event", uid="note", touch_id=1, cause="unsubscribe", **values)
        mail = {"source": "test", "received_at": at, "verdict": "complaint", "touch_id": 1, "processed_at": at}
        insert(connection, "bounce_mail", digest="d", **mail)
    migrate.upgrade(engine)
    with read(engine) as connection:
        sums = {
            age: {row.outcome: row.events for row in traffic_by_receiver(connection, bucket_start(now - age, now))}
            for age in ages
        }
        named = connection.execute(sa.text("SELECT count(*) FROM delivery_event WHERE sender_id = 1")).scalar()
        causes = connection.execute(sa.text("SELECT cause FROM touch ORDER BY id")).scalars().all()
        of_campaign = connection.execute(
            sa.text("SELECT DISTINCT campaign_id, provider FROM traffic WHERE campaign_id > 0")
        ).all()
    assert sums == {
        ages[0]: {"deferred": 3},
        ages[1]: {"deferred": 6},
        ages[2]: {"deferred": 9},
        ages[3]: {"deferred": 12, "dead": 1, "complained": 1},
    }
    assert named == 9
    assert causes == ["", "no route"]
    assert [tuple(row) for row in of_campaign] == [(campaign, "google")]
    fold_traffic(engine, now, LONG_AGO)
    with read(engine) as connection:
        for age in ages:
            rows = traffic_by_receiver(connection, bucket_start(now - age, now))
            assert {row.outcome: row.events for row in rows} == sums[age]
    assert_counts_agree(engine)
    engine.dispose()


def old_campaign(connection: sa.Connection) -> int:
    """Add a campaign of one email with two touches, of which one is dead, as version 0041 writes it. Returns its id."""
    at = UtcDateTime().process_bind_param(NOW, connection.dialect)
    insert(connection, "audience", id=1, name="people", created_at=at)
    insert(
        connection, "sender", id=1, name="news", address="news@example.com", display_name="News",
        postal_address="1 High Street", route="relay",
    )  # fmt: skip
    insert(
        connection, "campaign", id=7, name="spring", state="running", audience_id=1, sender_id=1, job_class="normal",
        time_zone="UTC", on_reply="stop", created_at=at,
    )  # fmt: skip
    insert(connection, "step", id=1, campaign_id=7, position=1, name="email", kind="email", settings="{}")
    insert(connection, "mail_domain", domain="example.com", provider="google", site="google", expires_at=at)
    for number, state in ((1, "deferred"), (2, "dead")):
        address = f"r{number}@example.com"
        insert(
            connection, "recipient", id=number, address=address, domain="example.com", attributes="{}", created_at=at
        )
        insert(
            connection, "touch", id=number, campaign_id=7, step_id=1, recipient_id=number, state=state,
            due_at=at, claim=0,
        )  # fmt: skip
    return 7


def insert(connection: sa.Connection, table: str, **values: object) -> None:
    names, places = ", ".join(values), ", ".join(f":{name}" for name in values)
    texts = {name: str(value) if isinstance(value, datetime) else value for name, value in values.items()}
    if connection.dialect.name == "sqlite":
        texts = {k: f"{v:%Y-%m-%d %H:%M:%S.%f}" if isinstance(v, datetime) else v for k, v in values.items()}
    connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({places})"), texts)

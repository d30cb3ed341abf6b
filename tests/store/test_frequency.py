"""Frequency caps in the ledger: over all campaigns, in any span, and for two admissions at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from random import Random
from threading import Thread

import pytest
import sqlalchemy as sa
from sqlmodel import col

from postroad.settings.types import RateSetting
from postroad.store.campaign import Campaign
from postroad.store.engine import read, write
from postroad.store.frequency import FrequencyRule, frequency_holds, lock_recipients, over_cap_in_audience
from postroad.store.ledger import TouchState
from postroad.store.touches.ending import cancel_touches, suppress_touches_of
from postroad.store.touches.sending import Claim, admit
from tests.postgresql import wait_until_blocked
from tests.store.effort import effort_of
from tests.store.large import add_large_campaign
from tests.store.rows import NOW, add_audience, add_campaign, add_recipient, add_touch

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
COUNTED = (TouchState.ACCEPTED, TouchState.UNKNOWN)


def rule(now: datetime = NOW, **caps: str) -> FrequencyRule:
    return FrequencyRule(caps={name: RateSetting.parse(rate) for name, rate in caps.items()}, now=now)


def campaign_of(connection: sa.Connection, frequency: str | None = None, *, skip: bool = False) -> tuple[int, int]:
    campaign, (step,) = add_campaign(connection)
    values = {"frequency": frequency, "frequency_skip": skip}
    connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign).values(**values))
    return campaign, step


def add_sent(
    connection: sa.Connection,
    recipient: int,
    *ago: timedelta,
    frequency: str | None = None,
    state: TouchState = TouchState.ACCEPTED,
) -> list[int]:
    """Add messages to a recipient, each of a campaign of its own, that were settled so long before `NOW`."""
    touches = []
    for delta in ago:
        campaign, step = campaign_of(connection, frequency)
        touches.append(
            add_touch(connection, campaign, step, state, recipient_id=recipient, settled_at=NOW - delta, claim=1)
        )
    return touches


def add_waiting(
    connection: sa.Connection,
    recipient: int,
    frequency: str | None = None,
    *,
    skip: bool = False,
    state: TouchState = TouchState.QUEUED,
) -> int:
    campaign, step = campaign_of(connection, frequency, skip=skip)
    return add_touch(connection, campaign, step, state, recipient_id=recipient)


def claims(*touches: int, address: str = "") -> list[Claim]:
    return [Claim(touch, 9, address=address) for touch in touches]


def test_admission_agrees_with_a_count_of_every_message(engine: sa.Engine) -> None:
    """Random histories over campaigns of every class: `admit` allows what a plain count allows."""
    rng = Random(44)
    caps = rule(normal="2/7d", rare="1/30d", many="5/1d")
    expected: dict[int, bool] = {}
    with write(engine) as connection:
        for _ in range(60):
            recipient = add_recipient(connection)
            times: list[tuple[str | None, TouchState, timedelta | None]] = []
            for _ in range(rng.randrange(7)):
                frequency = rng.choice([None, "normal", "rare", "many", "ignore", "gone"])
                state = rng.choice([*COUNTED, TouchState.SENDING, TouchState.BOUNCED, TouchState.CANCELLED])
                ago = rng.choice([HOUR, DAY, 2 * DAY, 7 * DAY, 8 * DAY, 29 * DAY, 30 * DAY, 31 * DAY])
                campaign, step = campaign_of(connection, frequency)
                settled = None if state is TouchState.SENDING else NOW - ago
                add_touch(connection, campaign, step, state, recipient_id=recipient, settled_at=settled)
                times.append((frequency, state, ago))
            own = rng.choice([None, "normal", "rare", "many", "ignore", "gone"])
            expected[add_waiting(connection, recipient, own)] = allows(own, times)
    with write(engine) as connection:
        admitted = admit(connection, claims(*expected), caps)
        held = frequency_holds(connection, sorted(expected.keys() - admitted), caps)
    assert {touch: touch in admitted for touch in expected} == expected
    assert held.keys() == expected.keys() - admitted
    assert {True, False} == set(expected.values())


def allows(own: str | None, sent: Sequence[tuple[str | None, TouchState, timedelta | None]]) -> bool:
    """What the caps of the property test allow, stated independently."""
    spans = {"normal": (2, 7 * DAY), "rare": (1, 30 * DAY), "many": (5, DAY)}
    if own == "ignore":
        return True
    if (own or "normal") not in spans:
        return False
    count, span = spans[own or "normal"]
    counted = [
        ago
        for frequency, state, ago in sent
        if frequency != "ignore"
        and (state is TouchState.SENDING or (state in COUNTED and ago is not None and ago < span))
    ]
    return len(counted) < count


@pytest.mark.parametrize("ago", [(), (HOUR,), (8 * DAY, 9 * DAY, 10 * DAY), (HOUR, HOUR)])
def test_without_a_class_there_is_no_cap(engine: sa.Engine, ago: Sequence[timedelta]) -> None:
    with write(engine) as connection:
        recipient = add_recipient(connection)
        add_sent(connection, recipient, *ago)
        touch = add_waiting(connection, recipient)
        assert admit(connection, claims(touch), rule(rare="1/30d")) == {touch}, "it names no class"


@pytest.mark.parametrize("caps", [{}, {"normal": "1/1d"}])
def test_a_class_that_the_settings_lack_holds_its_mail(engine: sa.Engine, caps: dict[str, str]) -> None:
    with write(engine) as connection:
        touch = add_waiting(connection, add_recipient(connection), "gone")
        assert admit(connection, claims(touch), rule(NOW, **caps)) == set()
        held = frequency_holds(connection, [touch], rule(NOW, **caps))[touch]
    assert (held.cap, held.until, held.cause) == (None, None, "no frequency class gone")


def test_a_touch_may_leave_exactly_when_the_count_is_below_its_cap_again(engine: sa.Engine) -> None:
    with write(engine) as connection:
        recipient = add_recipient(connection)
        add_sent(connection, recipient, 6 * DAY, 2 * DAY, HOUR, 5 * DAY)
        touch = add_waiting(connection, recipient)
        held = frequency_holds(connection, [touch], rule(normal="3/7d"))[touch]
    until = NOW - 5 * DAY + 7 * DAY  # then three have become two: the two newest
    assert held.until == until
    assert held.cause == "over the frequency cap normal (3/7d)"
    with write(engine) as connection:
        early = rule(until - timedelta(microseconds=1), normal="3/7d")
        assert admit(connection, claims(touch), early) == set()
        assert admit(connection, claims(touch), rule(until, normal="3/7d")) == {touch}


def test_what_is_on_the_wire_counts_and_its_end_decides(engine: sa.Engine) -> None:
    with write(engine) as connection:
        recipient = add_recipient(connection)
        first, second = (add_waiting(connection, recipient) for _ in range(2))
        caps = rule(normal="1/7d")
        assert admit(connection, claims(first), caps) == {first}
        assert admit(connection, claims(second), caps) == set()
        assert frequency_holds(connection, [second], caps)[second].until is None
        connection.execute(sa.text("UPDATE touch SET state = 'bounced' WHERE id = :id"), {"id": first})
        assert admit(connection, claims(second), caps) == {second}


def test_claims_of_one_recipient_in_one_batch_count_each_other(engine: sa.Engine) -> None:
    with write(engine) as connection:
        recipient = add_recipient(connection)
        touches = [add_waiting(connection, recipient) for _ in range(4)]
        other = add_waiting(connection, add_recipient(connection))
        batch = [*claims(*touches, address="a@example.com"), *claims(other, address="b@example.com")]
        assert admit(connection, batch, rule(normal="2/7d")) == {*touches[:2], other}


def test_the_next_claim_of_a_touch_does_not_count_itself(engine: sa.Engine) -> None:
    caps = rule(normal="1/7d")
    with write(engine) as connection:
        touch = add_waiting(connection, add_recipient(connection))
        assert admit(connection, [Claim(touch, 1)], caps) == {touch}
        assert admit(connection, [Claim(touch, 2, (1,))], caps) == {touch}


def test_the_number_over_the_cap_in_an_audience(engine: sa.Engine) -> None:
    with write(engine) as connection:
        over, under, ignored, outside = (add_recipient(connection) for _ in range(4))
        for recipient in (over, outside):
            add_sent(connection, recipient, HOUR, DAY)
        add_sent(connection, under, HOUR, 8 * DAY)
        add_sent(connection, ignored, HOUR, DAY, frequency="ignore")
        audience = add_audience(connection, [over, under, ignored])
        campaign, _ = add_campaign(connection, audience_id=audience)
    with read(engine) as connection:
        assert over_cap_in_audience(connection, campaign, rule(normal="2/7d")) == 1
        assert over_cap_in_audience(connection, campaign, rule(normal="3/7d")) == 0
        assert over_cap_in_audience(connection, campaign, rule()) == 0


def test_an_admission_reads_only_messages_within_the_span(engine: sa.Engine) -> None:
    """A thousand past messages to a recipient, in a large ledger, do not make it slower."""
    efforts = []
    caps = rule(normal="3/7d")
    with write(engine) as connection:
        add_large_campaign(connection, 30_000, TouchState.ACCEPTED)
        campaign, steps = add_campaign(connection, steps=[{}] * 1_000)
        for step in steps:
            past = NOW - 30 * DAY
            add_touch(connection, campaign, step, TouchState.ACCEPTED, recipient_id=1, settled_at=past)
        touches = [add_waiting(connection, recipient) for recipient in (2, 1)]
    for touch in touches:
        with write(engine) as connection, effort_of(connection) as effort:
            assert admit(connection, claims(touch), caps) == {touch}
        efforts.append(effort.count)
    assert efforts[1] <= efforts[0] + 50
    assert efforts[1] < 1_000


@pytest.mark.postgresql
def test_two_admissions_at_once_do_not_exceed_the_cap(postgresql_engine: sa.Engine) -> None:
    with write(postgresql_engine) as connection:
        recipient = add_recipient(connection)
        first, second = (add_waiting(connection, recipient) for _ in range(2))
    caps = rule(normal="1/7d")
    admitted: list[set[int]] = []

    def admit_second() -> None:
        with write(postgresql_engine) as connection:
            admitted.append(admit(connection, claims(second), caps))

    with write(postgresql_engine) as connection:
        admitted.append(admit(connection, claims(first), caps))
        thread = Thread(target=admit_second)
        thread.start()
        wait_until_blocked(postgresql_engine)
    thread.join()
    assert admitted == [{first}, set()]


@pytest.mark.postgresql
def test_a_touch_that_is_planned_during_an_admission_does_not_exceed_the_cap(postgresql_engine: sa.Engine) -> None:
    """The first admission cannot see the touch of the second one, which waits for the first."""
    caps = rule(normal="1/7d")
    with write(postgresql_engine) as connection:
        recipient = add_recipient(connection)
        first = add_waiting(connection, recipient)
    admitted: list[set[int]] = []
    with write(postgresql_engine) as connection:
        lock_recipients(connection, [first], caps)
        with write(postgresql_engine) as other:
            second = add_waiting(other, recipient)

        def admit_second() -> None:
            with write(postgresql_engine) as connection:
                admitted.append(admit(connection, claims(second), caps))

        thread = Thread(target=admit_second)
        thread.start()
        wait_until_blocked(postgresql_engine)
        admitted.append(admit(connection, claims(first), caps))
    thread.join()
    assert admitted == [{first}, set()]


@pytest.mark.postgresql
def test_admissions_and_endings_of_the_same_recipients_do_not_deadlock(postgresql_engine: sa.Engine) -> None:
    """Claims in opposite orders, a cancellation and suppressions of the same recipients, again and again."""
    caps = rule(normal="1/7d")
    with write(postgresql_engine) as connection:
        recipients = [add_recipient(connection) for _ in range(20)]
        campaigns = [campaign_of(connection) for _ in range(4)]
        touches = [
            [add_touch(connection, *campaign, TouchState.QUEUED, recipient_id=one) for one in recipients]
            for campaign in campaigns
        ]
    failures: list[Exception] = []
    changes: list[list[Callable[[sa.Connection], object]]] = [
        [lambda connection: admit(connection, claims(*touches[0]), caps)],
        [lambda connection: admit(connection, claims(*reversed(touches[1])), caps)],
        [lambda connection: cancel_touches(connection, touches[2][::-1], NOW)],
        [partial(suppress_touches_of, recipient_id=recipient, now=NOW) for recipient in recipients],
    ]

    def run(steps: Sequence[Callable[[sa.Connection], object]]) -> None:
        try:
            for step in (*steps, *steps):
                with write(postgresql_engine) as connection:
                    step(connection)
        except Exception as error:
            failures.append(error)

    threads = [Thread(target=run, args=(steps,)) for steps in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with read(postgresql_engine) as connection:
        sent = sa.text("SELECT count(*) FROM touch WHERE state = 'sending' GROUP BY recipient_id")
        assert set(connection.execute(sent).scalars()) <= {1}

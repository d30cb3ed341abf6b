"""Now: numbers of what is under way, and of what a person has to decide, with their lists."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.errors import UsageError
from postroad.read_model.now import CAP, CappedCount, accepted_per_minute, now_figures
from postroad.read_model.undecided import undecided_counts, undecided_touches
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.traffic import fold_traffic
from tests.read_model.world import all_rows
from tests.store.effort import effort_of
from tests.store.large import add_large_campaign
from tests.store.outcomes import add_sent_touches, record_outcome
from tests.store.rows import NOW, add_campaign, add_touch

S = TouchState
SMALL, LARGE = 2_000, 20_000


def test_figures_count_what_is_under_way(engine: sa.Engine) -> None:
    with write(engine) as connection:
        for state in (CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.FINISHED):
            campaign, (step,) = add_campaign(connection, state=state)
            for touch_state, number in ((S.QUEUED, 3), (S.DEFERRED, 2), (S.SENDING, 1), (S.ACCEPTED, 4)):
                for _ in range(number):
                    add_touch(connection, campaign, step, touch_state)
            add_touch(connection, campaign, step, S.PLANNED, due_at=NOW - timedelta(minutes=5))
            add_touch(connection, campaign, step, S.PLANNED, due_at=NOW + timedelta(minutes=5))
        found = now_figures(connection, NOW)
    assert found.due == CappedCount(number=1)
    assert found.oldest_due_at == NOW - timedelta(minutes=5)
    assert (found.queued, found.deferred, found.leaving) == (6, 4, 2)
    assert (found.dead, found.unknown) == (0, 0)


def test_figures_of_an_empty_ledger_are_zero(engine: sa.Engine) -> None:
    with read(engine) as connection:
        found = now_figures(connection, NOW)
        assert accepted_per_minute(connection, NOW) == []
    assert (found.due, found.oldest_due_at, found.queued, list(found.undecided)) == (CappedCount(number=0), None, 0, [])


def test_due_messages_are_counted_up_to_a_cap(engine: sa.Engine) -> None:
    with write(engine) as connection:
        add_large_campaign(connection, SMALL, S.PLANNED)
        assert now_figures(connection, NOW).due == CappedCount(number=CAP, capped=True)


def test_each_undecided_count_has_a_list_that_sums_to_it(engine: sa.Engine) -> None:
    causes = {S.DEAD: ("no-route", "attempts"), S.UNKNOWN: ("lease expired",)}
    with write(engine) as connection:
        for number in (4, 1):
            for state, names in causes.items():
                for cause in names:
                    for touch in add_sent_touches(connection, "one.example", number):
                        record_outcome(connection, touch, state, NOW, cause=cause, reply_code=None)
        cancelled, (step,) = add_campaign(connection, state=CampaignState.CANCELLED)
        for state in causes:
            add_touch(connection, cancelled, step, state)
    with read(engine) as connection:
        counts = undecided_counts(connection)
        assert {(c.state, c.cause): c.touches for c in counts} == {
            (S.DEAD, "no-route"): 5,
            (S.DEAD, "attempts"): 5,
            (S.UNKNOWN, "lease expired"): 5,
            (S.UNKNOWN, ""): 1,
        }
        for count in counts:
            rows = all_rows(
                lambda after, count=count: undecided_touches(  # type: ignore[misc]
                    connection, state=count.state, cause=count.cause, after=after, limit=2
                )
            )
            assert len({row.id for row in rows}) == len(rows) == count.touches
            assert {row.state for row in rows} == {count.state}


def test_a_resolved_message_is_no_longer_undecided(engine: sa.Engine) -> None:
    with write(engine) as connection:
        [touch] = add_sent_touches(connection, "one.example", 1)
        record_outcome(connection, touch, S.UNKNOWN, NOW, cause="lease expired")
        assert [count.touches for count in undecided_counts(connection)] == [1]
        record_outcome(connection, touch, S.ACCEPTED, NOW, token=-2)
        assert undecided_counts(connection) == []


@pytest.mark.parametrize("cursor", ["x", "ä", "WzEsMl0x", "WyJhIiwyXQ", "e30", "=" * 50])
def test_a_cursor_that_was_altered_is_refused(engine: sa.Engine, cursor: str) -> None:
    with read(engine) as connection, pytest.raises(UsageError, match="is not one of this list"):
        undecided_touches(connection, state=S.DEAD, cause="", after=cursor)


def test_minutes_of_a_day_are_the_same_before_and_after_a_fold(engine: sa.Engine) -> None:
    with write(engine) as connection:
        for n, touch in enumerate(add_sent_touches(connection, "one.example", 60)):
            record_outcome(connection, touch, S.ACCEPTED, NOW - timedelta(minutes=n * 30))
        before = accepted_per_minute(connection, NOW)
    assert len(before) == 49
    assert [minute.at for minute in before] == sorted(minute.at for minute in before)
    assert fold_traffic(engine, NOW, NOW - timedelta(days=1_000)) > 0
    with read(engine) as connection:
        assert accepted_per_minute(connection, NOW) == before
        with pytest.raises(ValueError, match="are not kept"):
            accepted_per_minute(connection, NOW, hours=49)


def test_figures_cost_the_same_in_a_larger_ledger(engine: sa.Engine) -> None:
    efforts = []
    for number in (SMALL, LARGE):
        with write(engine) as connection:
            connection.execute(sa.text("UPDATE campaign SET state = 'finished'"))
            campaign, [step, _] = add_large_campaign(connection, number, S.ACCEPTED)
            connection.execute(sa.text("UPDATE touch SET state = 'accepted'"))
            connection.execute(
                sa.text(
                    "UPDATE touch SET state = CASE WHEN id % 2 = 0 THEN 'dead' ELSE 'planned' END "
                    "WHERE id IN (SELECT id FROM touch WHERE campaign_id = :id ORDER BY id LIMIT 200)"
                ),
                {"id": campaign},
            )
        with read(engine) as connection, effort_of(connection) as effort:
            assert now_figures(connection, NOW).due.number == 100
            assert len(undecided_touches(connection, state=S.DEAD, cause="").rows) == 50
            assert step
        efforts.append(effort.count)
    assert efforts[1] <= max(1.3 * efforts[0], efforts[0] + 150)

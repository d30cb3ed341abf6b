"""Launch freezes, advance goes on from what was accepted, and neither does anything twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import Launched, advance, forecast, launch
from postroad.campaign.status import campaigns_in, finish_if_done, running_campaigns, summary
from postroad.errors import StateError
from postroad.store.campaign import CampaignState
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason, suppress_now
from postroad.store.types import UtcDateTime
from tests.campaign.house import CAMPAIGN, NOW, House
from tests.campaign.tables import row_counts
from tests.postgresql import wait_until_blocked

AT_NINE = CAMPAIGN + "    at: 9:00\n"
SEQUENCE = (
    AT_NINE
    + "  - wait: 1d\n  - wait: 12h\n  - email: again\n    subject: Again\n    text: hello.txt\n"
    + "  - email: last\n    subject: Last\n    text: hello.txt\n    at: 18:30\n"
)
ROWS = ["a@example.com,Europe/Berlin,Ada", "b@example.com,,Bob", "c@example.com,Asia/Kolkata,Cem"]
ROWS += ["d@example.com,America/New_York,Dan", "e@example.com,Europe/Berlin,Eve"]


def suppress(house: House, *addresses: str) -> None:
    suppress_now(house.engine, addresses, SuppressionReason.UNSUBSCRIBE, "test", NOW)


def settle(house: House, step: str, address: str, state: TouchState, at: datetime) -> None:
    statement = sa.text(
        "UPDATE touch SET state = :state, settled_at = :at WHERE step_id = (SELECT id FROM step WHERE name = :step) "
        "AND recipient_id = (SELECT id FROM recipient WHERE address = :address)"
    ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
    values = {"state": state.value, "at": at if state.ended else None, "step": step, "address": address}
    with write(house.engine) as connection:
        assert connection.execute(statement, values).rowcount == 1


def due(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_launch_freezes_everyone_at_the_time_of_day_of_their_own_zone(house: House) -> None:
    house.fill(ROWS)
    house.apply(AT_NINE + "time_zone: Australia/Lord_Howe\n")
    found = launch(house.engine, "spring", NOW)  # 08:30 UTC
    assert found == Launched(campaign="spring", audience=5, suppressed=0, already=False)
    assert house.touches() == [
        ("hello", "a@example.com", "planned", due("2026-05-05 07:00")),
        ("hello", "b@example.com", "planned", due("2026-05-04 22:30")),
        ("hello", "c@example.com", "planned", due("2026-05-05 03:30")),
        ("hello", "d@example.com", "planned", due("2026-05-04 13:00")),
        ("hello", "e@example.com", "planned", due("2026-05-05 07:00")),
    ]
    seen = summary(house.engine, "spring")
    assert (seen.state, seen.audience, seen.launched_at) == (CampaignState.RUNNING, 5, NOW)
    assert seen.next_due_at == due("2026-05-04 13:00")
    assert running_campaigns(house.engine) == campaigns_in(house.engine) == ["spring"]
    assert campaigns_in(house.engine, CampaignState.DRAFT, CampaignState.PAUSED) == []


def test_without_a_time_of_day_everyone_is_due_at_the_launch(house: House) -> None:
    house.fill(ROWS)
    house.apply()
    launch(house.engine, "spring", NOW)
    assert {touch[3] for touch in house.touches()} == {NOW}


def test_waits_before_the_first_email_count_from_the_launch(house: House) -> None:
    house.fill(ROWS)
    house.apply(CAMPAIGN.replace("steps:\n", "steps:\n  - wait: 90m\n"))
    launch(house.engine, "spring", NOW)
    assert {touch[3] for touch in house.touches()} == {NOW + timedelta(minutes=90)}


def test_launching_again_freezes_nobody_else(house: House) -> None:
    house.fill(ROWS)
    house.apply(AT_NINE)
    suppress(house, "a@example.com")
    launch(house.engine, "spring", NOW)
    before = house.touches()
    house.fill(["late@example.com,,Lea"])
    suppress(house, "b@example.com")
    found = launch(house.engine, "spring", NOW + timedelta(days=1))
    assert found == Launched(campaign="spring", audience=5, suppressed=1, already=True)
    assert house.touches() == before
    assert summary(house.engine, "spring").launched_at == NOW


@pytest.mark.parametrize("state", [CampaignState.PAUSED, CampaignState.FINISHED])
def test_launching_again_does_not_set_running_what_is_not(house: House, state: CampaignState) -> None:
    house.fill(ROWS)
    house.apply()
    launch(house.engine, "spring", NOW)
    set_state(house, state)
    assert launch(house.engine, "spring", NOW).already
    assert summary(house.engine, "spring").state is state


def set_state(house: House, state: CampaignState) -> None:
    with write(house.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = :state"), {"state": state.value})


def test_a_cancelled_campaign_is_not_launched(house: House) -> None:
    house.fill(ROWS)
    house.apply()
    set_state(house, CampaignState.CANCELLED)
    with pytest.raises(StateError, match="was cancelled"):
        launch(house.engine, "spring", NOW)
    assert house.touches() == []


def test_an_empty_audience_is_not_launched_and_may_be_filled_and_launched_later(house: House) -> None:
    house.apply()
    with pytest.raises(StateError, match="audience of campaign spring is empty"):
        launch(house.engine, "spring", NOW)
    assert summary(house.engine, "spring").state is CampaignState.DRAFT
    house.fill(ROWS)
    assert launch(house.engine, "spring", NOW).audience == 5


def test_the_suppressed_end_as_suppressed_and_count(house: House) -> None:
    house.fill(ROWS)
    house.apply()
    suppress(house, "a@example.com", "d@example.com", "stranger@example.com")
    found = launch(house.engine, "spring", NOW)
    assert (found.audience, found.suppressed) == (5, 2)
    states = {address: state for _, address, state, _ in house.touches()}
    assert states == {
        "a@example.com": "suppressed",
        "b@example.com": "planned",
        "c@example.com": "planned",
        "d@example.com": "suppressed",
        "e@example.com": "planned",
    }


def test_an_audience_of_the_suppressed_alone_is_launched_and_finishes(house: House) -> None:
    house.fill(ROWS[:1])
    house.apply()
    suppress(house, "a@example.com")
    assert launch(house.engine, "spring", NOW).suppressed == 1
    assert finish_if_done(house.engine, "spring", NOW)


def test_a_campaign_takes_no_one_of_another_audience(house: House) -> None:
    house.fill(ROWS)
    house.fill(["x@example.com,,X"], audience="others")
    house.apply()
    assert launch(house.engine, "spring", NOW).audience == 5


@pytest.mark.parametrize("now", [NOW, due("2026-03-28 23:00"), due("2026-10-25 00:31")])
def test_a_forecast_is_what_a_launch_then_does(house: House, now: datetime) -> None:
    house.fill(ROWS)
    house.apply(AT_NINE.replace("9:00", "2:30") + "time_zone: Asia/Kathmandu\n")
    suppress(house, "a@example.com", "b@example.com")
    before = row_counts(house.engine)
    seen = forecast(house.engine, "spring", now)
    assert row_counts(house.engine) == before
    launched = launch(house.engine, "spring", now)
    assert (seen.recipients + seen.suppressed, seen.suppressed) == (launched.audience, launched.suppressed)
    planned = Counter(at for _, _, state, at in house.touches() if state == "planned")
    expected: Counter[datetime] = Counter()
    for group in seen.due:
        expected[group.due_at] += group.recipients
    assert +expected == planned
    assert [group.time_zone for group in seen.due if group.recipients == 0] == ["Asia/Kathmandu"]


def test_a_forecast_of_nobody(house: House) -> None:
    house.apply()
    seen = forecast(house.engine, "spring", NOW)
    assert (seen.recipients, seen.suppressed, seen.due) == (0, 0, ())
    with pytest.raises(StateError, match="no campaign named 'winter'"):
        forecast(house.engine, "winter", NOW)


def run_at_once(tasks: list[Callable[[], Any]]) -> list[Any]:
    barrier = Barrier(len(tasks))
    results: list[Any] = []

    def run(task: Callable[[], Any]) -> None:
        barrier.wait()
        results.append(task())

    threads = [Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_launches_at_once_freeze_once(house: House) -> None:
    house.fill([f"r{n}@example.com,,R" for n in range(200)])
    house.apply()
    found = run_at_once([lambda: launch(house.engine, "spring", NOW)] * 4)
    assert sorted(launched.already for launched in found) == [False, True, True, True]
    assert {launched.audience for launched in found} == {200}
    assert len(house.touches()) == 200


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_a_launch_that_waits_for_an_apply_freezes_the_audience_that_it_named(house: House) -> None:
    house.fill(ROWS)
    house.fill(["x@example.com,,X"], audience="others")
    house.apply()
    found: list[Launched] = []
    with write(house.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET audience_id = (SELECT id FROM audience WHERE name = 'others')"))
        thread = Thread(target=lambda: found.append(launch(house.engine, "spring", NOW)))
        thread.start()
        wait_until_blocked(house.engine)
    thread.join()
    assert [launched.audience for launched in found] == [1]
    assert [touch[1] for touch in house.touches()] == ["x@example.com"]


def launched_sequence(house: House) -> None:
    house.fill(ROWS)
    house.apply(SEQUENCE)
    launch(house.engine, "spring", NOW)


def test_advance_plans_the_next_of_exactly_those_whose_last_was_accepted(house: House) -> None:
    house.fill([f"{state.value}@example.com,,X" for state in TouchState])
    house.apply(SEQUENCE)
    launch(house.engine, "spring", NOW)
    for state in TouchState:
        settle(house, "hello", f"{state.value}@example.com", state, NOW)
    assert advance(house.engine, "spring", NOW) == 1
    assert [(step, address) for step, address, *_ in house.touches() if step != "hello"] == [
        ("again", "accepted@example.com")
    ]


def test_waits_add_up_from_the_minute_of_acceptance_and_then_the_time_of_day_comes(house: House) -> None:
    launched_sequence(house)
    settle(house, "hello", "a@example.com", TouchState.ACCEPTED, due("2026-05-05 07:00:59.999999"))
    settle(house, "hello", "c@example.com", TouchState.ACCEPTED, due("2026-05-05 03:31:00"))
    settle(house, "hello", "b@example.com", TouchState.ACCEPTED, due("2026-05-05 03:31:00"))
    assert advance(house.engine, "spring", NOW + timedelta(days=1)) == 3
    assert [touch for touch in house.touches() if touch[0] == "again"] == [
        ("again", "a@example.com", "planned", due("2026-05-06 19:00")),
        ("again", "b@example.com", "planned", due("2026-05-06 15:31")),
        ("again", "c@example.com", "planned", due("2026-05-06 15:31")),
    ]
    # The last has no wait: it is due at the next 18:30 of the recipient's own zone.
    for address, at in (("a", "2026-05-06 16:29:30"), ("b", "2026-05-06 18:31"), ("c", "2026-05-06 13:00:30")):
        settle(house, "again", f"{address}@example.com", TouchState.ACCEPTED, due(at))
    assert advance(house.engine, "spring", NOW + timedelta(days=2)) == 3
    assert [touch for touch in house.touches() if touch[0] == "last"] == [
        ("last", "a@example.com", "planned", due("2026-05-06 16:30")),
        ("last", "b@example.com", "planned", due("2026-05-07 18:30")),
        ("last", "c@example.com", "planned", due("2026-05-06 13:00")),
    ]


def test_a_weekly_email_is_due_on_its_weekday_though_the_one_before_was_late(house: House) -> None:
    house.fill(ROWS)
    house.apply(AT_NINE + "  - wait: 7d\n  - email: again\n    subject: Again\n    text: hello.txt\n    at: 9:00\n")
    launch(house.engine, "spring", NOW)
    settle(house, "hello", "a@example.com", TouchState.ACCEPTED, due("2026-05-05 07:04:10"))
    settle(house, "hello", "c@example.com", TouchState.ACCEPTED, due("2026-05-07 03:31:00"))
    assert advance(house.engine, "spring", NOW + timedelta(days=4)) == 2
    assert [touch for touch in house.touches() if touch[0] == "again"] == [
        ("again", "a@example.com", "planned", due("2026-05-12 07:00")),
        ("again", "c@example.com", "planned", due("2026-05-12 03:30")),
    ]


def test_advancing_again_plans_nobody_twice(house: House) -> None:
    launched_sequence(house)
    settle(house, "hello", "a@example.com", TouchState.ACCEPTED, NOW)
    assert advance(house.engine, "spring", NOW) == 1
    before = house.touches()
    assert advance(house.engine, "spring", NOW + timedelta(days=1)) == 0
    settle(house, "again", "a@example.com", TouchState.BOUNCED, NOW)
    assert advance(house.engine, "spring", NOW + timedelta(days=1)) == 0
    assert len(house.touches()) == len(before)


def test_advances_at_once_plan_once(house: House) -> None:
    house.fill([f"r{n}@example.com,,R" for n in range(100)])
    house.apply(SEQUENCE)
    launch(house.engine, "spring", NOW)
    with write(house.engine) as connection:
        connection.execute(
            sa.text("UPDATE touch SET state = 'accepted', settled_at = :at").bindparams(
                sa.bindparam("at", NOW, type_=UtcDateTime())
            )
        )
    assert sorted(run_at_once([lambda: advance(house.engine, "spring", NOW)] * 4)) == [0, 0, 0, 100]
    assert len(house.touches()) == 200


def test_who_is_suppressed_between_two_emails_does_not_get_the_second(house: House) -> None:
    launched_sequence(house)
    settle(house, "hello", "a@example.com", TouchState.ACCEPTED, NOW)
    suppress(house, "a@example.com", "b@example.com")
    advance(house.engine, "spring", NOW)
    states = {(step, address): state for step, address, state, _ in house.touches()}
    assert states["again", "a@example.com"] == "suppressed"
    assert states["hello", "b@example.com"] == "suppressed"


@pytest.mark.parametrize("state", [state for state in CampaignState if state is not CampaignState.RUNNING])
def test_nothing_is_planned_or_finished_for_a_campaign_that_does_not_run(house: House, state: CampaignState) -> None:
    launched_sequence(house)
    for address in "abcde":
        settle(house, "hello", f"{address}@example.com", TouchState.ACCEPTED, NOW)
    set_state(house, state)
    assert advance(house.engine, "spring", NOW) == 0
    assert not finish_if_done(house.engine, "spring", NOW)
    assert len(house.touches()) == 5
    assert summary(house.engine, "spring").state is state


def test_a_campaign_is_finished_when_every_touch_of_every_step_has_ended(house: House) -> None:
    launched_sequence(house)
    ends = [TouchState.ACCEPTED, TouchState.BOUNCED, TouchState.DEAD, TouchState.UNKNOWN, TouchState.EXPIRED]
    for address, state in zip("abcde", ends, strict=True):
        assert not finish_if_done(house.engine, "spring", NOW)
        settle(house, "hello", f"{address}@example.com", state, NOW)
    assert not finish_if_done(house.engine, "spring", NOW), "the next of a@ is not planned yet"
    for step in ("again", "last"):
        assert advance(house.engine, "spring", NOW) == 1
        assert not finish_if_done(house.engine, "spring", NOW)
        settle(house, step, "a@example.com", TouchState.ACCEPTED, NOW)
    assert finish_if_done(house.engine, "spring", NOW + timedelta(hours=1))
    assert summary(house.engine, "spring").state is CampaignState.FINISHED
    assert not finish_if_done(house.engine, "spring", NOW + timedelta(hours=2))


@pytest.mark.parametrize("state", [state for state in TouchState if not state.ended])
def test_a_touch_that_still_moves_keeps_a_campaign_from_being_finished(house: House, state: TouchState) -> None:
    house.fill(ROWS[:1])
    house.apply()
    launch(house.engine, "spring", NOW)
    settle(house, "hello", "a@example.com", state, NOW)
    assert not finish_if_done(house.engine, "spring", NOW)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_a_campaign_that_is_cancelled_at_that_moment_does_not_become_finished(house: House) -> None:
    house.fill(ROWS[:1])
    house.apply()
    launch(house.engine, "spring", NOW)
    settle(house, "hello", "a@example.com", TouchState.ACCEPTED, NOW)
    found: list[bool] = []
    with write(house.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = 'cancelled'"))
        thread = Thread(target=lambda: found.append(finish_if_done(house.engine, "spring", NOW)))
        thread.start()
        wait_until_blocked(house.engine)
    thread.join()
    assert found == [False]
    assert summary(house.engine, "spring").state is CampaignState.CANCELLED


def test_a_summary_counts_every_state_of_every_step(house: House) -> None:
    launched_sequence(house)
    settle(house, "hello", "a@example.com", TouchState.ACCEPTED, NOW)
    settle(house, "hello", "b@example.com", TouchState.DEFERRED, NOW)
    advance(house.engine, "spring", NOW)
    seen = summary(house.engine, "spring")
    assert [(step.name, step.touches, step.live) for step in seen.steps] == [
        ("hello", 5, 4),
        ("again", 1, 1),
        ("last", 0, 0),
    ]
    assert set(seen.counts) == set(TouchState)
    assert +Counter(seen.counts) == {TouchState.PLANNED: 4, TouchState.ACCEPTED: 1, TouchState.DEFERRED: 1}
    assert seen.audience == 5
    with pytest.raises(StateError, match="no campaign named 'winter'"):
        summary(house.engine, "winter")

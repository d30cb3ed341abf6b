"""Launch freezes the audience, advance plans follow-ups of accepted emails, and both are idempotent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import LaunchResult, advance, forecast, launch
from postroad.campaign.status import campaigns_in, finish_if_done, running_campaigns, summary
from postroad.errors import StateError
from postroad.store.campaign import CampaignState
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason, suppress_now
from postroad.store.types import UtcDateTime
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject
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


def suppress(project: CampaignProject, *addresses: str) -> None:
    suppress_now(project.engine, addresses, SuppressionReason.UNSUBSCRIBE, "test", NOW)


def settle(project: CampaignProject, step: str, address: str, state: TouchState, at: datetime) -> None:
    statement = sa.text(
        "UPDATE touch SET state = :state, settled_at = :at WHERE step_id = (SELECT id FROM step WHERE name = :step) "
        "AND recipient_id = (SELECT id FROM recipient WHERE address = :address)"
    ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
    values = {"state": state.value, "at": at if state.ended else None, "step": step, "address": address}
    with write(project.engine) as connection:
        assert connection.execute(statement, values).rowcount == 1


def due(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_launch_plans_each_recipient_in_their_time_zone(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply(AT_NINE + "time_zone: Australia/Lord_Howe\n")
    found = launch(project.engine, "spring", NOW)  # 08:30 UTC
    assert found == LaunchResult(campaign="spring", audience=5, suppressed=0, already=False)
    assert project.touches() == [
        ("hello", "a@example.com", "planned", due("2026-05-05 07:00")),
        ("hello", "b@example.com", "planned", due("2026-05-04 22:30")),
        ("hello", "c@example.com", "planned", due("2026-05-05 03:30")),
        ("hello", "d@example.com", "planned", due("2026-05-04 13:00")),
        ("hello", "e@example.com", "planned", due("2026-05-05 07:00")),
    ]
    seen = summary(project.engine, "spring")
    assert (seen.state, seen.audience, seen.launched_at) == (CampaignState.RUNNING, 5, NOW)
    assert seen.next_due_at == due("2026-05-04 13:00")
    assert running_campaigns(project.engine) == campaigns_in(project.engine) == ["spring"]
    assert campaigns_in(project.engine, CampaignState.DRAFT, CampaignState.PAUSED) == []


def test_without_a_time_of_day_all_are_due_at_the_launch(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply()
    launch(project.engine, "spring", NOW)
    assert {touch[3] for touch in project.touches()} == {NOW}


def test_waits_before_the_first_email_count_from_the_launch(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply(CAMPAIGN.replace("steps:\n", "steps:\n  - wait: 90m\n"))
    launch(project.engine, "spring", NOW)
    assert {touch[3] for touch in project.touches()} == {NOW + timedelta(minutes=90)}


def test_launching_again_freezes_no_other_recipient(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply(AT_NINE)
    suppress(project, "a@example.com")
    launch(project.engine, "spring", NOW)
    before = project.touches()
    project.fill(["late@example.com,,Lea"])
    suppress(project, "b@example.com")
    found = launch(project.engine, "spring", NOW + timedelta(days=1))
    assert found == LaunchResult(campaign="spring", audience=5, suppressed=1, already=True)
    assert project.touches() == before
    assert summary(project.engine, "spring").launched_at == NOW


@pytest.mark.parametrize("state", [CampaignState.PAUSED, CampaignState.FINISHED])
def test_launching_again_does_not_resume_a_stopped_campaign(project: CampaignProject, state: CampaignState) -> None:
    project.fill(ROWS)
    project.apply()
    launch(project.engine, "spring", NOW)
    set_state(project, state)
    assert launch(project.engine, "spring", NOW).already
    assert summary(project.engine, "spring").state is state


def set_state(project: CampaignProject, state: CampaignState) -> None:
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = :state"), {"state": state.value})


def test_a_cancelled_campaign_is_not_launched(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply()
    set_state(project, CampaignState.CANCELLED)
    with pytest.raises(StateError, match="was cancelled"):
        launch(project.engine, "spring", NOW)
    assert project.touches() == []


def test_an_empty_audience_is_not_launched_until_it_is_filled(project: CampaignProject) -> None:
    project.apply()
    with pytest.raises(StateError, match="audience of campaign spring is empty"):
        launch(project.engine, "spring", NOW)
    assert summary(project.engine, "spring").state is CampaignState.DRAFT
    project.fill(ROWS)
    assert launch(project.engine, "spring", NOW).audience == 5


def test_suppressed_members_end_as_suppressed_and_count(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply()
    suppress(project, "a@example.com", "d@example.com", "stranger@example.com")
    found = launch(project.engine, "spring", NOW)
    assert (found.audience, found.suppressed) == (5, 2)
    states = {address: state for _, address, state, _ in project.touches()}
    assert states == {
        "a@example.com": "suppressed",
        "b@example.com": "planned",
        "c@example.com": "planned",
        "d@example.com": "suppressed",
        "e@example.com": "planned",
    }


def test_an_audience_with_only_suppressed_members_finishes(project: CampaignProject) -> None:
    project.fill(ROWS[:1])
    project.apply()
    suppress(project, "a@example.com")
    assert launch(project.engine, "spring", NOW).suppressed == 1
    assert finish_if_done(project.engine, "spring", NOW)


def test_a_campaign_ignores_other_audiences(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.fill(["x@example.com,,X"], audience="others")
    project.apply()
    assert launch(project.engine, "spring", NOW).audience == 5


@pytest.mark.parametrize("now", [NOW, due("2026-03-28 23:00"), due("2026-10-25 00:31")])
def test_a_forecast_equals_the_launch(project: CampaignProject, now: datetime) -> None:
    project.fill(ROWS)
    project.apply(AT_NINE.replace("9:00", "2:30") + "time_zone: Asia/Kathmandu\n")
    suppress(project, "a@example.com", "b@example.com")
    before = row_counts(project.engine)
    seen = forecast(project.engine, "spring", now)
    assert row_counts(project.engine) == before
    launched = launch(project.engine, "spring", now)
    assert (seen.recipients + seen.suppressed, seen.suppressed) == (launched.audience, launched.suppressed)
    planned = Counter(at for _, _, state, at in project.touches() if state == "planned")
    expected: Counter[datetime] = Counter()
    for group in seen.due:
        expected[group.due_at] += group.recipients
    assert +expected == planned
    assert [group.time_zone for group in seen.due if group.recipients == 0] == ["Asia/Kathmandu"]


def test_a_forecast_of_an_empty_audience(project: CampaignProject) -> None:
    project.apply()
    seen = forecast(project.engine, "spring", NOW)
    assert (seen.recipients, seen.suppressed, seen.due) == (0, 0, ())
    with pytest.raises(StateError, match="no campaign named 'winter'"):
        forecast(project.engine, "winter", NOW)


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


def test_concurrent_launches_freeze_once(project: CampaignProject) -> None:
    project.fill([f"r{n}@example.com,,R" for n in range(200)])
    project.apply()
    found = run_at_once([lambda: launch(project.engine, "spring", NOW)] * 4)
    assert sorted(launched.already for launched in found) == [False, True, True, True]
    assert {launched.audience for launched in found} == {200}
    assert len(project.touches()) == 200


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_a_launch_after_a_concurrent_apply_uses_its_audience(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.fill(["x@example.com,,X"], audience="others")
    project.apply()
    found: list[LaunchResult] = []
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET audience_id = (SELECT id FROM audience WHERE name = 'others')"))
        thread = Thread(target=lambda: found.append(launch(project.engine, "spring", NOW)))
        thread.start()
        wait_until_blocked(project.engine)
    thread.join()
    assert [launched.audience for launched in found] == [1]
    assert [touch[1] for touch in project.touches()] == ["x@example.com"]


def launched_sequence(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply(SEQUENCE)
    launch(project.engine, "spring", NOW)


def test_advance_plans_the_next_email_only_after_acceptance_or_a_skip(project: CampaignProject) -> None:
    project.fill([f"{state.value}@example.com,,X" for state in TouchState])
    project.apply(SEQUENCE)
    launch(project.engine, "spring", NOW)
    for state in TouchState:
        settle(project, "hello", f"{state.value}@example.com", state, NOW)
    assert advance(project.engine, "spring", NOW) == 2
    assert [(step, address) for step, address, *_ in project.touches() if step != "hello"] == [
        ("again", "accepted@example.com"),
        ("again", "skipped@example.com"),
    ]


def test_waits_count_from_acceptance_until_the_time_of_day(project: CampaignProject) -> None:
    launched_sequence(project)
    settle(project, "hello", "a@example.com", TouchState.ACCEPTED, due("2026-05-05 07:00:59.999999"))
    settle(project, "hello", "c@example.com", TouchState.ACCEPTED, due("2026-05-05 03:31:00"))
    settle(project, "hello", "b@example.com", TouchState.ACCEPTED, due("2026-05-05 03:31:00"))
    assert advance(project.engine, "spring", NOW + timedelta(days=1)) == 3
    assert [touch for touch in project.touches() if touch[0] == "again"] == [
        ("again", "a@example.com", "planned", due("2026-05-06 19:00")),
        ("again", "b@example.com", "planned", due("2026-05-06 15:31")),
        ("again", "c@example.com", "planned", due("2026-05-06 15:31")),
    ]
    # The last has no wait: it is due at the next 18:30 in the recipient's zone.
    for address, at in (("a", "2026-05-06 16:29:30"), ("b", "2026-05-06 18:31"), ("c", "2026-05-06 13:00:30")):
        settle(project, "again", f"{address}@example.com", TouchState.ACCEPTED, due(at))
    assert advance(project.engine, "spring", NOW + timedelta(days=2)) == 3
    assert [touch for touch in project.touches() if touch[0] == "last"] == [
        ("last", "a@example.com", "planned", due("2026-05-06 16:30")),
        ("last", "b@example.com", "planned", due("2026-05-07 18:30")),
        ("last", "c@example.com", "planned", due("2026-05-06 13:00")),
    ]


def test_a_weekly_email_keeps_its_weekday_after_a_late_one(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply(AT_NINE + "  - wait: 7d\n  - email: again\n    subject: Again\n    text: hello.txt\n    at: 9:00\n")
    launch(project.engine, "spring", NOW)
    settle(project, "hello", "a@example.com", TouchState.ACCEPTED, due("2026-05-05 07:04:10"))
    settle(project, "hello", "c@example.com", TouchState.ACCEPTED, due("2026-05-07 03:31:00"))
    assert advance(project.engine, "spring", NOW + timedelta(days=4)) == 2
    assert [touch for touch in project.touches() if touch[0] == "again"] == [
        ("again", "a@example.com", "planned", due("2026-05-12 07:00")),
        ("again", "c@example.com", "planned", due("2026-05-12 03:30")),
    ]


def test_advancing_again_plans_no_touch_twice(project: CampaignProject) -> None:
    launched_sequence(project)
    settle(project, "hello", "a@example.com", TouchState.ACCEPTED, NOW)
    assert advance(project.engine, "spring", NOW) == 1
    before = project.touches()
    assert advance(project.engine, "spring", NOW + timedelta(days=1)) == 0
    settle(project, "again", "a@example.com", TouchState.BOUNCED, NOW)
    assert advance(project.engine, "spring", NOW + timedelta(days=1)) == 0
    assert len(project.touches()) == len(before)


def test_concurrent_advances_plan_once(project: CampaignProject) -> None:
    project.fill([f"r{n}@example.com,,R" for n in range(100)])
    project.apply(SEQUENCE)
    launch(project.engine, "spring", NOW)
    with write(project.engine) as connection:
        connection.execute(
            sa.text("UPDATE touch SET state = 'accepted', settled_at = :at").bindparams(
                sa.bindparam("at", NOW, type_=UtcDateTime())
            )
        )
    assert sorted(run_at_once([lambda: advance(project.engine, "spring", NOW)] * 4)) == [0, 0, 0, 100]
    assert len(project.touches()) == 200


def test_a_recipient_suppressed_between_emails_gets_no_second(project: CampaignProject) -> None:
    launched_sequence(project)
    settle(project, "hello", "a@example.com", TouchState.ACCEPTED, NOW)
    suppress(project, "a@example.com", "b@example.com")
    advance(project.engine, "spring", NOW)
    states = {(step, address): state for step, address, state, _ in project.touches()}
    assert states["again", "a@example.com"] == "suppressed"
    assert states["hello", "b@example.com"] == "suppressed"


@pytest.mark.parametrize("state", [state for state in CampaignState if state is not CampaignState.RUNNING])
def test_a_stopped_campaign_is_not_advanced_or_finished(project: CampaignProject, state: CampaignState) -> None:
    launched_sequence(project)
    for address in "abcde":
        settle(project, "hello", f"{address}@example.com", TouchState.ACCEPTED, NOW)
    set_state(project, state)
    assert advance(project.engine, "spring", NOW) == 0
    assert not finish_if_done(project.engine, "spring", NOW)
    assert len(project.touches()) == 5
    assert summary(project.engine, "spring").state is state


def test_a_campaign_finishes_when_every_touch_has_ended(project: CampaignProject) -> None:
    launched_sequence(project)
    ends = [TouchState.ACCEPTED, TouchState.BOUNCED, TouchState.DEAD, TouchState.UNKNOWN, TouchState.EXPIRED]
    for address, state in zip("abcde", ends, strict=True):
        assert not finish_if_done(project.engine, "spring", NOW)
        settle(project, "hello", f"{address}@example.com", state, NOW)
    assert not finish_if_done(project.engine, "spring", NOW), "the next of a@ is not planned yet"
    for step in ("again", "last"):
        assert advance(project.engine, "spring", NOW) == 1
        assert not finish_if_done(project.engine, "spring", NOW)
        settle(project, step, "a@example.com", TouchState.ACCEPTED, NOW)
    assert finish_if_done(project.engine, "spring", NOW + timedelta(hours=1))
    assert summary(project.engine, "spring").state is CampaignState.FINISHED
    assert not finish_if_done(project.engine, "spring", NOW + timedelta(hours=2))


@pytest.mark.parametrize("state", [state for state in TouchState if not state.ended])
def test_a_live_touch_keeps_a_campaign_unfinished(project: CampaignProject, state: TouchState) -> None:
    project.fill(ROWS[:1])
    project.apply()
    launch(project.engine, "spring", NOW)
    settle(project, "hello", "a@example.com", state, NOW)
    assert not finish_if_done(project.engine, "spring", NOW)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_a_concurrently_cancelled_campaign_is_not_finished(project: CampaignProject) -> None:
    project.fill(ROWS[:1])
    project.apply()
    launch(project.engine, "spring", NOW)
    settle(project, "hello", "a@example.com", TouchState.ACCEPTED, NOW)
    found: list[bool] = []
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = 'cancelled'"))
        thread = Thread(target=lambda: found.append(finish_if_done(project.engine, "spring", NOW)))
        thread.start()
        wait_until_blocked(project.engine)
    thread.join()
    assert found == [False]
    assert summary(project.engine, "spring").state is CampaignState.CANCELLED


def test_a_summary_counts_every_state_of_every_step(project: CampaignProject) -> None:
    launched_sequence(project)
    settle(project, "hello", "a@example.com", TouchState.ACCEPTED, NOW)
    settle(project, "hello", "b@example.com", TouchState.DEFERRED, NOW)
    advance(project.engine, "spring", NOW)
    seen = summary(project.engine, "spring")
    assert [(step.name, step.touches, step.live) for step in seen.steps] == [
        ("hello", 5, 4),
        ("again", 1, 1),
        ("last", 0, 0),
    ]
    assert set(seen.counts) == set(TouchState)
    assert +Counter(seen.counts) == {TouchState.PLANNED: 4, TouchState.ACCEPTED: 1, TouchState.DEFERRED: 1}
    assert seen.audience == 5
    with pytest.raises(StateError, match="no campaign named 'winter'"):
        summary(project.engine, "winter")

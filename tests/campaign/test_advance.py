"""An advance plans follow-ups of accepted emails, is idempotent, and a campaign finishes when every touch has ended."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from threading import Thread

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import advance, launch
from postroad.campaign.status import finish_if_done, summary
from postroad.errors import StateError
from postroad.store.campaign import CampaignState
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.types import UtcDateTime
from tests.campaign.planned import AT_NINE, ROWS, SEQUENCE, due, run_at_once, set_state, settle, suppress
from tests.campaign.project import NOW, CampaignProject
from tests.postgresql import wait_until_blocked


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

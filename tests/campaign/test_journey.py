"""Enrolments move along their journey, exit, complete and are counted."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from postroad.campaign import journey_goals
from postroad.campaign.launch_forecast import forecast
from postroad.campaign.plan import advance, launch
from postroad.campaign.status import finish_if_done, summary
from postroad.operations.campaigns import cancel_in_ledger
from postroad.settings import UnsubscribeScope
from postroad.store.campaign import CampaignState, find_campaign
from postroad.store.ending import complete_cancellations, end_suppressed
from postroad.store.engine import read, write
from postroad.store.enrolment import exit_cause
from postroad.store.ledger import TouchState
from postroad.store.retention import Before, delete_old
from postroad.store.suppression import SuppressionReason, suppress_now
from postroad.store.touches.sending import requeue_dead
from postroad.store.unsubscribe import unsubscribe_touch
from tests.campaign.journeys import (
    HEADER,
    JOURNEY,
    PEOPLE,
    SHORT,
    launched,
    places,
    set_field,
    set_state,
    settle,
    step_on,
)
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject
from tests.store.rows import add_newest_touch

DAY = timedelta(days=1)

S = TouchState


def test_people_take_the_branch_of_their_fields_and_complete_or_exit(project: CampaignProject) -> None:
    launched(project)
    assert places(project) == {"big": "hello active", "german": "hello active", "other": "hello active"}
    settle(project, "hello", S.ACCEPTED)
    assert step_on(project, NOW + DAY) == 0
    assert set(places(project).values()) == {"wait-2 active"}
    assert step_on(project, NOW + 3 * DAY) == 2
    assert places(project) == {"big": "big active", "german": "german active", "other": "wait-until-7 exited no-date"}
    for step in ("big", "german"):
        settle(project, step, S.ACCEPTED, NOW + 3 * DAY)
    step_on(project, NOW + 3 * DAY)
    assert set(places(project).values()) == {"wait-until-7 active", "wait-until-7 exited no-date"}
    due = datetime.fromisoformat("2026-05-18T00:00:00+00:00")
    assert step_on(project, due - timedelta(minutes=20)) == 0
    assert step_on(project, due - timedelta(minutes=15)) == 2  # Planned before it is due, so that it leaves on time.
    assert {at for step, *_, at in project.touches() if step == "last"} == {due}
    settle(project, "last", S.ACCEPTED, due)
    assert not finish_if_done(project.engine, "spring", due)
    step_on(project, due)
    assert Counter(places(project).values()) == {"last completed": 2, "wait-until-7 exited no-date": 1}
    assert finish_if_done(project.engine, "spring", due)


def test_a_campaign_of_emails_and_waits_has_no_enrolments(project: CampaignProject) -> None:
    project.fill(["a@example.com,,A"])
    project.apply(CAMPAIGN)
    launch(project.engine, "spring", NOW)
    assert summary(project.engine, "spring").journey is None
    assert places(project) == {}


def test_the_sums_are_exact_at_every_step_and_for_every_reason(project: CampaignProject) -> None:
    launched(project, [*PEOPLE, "paid@example.com,,paid,1,DE,2026-05-20"])
    settle(project, "hello", S.ACCEPTED)
    settle(project, "hello", S.BOUNCED, of="german%")
    advance(project.engine, "spring", NOW)
    found = summary(project.engine, "spring")
    journey = found.journey
    assert journey is not None
    assert (found.audience, journey.enrolled, journey.active, journey.completed) == (4, 4, 3, 0)
    assert journey.exited == {"exit": 1}
    assert journey.goal == 1
    by_step = {place.step: place.enrolments for place in journey.places}
    assert list(by_step) == ["hello", "wait-2", "if-3", "big", "in-germany", "german", "wait-until-7", "last"]
    assert (by_step["hello"].exited.total(), by_step["wait-2"].active) == (1, 3)


@pytest.mark.parametrize("state", [S.BOUNCED, S.SUPPRESSED, S.CANCELLED, S.EXPIRED, S.DEAD, S.UNKNOWN])
def test_an_email_that_fails_ends_the_journey_with_its_state(project: CampaignProject, state: TouchState) -> None:
    launched(project, PEOPLE[:1])
    settle(project, "hello", state)
    assert not finish_if_done(project.engine, "spring", NOW)
    assert step_on(project, NOW) == 0
    assert places(project) == {"big": f"hello exited {state}"}
    assert finish_if_done(project.engine, "spring", NOW)


@pytest.mark.parametrize("state", [S.BOUNCED, S.EXPIRED, S.DEAD, S.UNKNOWN])
def test_an_email_that_is_accepted_after_all_continues_the_journey(project: CampaignProject, state: TouchState) -> None:
    launched(project, PEOPLE[:1])
    settle(project, "hello", state)
    step_on(project, NOW)
    with write(project.engine) as connection:  # As after a replay, or a late reply.
        connection.execute(sa.text("UPDATE touch SET state = 'accepted'"))
    step_on(project, NOW + DAY)
    assert places(project) == {"big": "wait-2 active"}


def test_a_replayed_email_does_not_end_the_journey_again(project: CampaignProject) -> None:
    launched(project, PEOPLE[:1])
    settle(project, "hello", S.DEAD)
    step_on(project, NOW)
    assert finish_if_done(project.engine, "spring", NOW)
    with write(project.engine) as connection:
        ids = list(connection.execute(sa.text("SELECT id FROM touch")).scalars())
        assert requeue_dead(connection, ids) == {ids[0]: "spring"}
    assert not finish_if_done(project.engine, "spring", NOW)
    settle(project, "hello", S.ACCEPTED)
    step_on(project, NOW)
    assert places(project) == {"big": "wait-2 active"}


def test_who_matches_the_exit_leaves_before_the_next_step_and_reaches_the_goal(project: CampaignProject) -> None:
    launched(project)
    settle(project, "hello", S.ACCEPTED)
    step_on(project, NOW)
    set_field(project, "big@example.com", plan="paid")
    step_on(project, NOW + 3 * DAY)
    assert places(project)["big"] == "wait-2 exited exit"
    journey = summary(project.engine, "spring").journey
    assert journey is not None
    assert journey.goal == 1


def test_a_touch_that_admission_cancelled_for_the_exit_ends_the_journey_with_exit(project: CampaignProject) -> None:
    launched(project, PEOPLE[:1])
    settle(project, "hello", S.CANCELLED, reply=exit_cause("plan = 'paid'"))
    set_field(project, "big@example.com", plan="paid")
    step_on(project, NOW)
    assert places(project) == {"big": "hello exited exit"}
    journey = summary(project.engine, "spring").journey
    assert journey is not None
    assert journey.goal == 1


def test_a_goal_is_noticed_during_a_wait_and_does_not_end_it(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journey_goals, "GOAL_PAGES", 1)
    monkeypatch.setattr(journey_goals, "PAGE", 2)
    monkeypatch.setattr("postroad.campaign.journey_goals.enrolment_page", two_at_a_time)
    launched(project, text=JOURNEY.replace("exit: \"plan = 'paid'\"\n", ""))
    settle(project, "hello", S.ACCEPTED)
    advance(project.engine, "spring", NOW)
    for address in ("big", "german", "other"):
        set_field(project, f"{address}@example.com", plan="paid")
    for _ in range(2):  # Two pages of two.
        advance(project.engine, "spring", NOW)
    journey = summary(project.engine, "spring").journey
    assert journey is not None
    assert (journey.goal, journey.active) == (3, 3)


def two_at_a_time(connection: sa.Connection, campaign_id: int, *, after: int) -> object:
    from postroad.store.enrolments.pending import enrolment_page

    return enrolment_page(connection, campaign_id, after=after, limit=2)


def test_a_date_that_is_over_is_passed_at_once_and_one_that_moved_is_waited_for(project: CampaignProject) -> None:
    text = SHORT.replace("  - wait: 3d\n", '  - wait_until: "date(trial_ends)"\n')
    people = ["past@example.com,,,,,2026-05-01", "moved@example.com,,,,,2026-05-06", "bad@example.com,,,,,soon"]
    launched(project, people, text)
    settle(project, "hello", S.ACCEPTED)
    assert step_on(project, NOW) == 1
    assert places(project) == {
        "bad": "wait-until-2 exited no-date",
        "moved": "wait-until-2 active",
        "past": "again active",
    }
    set_field(project, "moved@example.com", trial_ends="2026-05-10")
    assert step_on(project, datetime.fromisoformat("2026-05-06T00:10:00+00:00")) == 0
    assert places(project)["moved"] == "wait-until-2 active"
    assert step_on(project, datetime.fromisoformat("2026-05-10T00:00:00+00:00")) == 1


def test_a_chain_of_conditions_is_walked_in_one_pass(project: CampaignProject) -> None:
    steps = "".join(
        f"  - if: \"country = 'X{n}'\"\n    then:\n      - {{email: e{n}, subject: Hi, text: hello.txt}}\n"
        for n in range(30)
    )
    text = SHORT[: SHORT.index("  - wait")] + steps + "  - {email: end, subject: Hi, text: hello.txt}\n"
    launched(project, PEOPLE[:1], text)
    settle(project, "hello", S.ACCEPTED)
    assert step_on(project, NOW) == 1
    assert places(project) == {"big": "end active"}


def test_a_condition_sees_the_step_before(project: CampaignProject) -> None:
    text = SHORT.replace("  - wait: 3d\n", "  - if: \"accepted('hello', within => 1h)\"\n    then:\n      - wait: 1d\n")
    launched(project, PEOPLE[:1], text)
    settle(project, "hello", S.ACCEPTED)
    step_on(project, NOW)
    assert places(project) == {"big": "wait-3 active"}


def test_a_reply_and_an_unsubscribe_end_the_journey_at_once(project: CampaignProject) -> None:
    launched(project)
    settle(project, "hello", S.ACCEPTED)
    step_on(project, NOW)
    with write(project.engine) as connection:
        touch = "SELECT touch.id FROM touch JOIN recipient ON recipient.id = recipient_id WHERE address LIKE 'big%'"
        touch_id = connection.execute(sa.text(touch)).scalar_one()
        unsubscribe_touch(connection, touch_id, "test", NOW, UnsubscribeScope.EVERYWHERE)
    assert places(project)["big"] == "wait-2 exited suppressed"
    assert places(project)["german"] == "wait-2 active"


def test_a_suppressed_recipient_exits_at_the_next_email(project: CampaignProject) -> None:
    launched(project, PEOPLE[:1], SHORT)
    settle(project, "hello", S.ACCEPTED)
    step_on(project, NOW)
    suppress_now(project.engine, ["@example.com"], SuppressionReason.MANUAL, "test", NOW)
    step_on(project, NOW + 3 * DAY)
    assert places(project) == {"big": "again exited suppressed"}


def test_a_paused_campaign_moves_no_enrolment_and_a_long_pause_does_not_expire_its_emails(
    project: CampaignProject,
) -> None:
    launched(project, PEOPLE[:1], SHORT)
    settle(project, "hello", S.ACCEPTED)
    step_on(project, NOW)
    set_state(project, CampaignState.PAUSED)
    assert step_on(project, NOW + 30 * DAY) == 0
    assert places(project) == {"big": "wait-2 active"}
    set_state(project, CampaignState.RUNNING)
    assert step_on(project, NOW + 30 * DAY) == 1
    assert {at for step, *_, at in project.touches() if step == "again"} == {NOW + 30 * DAY}


def test_cancelling_ends_enrolments_and_maintenance_completes_an_interrupted_one(project: CampaignProject) -> None:
    launched(project)
    settle(project, "hello", S.ACCEPTED, of="big%")
    step_on(project, NOW)
    set_state(project, CampaignState.CANCELLED)
    complete_cancellations(project.engine, NOW)
    assert places(project) == {
        "big": "wait-2 exited cancelled",
        "german": "hello exited cancelled",
        "other": "hello exited cancelled",
    }
    cancel_in_ledger(project.engine, "spring", NOW)  # Idempotent.
    assert step_on(project, NOW + 9 * DAY) == 0


def test_the_enrolments_of_an_old_campaign_are_deleted_with_its_touches_and_its_sums_stay(
    project: CampaignProject,
) -> None:
    launched(project)
    settle(project, "hello", S.BOUNCED)
    step_on(project, NOW)
    assert finish_if_done(project.engine, "spring", NOW)
    before = summary(project.engine, "spring")
    with write(project.engine) as connection:
        add_newest_touch(connection)
    later = NOW + 400 * DAY
    assert delete_old(project.engine, Before(later, later, later), later).touches == 3
    assert places(project) == {}
    assert summary(project.engine, "spring") == before


def test_a_forecast_of_a_journey_tells_when_its_first_email_is_due_at_the_earliest(project: CampaignProject) -> None:
    project.fill(PEOPLE, header=HEADER)
    project.apply(JOURNEY.replace("steps:\n", "steps:\n  - wait: 2h\n"))
    seen = forecast(project.engine, "spring", NOW)
    assert (seen.recipients, [group.due_at for group in seen.due]) == (3, [NOW + timedelta(hours=2)])


def test_the_next_time_of_a_journey_is_that_of_a_wait(project: CampaignProject) -> None:
    launched(project, PEOPLE[:1])
    assert summary(project.engine, "spring").next_due_at == NOW
    settle(project, "hello", S.ACCEPTED)
    step_on(project, NOW)
    assert summary(project.engine, "spring").next_due_at == NOW + 3 * DAY


def test_new_suppressions_end_planned_emails_before_enrolments_move(project: CampaignProject) -> None:
    launched(project, PEOPLE[:1])
    suppress_now(project.engine, ["big@example.com"], SuppressionReason.MANUAL, "test", NOW)
    assert step_on(project, NOW) == 0
    assert places(project) == {"big": "hello exited suppressed"}
    with read(project.engine) as connection:
        campaign_id = find_campaign(connection, "spring").id or 0
    assert end_suppressed(project.engine, campaign_id, NOW) == 0

"""Launch freezes the audience and plans each first email. It is idempotent."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from threading import Thread

import pytest
import sqlalchemy as sa

from postroad.campaign.launch_forecast import forecast
from postroad.campaign.plan import LaunchResult, launch
from postroad.campaign.status import campaigns_in, finish_if_done, running_campaigns, summary
from postroad.errors import StateError
from postroad.store.campaign import CampaignState
from postroad.store.engine import write
from tests.campaign.planned import AT_NINE, ROWS, due, run_at_once, set_state, suppress
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject
from tests.campaign.tables import row_counts
from tests.postgresql import wait_until_blocked


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

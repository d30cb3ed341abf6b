"""What happens between the request, the approval and the launch: a second run, a change, a crash with an import."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.app.approval import LaunchPermission, LaunchRequest, PermissionResult, request_approval
from postroad.app.context import open_context
from postroad.campaign import plan
from postroad.campaign.approval import launch_size
from postroad.campaign.approval_decision import Decider, approve_in
from postroad.campaign.launch_rules import LaunchRules
from postroad.campaign.plan import launch
from postroad.errors import StateError, UsageError
from postroad.settings import ApprovalSettings
from postroad.store.approval import withdraw
from postroad.store.campaign import CampaignState
from postroad.store.engine import write
from tests.campaign.project import CAMPAIGN, CONFIG, NOW, CampaignProject
from tests.campaign.test_approval import ADA, ALWAYS, ROWS, approve, ask, campaign_of, last, refuse
from tests.kit.clock import FakeClock

SECOND = "[approval]\nsecond_person = true\n"
RULES = ApprovalSettings(second_person=True)
MORE = [f"late{n}@example.com,,Late {n}" for n in range(30)]


async def request(project: CampaignProject, run_id: str, by: str) -> PermissionResult:
    wanted = LaunchRequest(campaign="spring", asked_by=by, run_id=run_id)
    async with open_context(project.settings, FakeClock(int(NOW.timestamp() * 1000)), engine=project.engine) as context:
        return await request_approval(context, wanted)


async def test_a_run_of_an_unknown_person_takes_over_no_request_that_needs_a_second_one(
    project: CampaignProject,
) -> None:
    """Otherwise the person who asked first could approve it."""
    project.configure(CONFIG + SECOND)
    project.fill(ROWS)
    project.apply(ALWAYS)
    await request(project, "run-1", "carl")
    with pytest.raises(StateError, match="it is not known who asks"):
        await request(project, "run-2", "")
    assert (last(project).requested_by, last(project).run_id) == ("carl", "run-1")
    with pytest.raises(StateError, match="another person has to approve it"):
        approve(project, Decider(name="carl", source="test"), RULES)
    taken = await request(project, "run-2", "dora")
    assert (taken.permission, taken.replaced_run) == (LaunchPermission.WAITING, "run-1")
    assert not approve(project, Decider(name="carl", source="test"), RULES)


async def test_a_request_of_an_unknown_person_is_approved_by_no_second_one(project: CampaignProject) -> None:
    """It was made before the settings demanded a second person."""
    project.fill(ROWS)
    project.apply(ALWAYS)
    await request(project, "run-1", "")
    with pytest.raises(StateError, match="it is not known who asked for it"):
        approve(project, rules=RULES)
    assert not approve(project)


@pytest.mark.parametrize("name", [" ", "a\x00b", "a\x1b[2J"])
async def test_the_name_of_who_asks_is_one_line(project: CampaignProject, name: str) -> None:
    project.apply(ALWAYS)
    project.fill(ROWS)
    with pytest.raises(UsageError, match="the person who asks is not valid"):
        await request(project, "run-1", name)


def test_a_request_that_the_person_was_not_shown_is_not_approved(project: CampaignProject) -> None:
    """The page of the first one is still open when the campaign is changed and its launch requested again."""
    project.fill(ROWS)
    project.apply(ALWAYS)
    shown = ask(project).id
    with write(project.engine) as connection:
        withdraw(connection, shown or 0, "the campaign changed", NOW)
    project.apply(ALWAYS + "on_reply: continue\n")
    again = ask(project).id
    for seen in (shown, 0):
        with write(project.engine) as connection, pytest.raises(StateError, match="was requested again after"):
            approve_in(connection, ApprovalSettings(), "spring", ADA, NOW, seen=seen)
    with pytest.raises(StateError, match="needs an approval"):
        launch(project.engine, "spring", NOW)
    with write(project.engine) as connection:
        assert not approve_in(connection, ApprovalSettings(), "spring", ADA, NOW, seen=again).already
    assert launch(project.engine, "spring", NOW).audience == 20


def test_a_reason_may_contain_any_text(project: CampaignProject) -> None:
    project.apply(ALWAYS)
    ask(project)
    assert not refuse(project, reason="not\x00now \udcff")
    assert last(project).reason == "not�now ?"


def change_during_the_count(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]
) -> None:
    """Have something happen between the count of the people and the transaction that begins the launch."""

    def counted(*args: object) -> object:
        size = launch_size(*args)  # type: ignore[arg-type]
        monkeypatch.setattr(plan, "launch_size", launch_size)
        change()
        return size

    monkeypatch.setattr(plan, "launch_size", counted)


@pytest.mark.parametrize("before", [CAMPAIGN, CAMPAIGN + "approval: {from: 30}\n"])
def test_a_rule_that_is_applied_during_the_count_holds(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    project.fill(ROWS)
    project.apply(before)
    change_during_the_count(project, monkeypatch, lambda: project.apply(ALWAYS))
    with pytest.raises(StateError, match="was changed while the people of its launch were counted"):
        launch(project.engine, "spring", NOW)
    assert project.touches() == []
    with pytest.raises(StateError, match="to 20 people needs an approval"):
        launch(project.engine, "spring", NOW)


def test_an_audience_that_is_exchanged_during_the_count_is_counted_again(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = CAMPAIGN.replace("name: people", "name: people\n  where: \"name = 'Reader 1'\"") + "approval: {from: 5}\n"
    project.fill(ROWS)
    project.apply(few)
    change_during_the_count(project, monkeypatch, lambda: project.apply(CAMPAIGN + "approval: {from: 5}\n"))
    with pytest.raises(StateError, match="was changed while"):
        launch(project.engine, "spring", NOW)
    with pytest.raises(StateError, match="to 20 people needs an approval"):
        launch(project.engine, "spring", NOW)
    assert project.touches() == []


def interrupt(project: CampaignProject, monkeypatch: pytest.MonkeyPatch, rules: LaunchRules) -> None:
    """Begin a launch whose process is killed before it has frozen anyone."""

    def killed(*args: object, **named: object) -> None:
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(plan, "plan_touches", killed)
        with pytest.raises(InterruptedError):
            launch(project.engine, "spring", NOW, rules=rules)
    assert campaign_of(project).freezing_at == NOW


@pytest.mark.parametrize("approved", [True, False])
def test_an_interrupted_launch_does_not_reach_more_people_than_it_was_allowed_for(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch, approved: bool
) -> None:
    rules = LaunchRules(approval=ApprovalSettings(above=5 if approved else 40))
    project.fill(ROWS)
    project.apply()
    if approved:
        ask(project, rules=rules.approval)
        approve(project)
    interrupt(project, monkeypatch, rules)
    project.fill(MORE)
    for _ in range(2):
        with pytest.raises(StateError, match=f"for at most {22 if approved else 44} people, and now they are 50"):
            launch(project.engine, "spring", NOW + timedelta(days=1), rules=rules)
    assert project.touches() == []
    with project.engine.begin() as connection:
        late = "SELECT id FROM recipient WHERE address LIKE 'late%'"
        connection.execute(sa.text(f"DELETE FROM audience_member WHERE recipient_id IN ({late})"))
    assert launch(project.engine, "spring", NOW + timedelta(days=1), rules=rules).audience == 20
    assert campaign_of(project).state is CampaignState.RUNNING

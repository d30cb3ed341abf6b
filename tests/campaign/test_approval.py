"""A launch begins only with the approval that the campaign or the settings demand, for the campaign as it is."""

from __future__ import annotations

import ast
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.campaign.approval import (
    LaunchSize,
    campaign_digest,
    launch_size,
    needs_approval,
    threshold,
)
from postroad.campaign.approval_decision import Decider, approve_in, is_same_person, refuse_in
from postroad.campaign.launch_rules import LaunchRules
from postroad.campaign.plan import launch
from postroad.errors import ConfigError, StateError, UsageError
from postroad.settings import ApprovalSettings, Settings
from postroad.store.approval import Approval, ApprovalState, add_approval, last_approval, list_approvals
from postroad.store.campaign import Campaign, CampaignState, find_campaign
from postroad.store.engine import read, write
from tests.campaign.project import CAMPAIGN, CONFIG, NOW, CampaignProject

ROOT = Path(__file__).parents[2]
ALWAYS = CAMPAIGN + "approval: always\n"
ADA, BOB = Decider(name="ada", source="test"), Decider(name="bob", source="test")
ROWS = [f"r{n}@example.com,,Reader {n}" for n in range(20)]


def campaign_of(project: CampaignProject) -> Campaign:
    with read(project.engine) as connection:
        return find_campaign(connection, "spring")


def ask(project: CampaignProject, by: str = "carl", rules: ApprovalSettings | None = None) -> Approval:
    """Add an open request for the campaign as it is, without a context of queues."""
    size = launch_size(project.engine, "spring", NOW, rules)
    with write(project.engine) as connection:
        campaign = find_campaign(connection, "spring", for_update=True)
        assert campaign.id is not None
        return add_approval(
            connection,
            Approval(
                campaign_id=campaign.id,
                state=ApprovalState.OPEN,
                digest=campaign_digest(connection, campaign),
                people=size.people,
                summary="",
                requested_at=NOW,
                requested_by=by,
                expires_at=NOW + timedelta(days=7),
            ),
        )


def approve(project: CampaignProject, by: Decider = ADA, rules: ApprovalSettings | None = None) -> bool:
    with write(project.engine) as connection:
        return approve_in(connection, rules or ApprovalSettings(), "spring", by, NOW).already


def refuse(project: CampaignProject, by: Decider = ADA, reason: str | None = None) -> bool:
    with write(project.engine) as connection:
        return refuse_in(connection, "spring", by, reason, NOW).already


def last(project: CampaignProject) -> Approval:
    with read(project.engine) as connection:
        found = last_approval(connection, find_campaign(connection, "spring").id or 0)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("own", "rules", "wanted"),
    [(None, None, None), (None, 5, 5), (3, None, 3), (3, 5, 3), (9, 5, 5), (0, 5, 0), (5, 0, 0)],
)
def test_the_stricter_rule_holds(own: int | None, rules: int | None, wanted: int | None) -> None:
    campaign = Campaign(name="spring", audience_id=1, sender_id=1, time_zone="UTC", created_at=NOW, approval_above=own)
    settings = ApprovalSettings(above=rules)
    assert threshold(campaign, settings) == wanted
    if wanted is not None:
        assert not needs_approval(campaign, settings, LaunchSize(wanted))
        assert needs_approval(campaign, settings, LaunchSize(wanted + 1))
        assert needs_approval(campaign, settings, LaunchSize(None))


def test_the_daily_seed_mail_needs_no_approval() -> None:
    campaign = Campaign(name="seeds", audience_id=1, sender_id=1, time_zone="UTC", created_at=NOW, warmup=True)
    assert threshold(campaign, ApprovalSettings(above=0)) is None


def test_a_launch_without_its_approval_freezes_nothing(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply(ALWAYS)
    with pytest.raises(StateError, match="to 20 people needs an approval") as caught:
        launch(project.engine, "spring", NOW)
    assert "postroad campaign approve spring" in (caught.value.remedy or "")
    assert project.touches() == []
    assert campaign_of(project).freezing_at is None
    assert campaign_of(project).state is CampaignState.DRAFT


def test_an_open_request_lets_nothing_begin(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply(ALWAYS)
    ask(project)
    with pytest.raises(StateError, match="needs an approval"):
        launch(project.engine, "spring", NOW)
    assert project.touches() == []


def test_an_approved_launch_begins_once_and_records_it(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply(ALWAYS)
    ask(project)
    assert not approve(project)
    assert launch(project.engine, "spring", NOW).audience == 20
    used = last(project)
    assert (used.state, used.decided_by, used.decided_from, used.used_at) == ("approved", "ada", "test", NOW)
    assert launch(project.engine, "spring", NOW).already
    with pytest.raises(StateError, match="was used by a launch"):
        approve(project)
    with pytest.raises(StateError, match="was used by a launch"):
        refuse(project)


@pytest.mark.parametrize(("above", "begins"), [(20, True), (19, False)])
def test_the_settings_may_demand_it_from_a_number_of_people(project: CampaignProject, above: int, begins: bool) -> None:
    project.fill(ROWS)
    project.apply()
    rules = ApprovalSettings(above=above)
    if begins:
        assert launch(project.engine, "spring", NOW, rules=LaunchRules(approval=rules)).audience == 20
    else:
        with pytest.raises(StateError, match="needs an approval"):
            launch(project.engine, "spring", NOW, rules=LaunchRules(approval=rules))


def _change_text(project: CampaignProject) -> None:
    project.template("hello.txt", "Hello again.\n\n{{ postal_address }}\n{{ unsubscribe_url }}\n")
    project.apply(ALWAYS)


def _change_subject(project: CampaignProject) -> None:
    project.apply(ALWAYS.replace("subject: Hello", "subject: Hi"))


def _change_segment(project: CampaignProject) -> None:
    project.apply(ALWAYS.replace("  name: people\n", "  name: people\n  where: \"name <> 'x'\"\n"))


def _change_audience(project: CampaignProject) -> None:
    project.fill(ROWS, audience="others")
    project.apply(ALWAYS.replace("name: people", "name: others"))


def _change_hours(project: CampaignProject) -> None:
    project.apply(ALWAYS + "window: {from: '09:00', to: '18:00'}\n")


def _change_sender(project: CampaignProject) -> None:
    project.configure(CONFIG.replace('address = "news@example.com"', 'address = "other@example.com"'))
    project.apply(ALWAYS)


def _grow(project: CampaignProject) -> None:
    project.fill([f"new{n}@example.com,,New" for n in range(3)])  # 15 %


@pytest.mark.parametrize(
    "change",
    [_change_text, _change_subject, _change_segment, _change_audience, _change_hours, _change_sender, _grow],
)
def test_what_changed_after_the_approval_has_to_be_approved_again(
    project: CampaignProject, change: Callable[[CampaignProject], None]
) -> None:
    project.fill(ROWS)
    project.apply(ALWAYS)
    ask(project)
    approve(project)
    change(project)
    with pytest.raises(StateError, match="by ada does not apply any more"):
        launch(project.engine, "spring", NOW)
    assert project.touches() == []


def test_an_unchanged_apply_and_a_little_growth_keep_the_approval(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply(ALWAYS)
    ask(project)
    approve(project)
    project.apply(ALWAYS)
    project.fill([f"new{n}@example.com,,New" for n in range(2)])  # 10 %
    assert launch(project.engine, "spring", NOW).audience == 22


def test_a_request_that_was_changed_meanwhile_cannot_be_approved(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply(ALWAYS)
    ask(project)
    _change_text(project)
    with pytest.raises(StateError, match="was changed after carl asked"):
        approve(project)


def test_the_steps_of_an_approved_campaign_cannot_change_while_it_runs(project: CampaignProject) -> None:
    project.fill(ROWS)
    more = "  - wait: 1d\n  - email: again\n    subject: Again\n    text: hello.txt\napproval: always\n"
    project.apply(CAMPAIGN + more)
    ask(project)
    approve(project)
    launch(project.engine, "spring", NOW)
    project.apply(CAMPAIGN + more)
    with pytest.raises(StateError, match="ada approved the launch of campaign spring, so its steps cannot change"):
        project.apply(CAMPAIGN + more.replace("subject: Again", "subject: Something else"))


def test_an_approval_expires(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply(ALWAYS)
    ask(project)
    approve(project)
    with pytest.raises(StateError, match="it expired"):
        launch(project.engine, "spring", NOW + timedelta(days=7))
    assert launch(project.engine, "spring", NOW + timedelta(days=6, hours=23)).audience == 20


def test_the_first_decision_counts_and_an_approval_can_be_taken_back(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply(ALWAYS)
    with pytest.raises(StateError, match="no launch of campaign spring waits"):
        approve(project)
    ask(project)
    assert (approve(project), approve(project, BOB)) == (False, True)
    assert last(project).decided_by == "ada"
    assert (refuse(project, BOB, "not now"), refuse(project, ADA)) == (False, True)
    assert (last(project).decided_by, last(project).reason) == ("bob", "not now")
    with pytest.raises(StateError, match="was refused by bob: not now"):
        approve(project)
    with pytest.raises(StateError, match="needs an approval"):
        launch(project.engine, "spring", NOW)
    ask(project)  # A refused campaign is a draft, and can be launched again.
    approve(project)
    assert launch(project.engine, "spring", NOW).audience == 20
    with read(project.engine) as connection:
        assert [one.approval.state for one in list_approvals(connection, "spring", 10)] == ["approved", "refused"]
        assert list_approvals(connection, "autumn", 10) == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ada", "ada", True),
        ("Ada", " ada ", True),
        ("ada@laptop", "ada", True),
        ("ada", "Ada@laptop", True),
        ("ada@one", "ada@two", False),
        ("ada", "bob", False),
    ],
)
def test_a_second_person_has_another_name(project: CampaignProject, one: str, other: str, same: bool) -> None:
    assert is_same_person(one, other) is same
    project.fill(ROWS)
    project.apply(ALWAYS)
    ask(project, by=one)
    rules = ApprovalSettings(second_person=True)
    if same:
        with pytest.raises(StateError, match="another person has to approve"):
            approve(project, Decider(name=other, source="test"), rules)
        assert not refuse(project, Decider(name=other, source="test"))  # The person who asked may always take it back.
    else:
        assert not approve(project, Decider(name=other, source="test"), rules)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1b[2J", "x" * 201])
def test_a_name_is_one_line(project: CampaignProject, name: str) -> None:
    project.apply(ALWAYS)
    ask(project)
    with pytest.raises(UsageError, match="not valid"):
        approve(project, Decider(name=name, source="test"))


def test_a_campaign_that_recipients_enter_later_has_no_number(project: CampaignProject) -> None:
    project.fill(ROWS)
    project.apply(CAMPAIGN + "entry: joined\n")
    assert launch_size(project.engine, "spring", NOW, ApprovalSettings(above=1_000)).people is None
    with pytest.raises(StateError, match="an unknown number of people"):
        launch(project.engine, "spring", NOW, rules=LaunchRules(approval=ApprovalSettings(above=1_000)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("approval: sometimes\n", "neither always nor a mapping"),
        ("approval: {from: -1}\n", "greater than or equal to 0"),
        ("approval: {from: many}\n", "whole number"),
        ("approval: {above: 5}\n", "above"),
    ],
)
def test_a_faulty_field_is_named_with_its_line(project: CampaignProject, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match="line 10") as caught:
        project.apply(CAMPAIGN + text)
    assert says in str(caught.value)


def test_the_settings_are_read_and_bounded(project: CampaignProject) -> None:
    project.configure(CONFIG + '[approval]\nabove = 5000\nsecond_person = true\nvalid_ms = "2d"\ngrowth = 0\n')
    assert project.settings.approval == ApprovalSettings(
        above=5_000, second_person=True, valid_ms=2 * 86_400_000, growth=0
    )
    for fault in ("above = -1", 'valid_ms = "1s"', "growth = 11"):
        (project.folder / "postroad.toml").write_text(f"[approval]\n{fault}\n")
        with pytest.raises(ConfigError, match="approval"):
            Settings.load(project.folder / "postroad.toml")


def test_two_pending_requests_of_a_campaign_are_impossible(project: CampaignProject) -> None:
    project.apply(ALWAYS)
    ask(project)
    with pytest.raises(sa.exc.IntegrityError):
        ask(project)


def test_every_launch_of_the_product_names_the_rule() -> None:
    """A caller that forgets it would launch without the rule of the settings."""
    calls = []
    for folder in ("src", "tasks", "flows"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _is_launch(node):
                    calls += [(path.name, {keyword.arg for keyword in node.keywords})]
    assert sorted(name for name, _ in calls) == ["campaign.py", "run.py", "trial.py"]
    assert all("rules" in keywords for _, keywords in calls)


def _is_launch(node: ast.Call) -> bool:
    """Return whether this calls `launch` of the plan, directly or in a thread."""
    called = getattr(node.func, "id", getattr(node.func, "attr", ""))
    in_thread = called == "to_thread" and bool(node.args) and getattr(node.args[0], "id", "") == "launch"
    return (called == "launch" and bool(node.args)) or in_thread

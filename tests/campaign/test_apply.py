"""Applying a campaign.yaml: it is created, updated while it is a draft, and unchanged after the launch."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest
import sqlalchemy as sa

from postroad.campaign.apply import apply, apply_files
from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import launch
from postroad.errors import ConfigError, StateError
from postroad.settings import Settings
from postroad.store.campaign import CampaignState, OnReply, find_campaign, steps_of
from postroad.store.engine import read, write
from tests.campaign.project import CAMPAIGN, CONFIG, NOW, TEXT, CampaignProject
from tests.campaign.tables import row_counts
from tests.postgresql import wait_until_blocked

SEQUEL = "  - wait: 2d\n  - email: again\n    subject: Again\n    text: hello.txt\n    at: 9:00\n"


def step_names(engine: sa.Engine, name: str = "spring") -> list[str]:
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        assert campaign.id is not None
        return [step.name for step in steps_of(connection, campaign.id)]


def test_a_campaign_is_created_as_a_draft(project: CampaignProject) -> None:
    campaign = project.apply(CAMPAIGN + SEQUEL + "class: urgent\n")
    assert (campaign.state, campaign.job_class, campaign.time_zone) == (CampaignState.DRAFT, "urgent", "UTC")
    assert campaign.created_at == NOW
    assert step_names(project.engine) == ["hello", "wait-2", "again"]
    with read(project.engine) as connection:
        found = find_campaign(connection, "spring")
        assert (found.id, found.audience_id, found.launched_at) == (campaign.id, campaign.audience_id, None)
        sender = connection.execute(sa.text("SELECT name, address, route, bounce_domain FROM sender")).one()
        assert tuple(sender) == ("news", "news@example.com", "relay", None)
        settings = steps_of(connection, found.id or 0)[0].settings
    assert settings == {"subject": "Hello {{ name|default('you') }}", "text": TEXT, "html": None, "at": None}


def test_applying_again_changes_nothing(project: CampaignProject) -> None:
    first = project.apply()
    before = row_counts(project.engine)
    again = project.apply(now=NOW + timedelta(days=1))
    assert (again.id, again.created_at) == (first.id, NOW)
    assert row_counts(project.engine) == before


def test_a_draft_is_updated(project: CampaignProject) -> None:
    first = project.apply()
    project.configure(CONFIG.replace('name = "News"', 'name = "The News"'))
    project.template("friends.csv", "email\n")
    text = CAMPAIGN.replace("name: people", "name: friends\n  file: friends.csv") + SEQUEL + "time_zone: Asia/Tokyo\n"
    changed = project.apply(text)
    assert changed.id == first.id
    assert changed.time_zone == "Asia/Tokyo"
    assert changed.audience_file == str(project.folder / "friends.csv")
    assert step_names(project.engine) == ["hello", "wait-2", "again"]
    assert row_counts(project.engine)["step"] == 3
    with read(project.engine) as connection:
        assert connection.execute(sa.text("SELECT display_name FROM sender")).scalar_one() == "The News"
        audience = connection.execute(sa.text("SELECT id FROM audience WHERE name = 'friends'")).scalar_one()
    assert changed.audience_id == audience


def test_odd_characters_of_a_template_are_kept(project: CampaignProject) -> None:
    odd = TEXT + 'O\'Brien "x" \\ :name %s {% raw %}{{ x }}{% endraw %} 👩‍🚀 \u2028 \x07\n'
    project.template("hello.txt", odd)
    campaign = project.apply()
    with read(project.engine) as connection:
        assert steps_of(connection, campaign.id or 0)[0].settings["text"] == odd


def test_an_unknown_sender_is_an_error_and_nothing_is_stored(project: CampaignProject) -> None:
    before = row_counts(project.engine)
    with pytest.raises(ConfigError, match=r"no sender named 'sales' \(known: news") as caught:
        project.apply(CAMPAIGN.replace("sender: news", "sender: sales"))
    assert caught.value.where == str(project.folder / "postroad.toml")
    assert "[senders.sales]" in (caught.value.remedy or "")
    assert row_counts(project.engine) == before


def launched(project: CampaignProject) -> None:
    project.fill(["a@example.com,,Ada"])
    project.apply()
    launch(project.engine, "spring", NOW)


CHANGES = {
    "another name of a step": CAMPAIGN.replace("email: hello", "email: hi"),
    "another time of day": CAMPAIGN + "    at: 9:00\n",
    "another sender": CAMPAIGN.replace("sender: news", "sender: shop"),
    "another audience": CAMPAIGN.replace("name: people", "name: friends"),
    "another class": CAMPAIGN + "class: urgent\n",
    "another time zone": CAMPAIGN + "time_zone: Asia/Tokyo\n",
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
def test_a_launched_campaign_does_not_change(project: CampaignProject, changed: str) -> None:
    project.configure(CONFIG + CONFIG[CONFIG.index("[senders.news]") :].replace("news", "shop"))
    launched(project)
    before = row_counts(project.engine)
    with pytest.raises(StateError, match="campaign spring was launched") as caught:
        project.apply(changed)
    assert caught.value.where == str(project.folder / "campaign.yaml")
    assert row_counts(project.engine) == before
    assert step_names(project.engine) == ["hello"]


def test_a_launched_campaign_is_applied_again_without_harm(project: CampaignProject) -> None:
    launched(project)
    campaign = project.apply()
    assert (campaign.state, campaign.launched_at) == (CampaignState.RUNNING, NOW)


@pytest.mark.parametrize("state", [state for state in CampaignState if state is not CampaignState.DRAFT])
def test_a_step_with_people_is_frozen_in_every_state_but_draft(project: CampaignProject, state: CampaignState) -> None:
    launched(project)
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = :state"), {"state": state.value})
    with pytest.raises(StateError):
        project.apply(CAMPAIGN.replace("email: hello", "email: hi"))


def test_the_sender_of_a_launched_campaign_is_updated(project: CampaignProject) -> None:
    launched(project)
    project.configure(CONFIG.replace('name = "News"', 'name = "The News"'))
    project.apply()
    with read(project.engine) as connection:
        assert connection.execute(sa.text("SELECT display_name FROM sender")).scalar_one() == "The News"


def test_find_campaign_suggests_known_names(project: CampaignProject) -> None:
    project.apply()
    with read(project.engine) as connection, pytest.raises(StateError, match=r"named 'winter'\nKnown: spring\."):
        find_campaign(connection, "winter")


def test_apply_files_applies_every_file_of_the_setting(project: CampaignProject) -> None:
    for name in ("one", "two"):
        folder = project.folder / "campaigns" / name
        folder.mkdir(parents=True)
        (folder / "hello.txt").write_text(TEXT, encoding="utf-8")
        (folder / "campaign.yaml").write_text(CAMPAIGN.replace("name: spring", f"name: {name}"), encoding="utf-8")
    absolute = project.folder / "campaigns" / "two" / "*.yaml"
    project.configure(f'campaigns = ["campaigns/one/*.yaml", "{absolute}"]\n' + CONFIG)
    assert [campaign.name for campaign in apply_files(project.engine, project.settings, NOW)] == ["one", "two"]


def test_a_missing_file_of_the_setting_is_an_error(project: CampaignProject) -> None:
    project.configure('campaigns = ["campaigns/*.yaml"]\n' + CONFIG)
    assert apply_files(project.engine, project.settings, NOW) == []
    project.configure('campaigns = ["campaigns/spring.yaml"]\n' + CONFIG)
    with pytest.raises(ConfigError, match=r"'campaigns/spring\.yaml' names no file") as caught:
        apply_files(project.engine, project.settings, NOW)
    assert caught.value.where == f"{project.folder / 'postroad.toml'}, campaigns"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_concurrent_applies_create_one_campaign(project: CampaignProject) -> None:
    file = read_campaign(project.campaign_file())
    failures: list[BaseException] = []

    def work() -> None:
        try:
            apply(project.engine, project.settings, file, NOW)
        except BaseException as error:
            failures.append(error)

    for _ in range(5):
        threads = [Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert row_counts(project.engine)["campaign"] == row_counts(project.engine)["step"] == 1
        with write(project.engine) as connection:
            for table in ("step", "campaign", "sender"):
                connection.execute(sa.text(f"DELETE FROM {table}"))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_an_apply_during_a_launch_sees_the_launch(project: CampaignProject) -> None:
    project.fill(["a@example.com,,Ada"])
    project.apply()
    changed = read_campaign(project.campaign_file(CAMPAIGN.replace("email: hello", "email: hi")))
    failures: list[StateError] = []

    def work() -> None:
        with pytest.raises(StateError) as caught:
            apply(project.engine, project.settings, changed, NOW)
        failures.append(caught.value)

    with write(project.engine) as connection:
        connection.execute(sa.text("SELECT 1 FROM campaign FOR UPDATE"))
        connection.execute(sa.text("UPDATE campaign SET state = 'running'"))
        thread = Thread(target=work)
        thread.start()
        wait_until_blocked(project.engine)
    thread.join()
    assert len(failures) == 1
    assert step_names(project.engine) == ["hello"]


def test_a_relative_campaign_file_gives_an_absolute_audience_file(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.campaign_file(CAMPAIGN.replace("  name: people", "  name: people\n  file: people.csv"))
    project.template("people.csv", "email\n")
    monkeypatch.chdir(project.folder)
    campaign = apply(project.engine, project.settings, read_campaign(Path("campaign.yaml")), NOW)
    assert campaign.audience_file == str(project.folder / "people.csv")


def test_environment_variables_override_a_sender(project: CampaignProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROAD_SENDERS__NEWS__NAME", "From the environment")
    project.settings = Settings.load(project.folder / "postroad.toml")
    project.apply()
    with read(project.engine) as connection:
        assert connection.execute(sa.text("SELECT display_name FROM sender")).scalar_one() == "From the environment"


HOURS = "window: {from: 9:00, to: 17:00, days: [mon, tue, wed, thu, fri]}\n"


def test_frozen_touches_are_due_within_the_window(project: CampaignProject) -> None:
    project.apply(CAMPAIGN + HOURS)
    project.fill(
        ["a@example.com,Europe/London,A", "b@example.com,America/New_York,B", "c@example.com,Pacific/Auckland,C"]
    )
    launch(project.engine, "spring", NOW)  # a Monday, 08:30 UTC: 09:30 in London, 04:30 in New York, 20:30 in Auckland
    due = [f"{due_at:%d %H:%M}" for _, _, _, due_at in project.touches()]
    assert due == ["04 08:30", "04 13:00", "04 21:00"]


def test_the_hours_of_a_launched_campaign_cannot_change(project: CampaignProject) -> None:
    project.apply(CAMPAIGN + HOURS)
    project.fill(["a@example.com,Europe/London,A"])
    launch(project.engine, "spring", NOW)
    project.apply(CAMPAIGN + HOURS)
    with pytest.raises(StateError, match="window"):
        project.apply(CAMPAIGN)


def test_on_reply_is_stored_and_may_change_after_the_launch(project: CampaignProject) -> None:
    assert project.apply().on_reply is OnReply.STOP
    launched(project)
    assert (
        project.apply(CAMPAIGN.replace("sender: news", "sender: news\non_reply: continue")).on_reply is OnReply.CONTINUE
    )
    with read(project.engine) as connection:
        assert find_campaign(connection, "spring").on_reply is OnReply.CONTINUE


def test_on_reply_has_two_values(project: CampaignProject) -> None:
    with pytest.raises(ConfigError, match="on_reply"):
        project.apply(CAMPAIGN.replace("sender: news", "sender: news\non_reply: maybe"))

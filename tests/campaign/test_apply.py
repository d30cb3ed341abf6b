"""A campaign.yaml in the store: made, brought up to date, and left alone once it was launched."""

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
from tests.campaign.house import CAMPAIGN, CONFIG, NOW, TEXT, House
from tests.campaign.tables import row_counts
from tests.postgresql import wait_until_blocked

SEQUEL = "  - wait: 2d\n  - email: again\n    subject: Again\n    text: hello.txt\n    at: 9:00\n"


def step_names(engine: sa.Engine, name: str = "spring") -> list[str]:
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        assert campaign.id is not None
        return [step.name for step in steps_of(connection, campaign.id)]


def test_a_campaign_is_made_as_a_draft(house: House) -> None:
    campaign = house.apply(CAMPAIGN + SEQUEL + "class: urgent\n")
    assert (campaign.state, campaign.job_class, campaign.time_zone) == (CampaignState.DRAFT, "urgent", "UTC")
    assert campaign.created_at == NOW
    assert step_names(house.engine) == ["hello", "wait-2", "again"]
    with read(house.engine) as connection:
        found = find_campaign(connection, "spring")
        assert (found.id, found.audience_id, found.launched_at) == (campaign.id, campaign.audience_id, None)
        sender = connection.execute(sa.text("SELECT name, address, route, bounce_domain FROM sender")).one()
        assert tuple(sender) == ("news", "news@example.com", "relay", None)
        settings = steps_of(connection, found.id or 0)[0].settings
    assert settings == {"subject": "Hello {{ name|default('you') }}", "text": TEXT, "html": None, "at": None}


def test_applying_again_changes_nothing(house: House) -> None:
    first = house.apply()
    before = row_counts(house.engine)
    again = house.apply(now=NOW + timedelta(days=1))
    assert (again.id, again.created_at) == (first.id, NOW)
    assert row_counts(house.engine) == before


def test_a_draft_is_brought_up_to_date(house: House) -> None:
    first = house.apply()
    house.configure(CONFIG.replace('name = "News"', 'name = "The News"'))
    house.template("friends.csv", "email\n")
    text = CAMPAIGN.replace("name: people", "name: friends\n  file: friends.csv") + SEQUEL + "time_zone: Asia/Tokyo\n"
    changed = house.apply(text)
    assert changed.id == first.id
    assert changed.time_zone == "Asia/Tokyo"
    assert changed.audience_file == str(house.folder / "friends.csv")
    assert step_names(house.engine) == ["hello", "wait-2", "again"]
    assert row_counts(house.engine)["step"] == 3
    with read(house.engine) as connection:
        assert connection.execute(sa.text("SELECT display_name FROM sender")).scalar_one() == "The News"
        audience = connection.execute(sa.text("SELECT id FROM audience WHERE name = 'friends'")).scalar_one()
    assert changed.audience_id == audience


def test_odd_characters_of_a_template_are_kept(house: House) -> None:
    odd = TEXT + 'O\'Brien "x" \\ :name %s {% raw %}{{ x }}{% endraw %} 👩‍🚀 \u2028 \x07\n'
    house.template("hello.txt", odd)
    campaign = house.apply()
    with read(house.engine) as connection:
        assert steps_of(connection, campaign.id or 0)[0].settings["text"] == odd


def test_a_sender_that_is_not_in_the_settings_is_said_and_nothing_is_kept(house: House) -> None:
    before = row_counts(house.engine)
    with pytest.raises(ConfigError, match=r"no sender named 'sales' \(known: news") as caught:
        house.apply(CAMPAIGN.replace("sender: news", "sender: sales"))
    assert caught.value.where == str(house.folder / "postroad.toml")
    assert "[senders.sales]" in (caught.value.remedy or "")
    assert row_counts(house.engine) == before


def launched(house: House) -> None:
    house.fill(["a@example.com,,Ada"])
    house.apply()
    launch(house.engine, "spring", NOW)


CHANGES = {
    "a step more": CAMPAIGN + SEQUEL,
    "another subject": CAMPAIGN.replace("subject: Hello", "subject: Hi"),
    "another name of a step": CAMPAIGN.replace("email: hello", "email: hi"),
    "another time of day": CAMPAIGN + "    at: 9:00\n",
    "another sender": CAMPAIGN.replace("sender: news", "sender: shop"),
    "another audience": CAMPAIGN.replace("name: people", "name: friends"),
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
def test_a_launched_campaign_does_not_change(house: House, changed: str) -> None:
    house.configure(CONFIG + CONFIG[CONFIG.index("[senders.news]") :].replace("news", "shop"))
    launched(house)
    before = row_counts(house.engine)
    with pytest.raises(StateError, match="campaign spring was launched") as caught:
        house.apply(changed)
    assert caught.value.where == str(house.folder / "campaign.yaml")
    assert row_counts(house.engine) == before
    assert step_names(house.engine) == ["hello"]


def test_a_template_that_changed_is_a_change_of_its_step(house: House) -> None:
    launched(house)
    house.template("hello.txt", TEXT + "P.S.\n")
    with pytest.raises(StateError, match="was launched"):
        house.apply()


def test_a_launched_campaign_is_applied_again_without_harm(house: House) -> None:
    launched(house)
    campaign = house.apply()
    assert (campaign.state, campaign.launched_at) == (CampaignState.RUNNING, NOW)


@pytest.mark.parametrize("state", [state for state in CampaignState if state is not CampaignState.DRAFT])
def test_steps_are_frozen_in_every_state_but_draft(house: House, state: CampaignState) -> None:
    launched(house)
    with write(house.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = :state"), {"state": state.value})
    with pytest.raises(StateError):
        house.apply(CAMPAIGN + SEQUEL)


def test_the_sender_of_a_launched_campaign_is_brought_up_to_date(house: House) -> None:
    launched(house)
    house.configure(CONFIG.replace('name = "News"', 'name = "The News"'))
    house.apply()
    with read(house.engine) as connection:
        assert connection.execute(sa.text("SELECT display_name FROM sender")).scalar_one() == "The News"


def test_find_campaign_says_which_there_are(house: House) -> None:
    house.apply()
    with read(house.engine) as connection, pytest.raises(StateError, match=r"named 'winter'\nKnown: spring\."):
        find_campaign(connection, "winter")


def test_apply_files_takes_every_file_that_the_setting_names(house: House) -> None:
    for name in ("one", "two"):
        folder = house.folder / "campaigns" / name
        folder.mkdir(parents=True)
        (folder / "hello.txt").write_text(TEXT, encoding="utf-8")
        (folder / "campaign.yaml").write_text(CAMPAIGN.replace("name: spring", f"name: {name}"), encoding="utf-8")
    absolute = house.folder / "campaigns" / "two" / "*.yaml"
    house.configure(f'campaigns = ["campaigns/one/*.yaml", "{absolute}"]\n' + CONFIG)
    assert [campaign.name for campaign in apply_files(house.engine, house.settings, NOW)] == ["one", "two"]


def test_a_file_that_the_setting_names_and_is_not_there_is_said(house: House) -> None:
    house.configure('campaigns = ["campaigns/*.yaml"]\n' + CONFIG)
    assert apply_files(house.engine, house.settings, NOW) == []
    house.configure('campaigns = ["campaigns/spring.yaml"]\n' + CONFIG)
    with pytest.raises(ConfigError, match=r"'campaigns/spring\.yaml' names no file") as caught:
        apply_files(house.engine, house.settings, NOW)
    assert caught.value.where == f"{house.folder / 'postroad.toml'}, campaigns"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_processes_that_apply_one_file_at_once_make_one_campaign(house: House) -> None:
    file = read_campaign(house.campaign_file())
    failures: list[BaseException] = []

    def work() -> None:
        try:
            apply(house.engine, house.settings, file, NOW)
        except BaseException as error:
            failures.append(error)

    for _ in range(5):
        threads = [Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert row_counts(house.engine)["campaign"] == row_counts(house.engine)["step"] == 1
        with write(house.engine) as connection:
            for table in ("step", "campaign", "sender"):
                connection.execute(sa.text(f"DELETE FROM {table}"))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_an_apply_that_comes_while_the_campaign_is_launched_sees_that_it_was(house: House) -> None:
    house.fill(["a@example.com,,Ada"])
    house.apply()
    changed = read_campaign(house.campaign_file(CAMPAIGN + SEQUEL))
    failures: list[StateError] = []

    def work() -> None:
        with pytest.raises(StateError) as caught:
            apply(house.engine, house.settings, changed, NOW)
        failures.append(caught.value)

    with write(house.engine) as connection:
        connection.execute(sa.text("SELECT 1 FROM campaign FOR UPDATE"))
        connection.execute(sa.text("UPDATE campaign SET state = 'running'"))
        thread = Thread(target=work)
        thread.start()
        wait_until_blocked(house.engine)
    thread.join()
    assert len(failures) == 1
    assert step_names(house.engine) == ["hello"]


def test_a_relative_campaign_file_gives_an_absolute_audience_file(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.campaign_file(CAMPAIGN.replace("  name: people", "  name: people\n  file: people.csv"))
    house.template("people.csv", "email\n")
    monkeypatch.chdir(house.folder)
    campaign = apply(house.engine, house.settings, read_campaign(Path("campaign.yaml")), NOW)
    assert campaign.audience_file == str(house.folder / "people.csv")


def test_the_settings_of_the_environment_are_those_of_a_sender(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROAD_SENDERS__NEWS__NAME", "From the environment")
    house.settings = Settings.load(house.folder / "postroad.toml")
    house.apply()
    with read(house.engine) as connection:
        assert connection.execute(sa.text("SELECT display_name FROM sender")).scalar_one() == "From the environment"


HOURS = "window: {from: 9:00, to: 17:00, days: [mon, tue, wed, thu, fri]}\n"


def test_what_a_launch_freezes_is_due_within_the_hours_of_each_recipient(house: House) -> None:
    house.apply(CAMPAIGN + HOURS)
    house.fill(
        ["a@example.com,Europe/London,A", "b@example.com,America/New_York,B", "c@example.com,Pacific/Auckland,C"]
    )
    launch(house.engine, "spring", NOW)  # a Monday, 08:30 UTC: 09:30 in London, 04:30 in New York, 20:30 in Auckland
    due = [f"{due_at:%d %H:%M}" for _, _, _, due_at in house.touches()]
    assert due == ["04 08:30", "04 13:00", "04 21:00"]


def test_the_hours_of_a_launched_campaign_cannot_change(house: House) -> None:
    house.apply(CAMPAIGN + HOURS)
    house.fill(["a@example.com,Europe/London,A"])
    launch(house.engine, "spring", NOW)
    house.apply(CAMPAIGN + HOURS)
    with pytest.raises(StateError, match="window"):
        house.apply(CAMPAIGN)


def test_what_a_reply_does_is_kept_and_may_change_after_the_launch(house: House) -> None:
    assert house.apply().on_reply is OnReply.STOP
    launched(house)
    assert (
        house.apply(CAMPAIGN.replace("sender: news", "sender: news\non_reply: continue")).on_reply is OnReply.CONTINUE
    )
    with read(house.engine) as connection:
        assert find_campaign(connection, "spring").on_reply is OnReply.CONTINUE


def test_what_a_reply_does_is_one_of_two_words(house: House) -> None:
    with pytest.raises(ConfigError, match="on_reply"):
        house.apply(CAMPAIGN.replace("sender: news", "sender: news\non_reply: maybe"))

"""Recipients enter a running journey as they join its audience, do something, or their date comes. Each enters once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.campaign import journey_entry, journey_pass
from postroad.campaign.audience import import_file
from postroad.campaign.definition import read_campaign
from postroad.campaign.launch_forecast import forecast
from postroad.campaign.plan import advance, launch
from postroad.campaign.preflight import check
from postroad.campaign.status import finish_if_done, summary
from postroad.errors import ConfigError, StateError
from postroad.mail.token import TokenSigner
from postroad.operations.campaigns import close
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.entrants import Joined, joined_members, settled_until
from postroad.store.ledger import TouchState
from postroad.store.recipient_event import NewEvent, record_events
from postroad.store.types import UtcDateTime
from tests.campaign.journeys import HEADER, places, set_field, settle, step_on
from tests.campaign.planned import run_at_once
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
JOINED = CAMPAIGN + "entry: joined\n"
SIGNED_UP = CAMPAIGN + "entry: \"event('signed-up')\"\n"
TRIAL_ENDS = CAMPAIGN + 'entry: "date(trial_ends) - 7d"\n'


def join(project: CampaignProject, at: datetime, *names: str, header: str = HEADER, more: str = ",,,,,") -> None:
    """Import recipients into the audience at a time."""
    path = project.folder / f"joined-{at:%d%H%M%S}-{'-'.join(names)[:80]}.csv"
    path.write_text("\n".join([header, *(f"{name}@example.com{more}" for name in names)]) + "\n", encoding="utf-8")
    import_file(project.engine, "people", path, at)


def begin(project: CampaignProject, text: str, at: datetime = NOW) -> None:
    project.apply(text)
    launch(project.engine, "spring", at)


def happen(project: CampaignProject, name: str, at: datetime, *people: str, fields: str = "{}") -> None:
    with write(project.engine) as connection:
        record_events(connection, [NewEvent(f"{one}@example.com", name, at, fields) for one in people])


def test_who_joins_after_the_launch_enters_once(project: CampaignProject) -> None:
    join(project, NOW - DAY, "before")
    begin(project, JOINED)
    assert places(project) == {}
    assert step_on(project, NOW) == 0
    join(project, NOW + HOUR, "ada", "bob")
    assert step_on(project, NOW + HOUR) == 2
    assert places(project) == {"ada": "hello active", "bob": "hello active"}
    join(project, NOW + 2 * HOUR, "before", "ada", "cleo")  # Two of them are members already.
    assert step_on(project, NOW + 3 * HOUR) == 1
    assert set(places(project)) == {"ada", "bob", "cleo"}
    assert step_on(project, NOW + 30 * DAY) == 0
    due = {address: at for _, address, _, at in project.touches()}
    assert due["ada@example.com"] == NOW + HOUR


def test_members_at_the_launch_enter_too_if_the_entry_says_so(project: CampaignProject) -> None:
    join(project, NOW - DAY, "before")
    begin(project, CAMPAIGN + "entry: {on: joined, existing: true}\n")
    assert places(project) == {"before": "hello active"}
    join(project, NOW + HOUR, "after")
    assert step_on(project, NOW + HOUR) == 1


def test_who_an_import_adds_while_the_launch_freezes_is_not_lost(project: CampaignProject) -> None:
    """The import began before the launch, so its members joined before, and some are committed after the freeze."""
    join(project, NOW - 2 * HOUR, "prompt")
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE audience_import SET finished_at = NULL"))
    begin(project, CAMPAIGN + "entry: {on: joined, existing: true}\n")
    assert places(project) == {"prompt": "hello active"}
    join(project, NOW - 2 * HOUR, "prompt", "slow")  # The next slice.
    assert step_on(project, NOW + HOUR) == 1
    assert places(project) == {"prompt": "hello active", "slow": "hello active"}


def test_waits_count_from_the_time_of_joining(project: CampaignProject) -> None:
    begin(project, JOINED.replace("steps:\n", "steps:\n  - wait: 2h\n"))
    join(project, NOW + HOUR, "ada")
    assert step_on(project, NOW + 2 * HOUR) == 0
    assert step_on(project, NOW + 3 * HOUR) == 1
    assert {at for *_, at in project.touches()} == {NOW + 3 * HOUR}


def test_a_member_who_is_committed_late_enters(project: CampaignProject) -> None:
    begin(project, JOINED)
    join(project, NOW + 40 * HOUR, "prompt")
    assert step_on(project, NOW + 40 * HOUR) == 1
    join(project, NOW + 40 * HOUR - timedelta(minutes=30), "late")  # The transaction began before the pass.
    assert step_on(project, NOW + 40 * HOUR + timedelta(minutes=10)) == 1


def test_the_rows_of_a_running_import_are_read_until_it_is_finished(project: CampaignProject) -> None:
    begin(project, JOINED)
    join(project, NOW + HOUR, "first")
    with write(project.engine) as connection:  # It began then, and is running.
        connection.execute(sa.text("UPDATE audience_import SET finished_at = NULL"))
    join(project, NOW + 5 * HOUR, "other")
    assert step_on(project, NOW + 5 * HOUR) == 2
    with read(project.engine) as connection:
        assert settled_until(connection, 1, NOW + 5 * HOUR) == NOW + HOUR
    join(project, NOW + HOUR, "first", "slow")  # The next slice of the running import.
    assert step_on(project, NOW + 6 * HOUR) == 1
    with write(project.engine) as connection:
        finished = sa.text("UPDATE audience_import SET finished_at = :at")
        connection.execute(finished.bindparams(sa.bindparam("at", type_=UtcDateTime())), {"at": NOW + 6 * HOUR})
    with read(project.engine) as connection:
        assert settled_until(connection, 1, NOW + 9 * HOUR) == NOW + 8 * HOUR
        assert joined_members(connection, 1, Joined(NOW + 5 * HOUR, 2**62), 10) == []


def test_a_member_enters_with_an_event_after_the_launch(project: CampaignProject) -> None:
    join(project, NOW - DAY, "ada", "bob", "early")
    project.fill(["stranger@example.com,,S"], audience="others")
    happen(project, "signed-up", NOW - HOUR, "early")
    begin(project, SIGNED_UP)
    happen(project, "signed-up", NOW + HOUR, "ada", "stranger")
    happen(project, "paid", NOW + HOUR, "bob")
    assert step_on(project, NOW + HOUR) == 1
    assert places(project) == {"ada": "hello active"}
    happen(project, "signed-up", NOW + 2 * HOUR, "ada", "bob", "bob")
    assert step_on(project, NOW + 2 * HOUR) == 1
    assert set(places(project)) == {"ada", "bob"}


def test_history_that_is_imported_after_the_launch_enters_no_one(project: CampaignProject) -> None:
    join(project, NOW - DAY, "ada", "bob", "cleo")
    begin(project, SIGNED_UP)
    happen(project, "signed-up", NOW - 300 * DAY, "ada", "bob")
    happen(project, "signed-up", NOW - timedelta(seconds=1), "cleo")
    assert step_on(project, NOW + HOUR) == 0
    assert project.touches() == []
    happen(project, "signed-up", NOW + HOUR, "bob")
    assert step_on(project, NOW + HOUR) == 1
    assert places(project) == {"bob": "hello active"}


def test_an_event_that_is_recorded_before_its_time_enters_at_its_time(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock of another host is ahead, or an appointment is recorded, and other events follow meanwhile."""
    monkeypatch.setattr(journey_entry, "LATE_IDS", 2)
    monkeypatch.setattr(journey_entry, "PAGE", 2)
    join(project, NOW - DAY, "ada", "bob", "cleo", "dora", "eve")
    happen(project, "signed-up", NOW + 4 * DAY, "eve")  # Before the launch.
    begin(project, SIGNED_UP)
    happen(project, "signed-up", NOW + HOUR + timedelta(minutes=3), "ada")
    happen(project, "signed-up", NOW + 3 * DAY, "bob", "cleo", "bob")
    for number in range(5):
        happen(project, "signed-up", NOW + HOUR, f"stranger{number}")
        happen(project, "signed-up", NOW + HOUR, "dora")
    assert step_on(project, NOW + HOUR) == 1
    assert step_on(project, NOW + HOUR + timedelta(minutes=5)) == 1
    assert set(places(project)) == {"dora", "ada"}
    assert [step_on(project, NOW + days * DAY) for days in (2, 3, 4, 5)] == [0, 2, 1, 0]
    assert set(places(project)) == {"dora", "ada", "bob", "cleo", "eve"}


def test_an_event_that_enters_may_have_a_condition(project: CampaignProject) -> None:
    join(project, NOW - DAY, "ada", "bob")
    begin(project, CAMPAIGN + "entry: \"event('paid', where => number(amount) > 100)\"\n")
    happen(project, "paid", NOW + HOUR, "ada", fields='{"amount": "99"}')
    happen(project, "paid", NOW + HOUR, "bob", fields='{"amount": "101"}')
    assert step_on(project, NOW + HOUR) == 1
    assert places(project) == {"bob": "hello active"}


def test_a_member_enters_when_the_date_comes(project: CampaignProject) -> None:
    # NOW is 4 May 2026, 08:30.
    for name, date in (("soon", "2026-05-12"), ("later", "2026-05-30"), ("past", "2026-05-10"), ("bad", "tomorrow")):
        join(project, NOW - DAY, name, more=f",,,,,{date}")
    begin(project, TRIAL_ENDS)
    assert step_on(project, NOW + HOUR) == 0
    assert step_on(project, NOW + 16 * HOUR) == 1  # 5 May, 00:30: seven days before the 12th.
    assert places(project) == {"soon": "hello active"}
    set_field(project, "past@example.com", trial_ends="2026-05-16")
    assert step_on(project, NOW + 4 * DAY) == 0
    assert step_on(project, NOW + 5 * DAY) == 1
    assert step_on(project, NOW + 40 * DAY) == 1
    assert set(places(project)) == {"soon", "past", "later"}


def test_a_scan_for_dates_is_continued_by_the_next_pass(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journey_entry, "SCAN_PAGES", 1)
    monkeypatch.setattr(journey_entry, "PAGE", 2)
    names = [f"r{n}" for n in range(5)]
    join(project, NOW - DAY, *names, more=",,,,,2026-05-12")
    begin(project, TRIAL_ENDS)
    at = NOW + DAY
    assert [advance(project.engine, "spring", at + n * timedelta(minutes=5)) for n in range(4)] == [2, 2, 1, 0]
    assert set(places(project)) == set(names)


@pytest.mark.parametrize("text", [JOINED, SIGNED_UP, TRIAL_ENDS])
def test_a_campaign_that_is_open_finishes_only_after_it_is_closed(project: CampaignProject, text: str) -> None:
    begin(project, text)  # The audience is empty, and may be.
    later = NOW + 2 * DAY
    advance(project.engine, "spring", later)
    assert not finish_if_done(project.engine, "spring", later)
    journey = summary(project.engine, "spring").journey
    assert journey is not None
    assert journey.open
    close(project.engine, "spring", later)
    close(project.engine, "spring", later)  # Idempotent.
    join(project, later + HOUR, "late", more=",,,,,2026-05-13")
    happen(project, "signed-up", later + HOUR, "late")
    assert step_on(project, later + 2 * HOUR) == 0
    assert finish_if_done(project.engine, "spring", later + 2 * HOUR)
    with pytest.raises(StateError, match="is finished, so its entry is not open"):
        close(project.engine, "spring", later)


def test_recipients_who_entered_continue_after_the_campaign_is_closed(project: CampaignProject) -> None:
    begin(project, JOINED)
    join(project, NOW + HOUR, "ada")
    advance(project.engine, "spring", NOW + HOUR)
    close(project.engine, "spring", NOW + HOUR)
    assert not finish_if_done(project.engine, "spring", NOW + HOUR)
    settle(project, "hello", TouchState.ACCEPTED, NOW + HOUR)
    step_on(project, NOW + 2 * HOUR)
    assert places(project) == {"ada": "hello completed"}
    assert finish_if_done(project.engine, "spring", NOW + 2 * HOUR)


def test_a_campaign_of_its_launch_cannot_be_closed(project: CampaignProject) -> None:
    join(project, NOW - DAY, "ada")
    begin(project, CAMPAIGN)
    with pytest.raises(StateError, match="only at its launch"):
        close(project.engine, "spring", NOW)


def test_who_joined_during_a_pause_enters_when_the_campaign_runs_again(project: CampaignProject) -> None:
    begin(project, JOINED)
    set_state(project, CampaignState.PAUSED)
    join(project, NOW + HOUR, "ada")
    assert step_on(project, NOW + HOUR) == 0
    set_state(project, CampaignState.RUNNING)
    assert step_on(project, NOW + 3 * DAY) == 1
    assert {at for *_, at in project.touches()} == {NOW + 3 * DAY}  # Not long ago, which would expire it.


def set_state(project: CampaignProject, state: CampaignState) -> None:
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = :state"), {"state": state.value})


def crowd(project: CampaignProject, number: int) -> Sequence[str]:
    names = [f"r{n}" for n in range(number)]
    join(project, NOW + HOUR, *names)
    return names


def test_concurrent_passes_enrol_each_once(project: CampaignProject) -> None:
    begin(project, JOINED)
    names = crowd(project, 1_200)
    run_at_once([lambda: advance(project.engine, "spring", NOW + HOUR)] * 3)
    assert set(places(project)) == set(names)
    assert len(project.touches()) == len(names)


@pytest.mark.parametrize("name", ["enter", "plan_touches"])
def test_an_interrupted_entry_is_resumed(project: CampaignProject, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    begin(project, JOINED)
    names = crowd(project, 1_200)
    calls = 0
    original = getattr(journey_pass, name)

    def interrupted(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise InterruptedError
        return original(*args)

    with monkeypatch.context() as patch, suppress(InterruptedError):
        patch.setattr(journey_pass, name, interrupted)
        advance(project.engine, "spring", NOW + HOUR)
    assert len(places(project)) < len(names)
    advance(project.engine, "spring", NOW + HOUR)
    assert set(places(project)) == set(names)
    assert len(project.touches()) == len(names)


def test_preflight_accepts_an_empty_audience_that_recipients_will_join(project: CampaignProject) -> None:
    project.apply(JOINED)
    report = check(project.engine, project.settings, TokenSigner(SecretStr("x" * 32)), "spring")
    assert [finding.what for finding in report.findings if "is empty" in finding.what] == []


def test_a_forecast_counts_members_only_if_they_enter_at_the_launch(project: CampaignProject) -> None:
    join(project, NOW - DAY, "ada")
    for text, recipients in ((JOINED, 0), (CAMPAIGN + "entry: {on: joined, existing: true}\n", 1), (CAMPAIGN, 1)):
        project.apply(text)
        assert forecast(project.engine, "spring", NOW).recipients == recipients


WRONG = {
    "a word": ("entry: sometimes\n", r"entry: 'sometimes' is not an entry(.|\n)*Write launch, joined"),
    "two conditions": ("entry: \"event('a') and event('b')\"\n", r"entry: an entry is one event"),
    "an unknown function": ("entry: \"evnt('a')\"\n", r"entry, column 1"),
    "existing without joined": ("entry: {on: launch, existing: true}\n", r"entry: existing is only for"),
    "an unknown field": ("entry: {when: joined}\n", r"when is not a field of entry"),
    "a number": ('entry: "5"\n', r"entry, column"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_a_wrong_entry_is_an_error_with_its_place(tmp_path: Path, case: tuple[str, str]) -> None:
    text, says = case
    (tmp_path / "hello.txt").write_text("{{ unsubscribe_url }} {{ postal_address }}")
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN.lstrip() + text)
    with pytest.raises(ConfigError, match=says) as caught:
        read_campaign(tmp_path / "campaign.yaml")
    assert "line 9" in str(caught.value)


def test_the_entry_of_a_launched_campaign_cannot_change(project: CampaignProject) -> None:
    begin(project, JOINED)
    project.apply(JOINED)
    with pytest.raises(StateError, match="its entry cannot change"):
        project.apply(SIGNED_UP)

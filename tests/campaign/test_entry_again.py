"""With `again` a recipient enters a journey several times: each entry has its own enrolment and its own messages."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import advance, launch
from postroad.campaign.status import summary
from postroad.errors import ConfigError
from postroad.store.engine import read, write
from postroad.store.enrolment import EnrolmentState
from postroad.store.enrolments.changes import Entrance, Place, enter
from postroad.store.enrolments.pending import enrolment_page
from postroad.store.ledger import TouchState
from postroad.store.person_history import enrolments_of
from tests.campaign.journeys import set_field, settle, step_on
from tests.campaign.planned import run_at_once
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject
from tests.campaign.test_entry import HOUR, begin, happen, join

DAY = timedelta(days=1)
S = TouchState
AGAIN = CAMPAIGN + "entry: \"event('signed-up')\"\nagain: 30d\n"


def entries(project: CampaignProject) -> list[tuple[str, int, str]]:
    """Return person, number and state of each enrolment."""
    statement = sa.text(
        "SELECT recipient.address, enrolment.entry, enrolment.state FROM enrolment "
        "JOIN recipient ON recipient.id = enrolment.recipient_id ORDER BY recipient.address, enrolment.entry"
    )
    with read(project.engine) as connection:
        return [(row[0].partition("@")[0], row[1], row[2]) for row in connection.execute(statement)]


def touches(project: CampaignProject) -> list[tuple[int, str]]:
    with read(project.engine) as connection:
        rows = connection.execute(sa.text("SELECT request_id, state FROM touch ORDER BY id"))
        return [(-row[0] or 1, row[1]) for row in rows]


def finished_once(project: CampaignProject, text: str = AGAIN) -> None:
    """Have ada complete the journey that she entered an hour after the launch."""
    join(project, NOW - DAY, "ada")
    begin(project, text)
    happen(project, "signed-up", NOW + HOUR, "ada")
    assert step_on(project, NOW + HOUR) == 1
    settle(project, "hello", S.ACCEPTED, NOW + HOUR)
    assert step_on(project, NOW + HOUR) == 0
    assert entries(project) == [("ada", 1, "completed")]


def test_a_recipient_enters_again_after_the_time_and_gets_every_message_again(project: CampaignProject) -> None:
    finished_once(project)
    happen(project, "signed-up", NOW + 20 * DAY, "ada")
    assert step_on(project, NOW + 20 * DAY) == 0
    happen(project, "signed-up", NOW + 31 * DAY, "ada")
    assert step_on(project, NOW + 31 * DAY) == 1
    assert entries(project) == [("ada", 1, "completed"), ("ada", 2, "active")]
    assert touches(project) == [(1, "accepted"), (2, "planned")]
    settle(project, "hello", S.BOUNCED, NOW + 31 * DAY)
    assert step_on(project, NOW + 31 * DAY) == 0
    assert entries(project) == [("ada", 1, "completed"), ("ada", 2, "exited")]
    journey = summary(project.engine, "spring").journey
    assert journey is not None
    assert (journey.enrolled, journey.active, journey.completed, journey.exited) == (2, 0, 1, {"bounced": 1})
    happen(project, "signed-up", NOW + 62 * DAY, "ada")
    assert step_on(project, NOW + 62 * DAY) == 1
    assert entries(project)[-1] == ("ada", 3, "active")
    with read(project.engine) as connection:
        assert [one.entry for one in enrolments_of(connection, 1)] == [1, 2, 3]


def test_the_same_event_does_not_enter_twice_however_late_it_is_read_again(project: CampaignProject) -> None:
    finished_once(project)
    assert step_on(project, NOW + 90 * DAY) == 0
    assert entries(project) == [("ada", 1, "completed")]


def test_a_yearly_date_enters_every_year(project: CampaignProject) -> None:
    """The pass comes up to an hour after the date. The next date is a year after the last one, not after that pass."""
    join(project, NOW - DAY, "ada", more=",,,,,2026-05-12")
    begin(project, CAMPAIGN + 'entry: "date(trial_ends) - 7d"\nagain: 365d\n')
    assert step_on(project, NOW + 16 * HOUR) == 1  # 5 May, 00:30.
    settle(project, "hello", S.ACCEPTED, NOW + 16 * HOUR)
    step_on(project, NOW + 17 * HOUR)
    set_field(project, "ada@example.com", trial_ends="2027-05-12")
    assert step_on(project, NOW + 365 * DAY) == 0
    assert step_on(project, NOW + 365 * DAY + 16 * HOUR) == 1
    assert entries(project) == [("ada", 1, "completed"), ("ada", 2, "active")]


def test_an_event_that_is_recorded_long_before_it_happens_enters_once(project: CampaignProject) -> None:
    join(project, NOW - DAY, "ada")
    begin(project, AGAIN)
    happen(project, "signed-up", NOW + 40 * DAY, "ada")
    assert step_on(project, NOW + HOUR) == 0
    assert step_on(project, NOW + 40 * DAY) == 1
    settle(project, "hello", S.ACCEPTED, NOW + 40 * DAY)
    for day in (41, 69, 71):
        assert step_on(project, NOW + day * DAY) == 0
    assert entries(project) == [("ada", 1, "completed")]


def test_who_is_still_in_the_journey_does_not_enter_again(project: CampaignProject) -> None:
    join(project, NOW - DAY, "ada")
    begin(project, AGAIN)
    happen(project, "signed-up", NOW + HOUR, "ada")
    step_on(project, NOW + HOUR)
    happen(project, "signed-up", NOW + 40 * DAY, "ada")
    assert step_on(project, NOW + 40 * DAY) == 0
    assert entries(project) == [("ada", 1, "active")]


def test_without_again_a_recipient_enters_once(project: CampaignProject) -> None:
    finished_once(project, AGAIN.replace("again: 30d\n", ""))
    happen(project, "signed-up", NOW + 90 * DAY, "ada")
    assert step_on(project, NOW + 90 * DAY) == 0


def test_who_joins_again_enters_again(project: CampaignProject) -> None:
    begin(project, CAMPAIGN + "entry: joined\nagain: 30d\n")
    join(project, NOW + HOUR, "ada")
    step_on(project, NOW + HOUR)
    settle(project, "hello", S.ACCEPTED, NOW + HOUR)
    step_on(project, NOW + HOUR)
    with write(project.engine) as connection:
        connection.execute(sa.text("DELETE FROM audience_member"))
    join(project, NOW + 32 * DAY, "ada", "bob")
    assert step_on(project, NOW + 32 * DAY) == 2
    assert step_on(project, NOW + 32 * DAY + HOUR) == 0
    assert entries(project) == [("ada", 1, "completed"), ("ada", 2, "active"), ("bob", 1, "active")]


def test_a_goal_counts_for_the_entry_in_which_it_is_reached(project: CampaignProject) -> None:
    """The journey ended long ago without it, and the same person's later goal must not count twice."""
    finished_once(project, AGAIN + "goal: \"event('paid')\"\n")
    happen(project, "signed-up", NOW + 31 * DAY, "ada")
    assert step_on(project, NOW + 31 * DAY) == 1
    settle(project, "hello", S.ACCEPTED, NOW + 31 * DAY)
    step_on(project, NOW + 31 * DAY)
    happen(project, "paid", NOW + 32 * DAY, "ada")
    for hour in range(3):
        step_on(project, NOW + 32 * DAY + hour * HOUR)
    journey = summary(project.engine, "spring").journey
    assert journey is not None
    assert (journey.enrolled, journey.completed, journey.goal) == (2, 2, 1)


def test_a_date_that_comes_again_enters_again(project: CampaignProject) -> None:
    join(project, NOW - DAY, "ada", more=",,,,,2026-05-12")
    begin(project, CAMPAIGN + 'entry: "date(trial_ends) - 7d"\nagain: 30d\n')
    assert step_on(project, NOW + DAY) == 1
    settle(project, "hello", S.ACCEPTED, NOW + DAY)
    step_on(project, NOW + DAY)
    for day, planned in ((20, 0), (40, 1)):
        date = NOW + timedelta(days=day + 7)
        set_field(project, "ada@example.com", trial_ends=f"{date:%Y-%m-%d}")
        assert step_on(project, NOW + timedelta(days=day + 1)) == planned


def test_a_failed_message_of_an_earlier_entry_does_not_revive_it(project: CampaignProject) -> None:
    join(project, NOW - DAY, "ada")
    begin(project, AGAIN)
    happen(project, "signed-up", NOW + HOUR, "ada")
    step_on(project, NOW + HOUR)
    settle(project, "hello", S.DEAD, NOW + HOUR)
    step_on(project, NOW + HOUR)
    happen(project, "signed-up", NOW + 31 * DAY, "ada")
    assert step_on(project, NOW + 31 * DAY) == 1
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE touch SET state = 'accepted' WHERE request_id = 0"))
    step_on(project, NOW + 31 * DAY)
    assert entries(project) == [("ada", 1, "exited"), ("ada", 2, "active")]


def test_two_passes_at_once_make_one_entry(project: CampaignProject) -> None:
    finished_once(project)
    happen(project, "signed-up", NOW + 31 * DAY, "ada")
    run_at_once([lambda: advance(project.engine, "spring", NOW + 31 * DAY)] * 3)
    assert entries(project) == [("ada", 1, "completed"), ("ada", 2, "active")]
    assert touches(project) == [(1, "accepted"), (2, "planned")]


def test_an_entry_is_not_made_while_an_earlier_one_is_active(project: CampaignProject) -> None:
    join(project, NOW - DAY, "ada")
    begin(project, AGAIN)
    happen(project, "signed-up", NOW + HOUR, "ada")
    step_on(project, NOW + HOUR)
    with write(project.engine) as connection:
        step = connection.execute(sa.text("SELECT id FROM step")).scalar_one()
        assert enter(connection, 1, [Entrance(1, Place(step), NOW, entry=2)], NOW) == set()


def test_a_page_has_all_entries_of_its_last_recipient(project: CampaignProject) -> None:
    join(project, NOW - DAY, "ada", "bob")
    begin(project, AGAIN)
    with write(project.engine) as connection:
        step = connection.execute(sa.text("SELECT id FROM step")).scalar_one()
        ended = Place(step, EnrolmentState.COMPLETED)
        for entry in (1, 2, 3):
            enter(connection, 1, [Entrance(person, ended, NOW, entry=entry) for person in (1, 2)], NOW)
        first = enrolment_page(connection, 1, after=0, limit=2)
        assert [one.recipient_id for one in first] == [1, 1, 1]
        assert [one.recipient_id for one in enrolment_page(connection, 1, after=1, limit=2)] == [2, 2, 2]


def test_again_needs_an_entry_after_the_launch(project: CampaignProject) -> None:
    with pytest.raises(ConfigError, match="again needs an entry after the launch"):
        read_campaign(project.campaign_file(CAMPAIGN + "again: 30d\n"))


def test_each_event_is_held_against_its_own_condition(project: CampaignProject) -> None:
    join(project, NOW - DAY, "ada", "bob", "cleo")
    happen(project, "paid", NOW - HOUR, "ada", fields='{"amount": "500"}')
    begin(project, CAMPAIGN + "entry: \"event('paid', where => number(amount) > 100 and plan = 'pro')\"\n")
    happen(project, "paid", NOW + HOUR, "ada", fields='{"amount": "50", "plan": "pro"}')
    happen(project, "paid", NOW + HOUR, "bob", fields='{"amount": "101", "plan": "pro"}')
    happen(project, "paid", NOW + HOUR, "cleo", fields='{"amount": "101", "plan": "free"}')
    assert step_on(project, NOW + HOUR) == 1
    assert entries(project) == [("bob", 1, "active")]
    happen(project, "paid", NOW + 2 * HOUR, "cleo", fields='{"amount": "7"}')
    happen(project, "paid", NOW + 2 * HOUR, "cleo", fields='{"amount": "700", "plan": "pro"}')
    assert step_on(project, NOW + 2 * HOUR) == 1
    assert entries(project) == [("bob", 1, "active"), ("cleo", 1, "active")]


def test_the_launch_of_an_open_campaign_is_not_changed_by_again(project: CampaignProject) -> None:
    join(project, NOW - DAY, "ada")
    project.apply(CAMPAIGN + "entry: {on: joined, existing: true}\nagain: 30d\n")
    launch(project.engine, "spring", NOW)
    assert entries(project) == [("ada", 1, "active")]

"""Ends of a journey: a date that never comes, a reply after a failure, an outcome that is known later."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import advance
from postroad.campaign.status import finish_if_done, summary
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.enrolments.changes import end_after_reply
from postroad.store.ledger import TouchState as State
from postroad.store.ledger import record_reply
from postroad.store.touches.ending import end_sequence_of
from postroad.store.touches.results import record_returned, resolve_unknown
from postroad.store.touches.sending import Claim, admit, requeue_dead
from tests.campaign.journeys import SHORT, launched, places, settle
from tests.campaign.project import NOW, CampaignProject

DAY = timedelta(days=1)
SEQUENCE = SHORT.replace("exit: \"plan = 'paid'\"\n", "")
ONE = ["a@example.com,,trial,7,DE,"]
UNTIL = """
name: spring
sender: news
audience:
  name: people
{top}
steps:
  - email: hello
    subject: Hello
    text: hello.txt
  - wait_until: "{date}"
  - email: last
    subject: Last
    text: hello.txt
{bottom}
"""


@pytest.mark.parametrize(
    ("date", "top", "bottom", "value", "zone"),
    [
        ("date(trial_ends) + 7d", "", "", "9999-12-31", ""),
        ("date(trial_ends)", "", "", "9999-12-31T23:00-02:00", ""),
        ("date(trial_ends)", "", "", "9999-12-31T20:00", "Asia/Tokyo"),
        ("date(trial_ends)", "", "    at: '09:30'", "9999-12-31T10:00", ""),
        ("date(trial_ends)", "window: {from: '09:00', to: '00:00'}", "", "9999-12-31", ""),
        ("date(trial_ends)", "window: {from: '09:00', to: '17:00', days: [mon]}", "", "9999-12-31", ""),
        ("date(trial_ends)", "holidays: true", "", "9999-12-31", "Europe/Berlin"),
    ],
)
def test_a_date_that_never_comes_holds_no_other_recipient(
    project: CampaignProject, date: str, top: str, bottom: str, value: str, zone: str
) -> None:
    people = [f"never@example.com,{zone},trial,7,DE,{value}", "soon@example.com,,trial,7,DE,2026-05-06"]
    launched(project, people, UNTIL.format(date=date, top=top, bottom=bottom))
    settle(project, "hello", State.ACCEPTED)
    for day in (0, 1, 2, 9, 10):
        advance(project.engine, "spring", NOW + day * DAY)
    found = places(project)
    assert found["never"].startswith("wait-until")
    assert found["soon"].startswith("last")


def reply(project: CampaignProject, at: datetime) -> None:
    """Record a reply of the only recipient, as the handler of returned mail does."""
    with write(project.engine) as connection:
        row = connection.execute(sa.text("SELECT campaign_id, recipient_id FROM touch LIMIT 1")).one()
        end_after_reply(connection, row.recipient_id, row.campaign_id, at)
        end_sequence_of(connection, row.campaign_id, row.recipient_id, "reply", at)


def test_a_reply_to_an_email_of_unknown_outcome_ends_the_journey(project: CampaignProject) -> None:
    launched(project, ONE, SHORT)
    settle(project, "hello", State.UNKNOWN)
    advance(project.engine, "spring", NOW + DAY)
    with write(project.engine) as connection:
        assert record_returned(connection, 1, State.ACCEPTED, "reply", NOW + DAY)
    reply(project, NOW + DAY)
    for day in (2, 6):
        advance(project.engine, "spring", NOW + day * DAY)
    assert places(project) == {"a": "hello exited replied"}


@pytest.mark.parametrize("text", [SHORT, SEQUENCE], ids=["journey", "sequence"])
@pytest.mark.parametrize("outcome", [State.QUEUED, State.ACCEPTED])
def test_an_outcome_that_is_known_after_the_end_opens_the_campaign_again(
    project: CampaignProject, text: str, outcome: State
) -> None:
    launched(project, ONE, text)
    settle(project, "hello", State.UNKNOWN)
    advance(project.engine, "spring", NOW + DAY)
    assert finish_if_done(project.engine, "spring", NOW + DAY)
    with write(project.engine) as connection:
        assert resolve_unknown(connection, 1, outcome, by="me", now=NOW + DAY) == "spring"
    assert summary(project.engine, "spring").state is CampaignState.RUNNING
    if outcome is State.QUEUED:
        with write(project.engine) as connection:
            assert admit(connection, [Claim(1, 5)]) == {1}
        settle(project, "hello", State.ACCEPTED, NOW + DAY)
    for day in (2, 5):
        advance(project.engine, "spring", NOW + day * DAY)
    with read(project.engine) as connection:
        states = connection.execute(sa.text("SELECT state FROM touch ORDER BY id")).scalars().all()
    assert states == ["accepted", "planned"]


def test_an_outcome_after_which_nothing_follows_leaves_the_campaign_finished(project: CampaignProject) -> None:
    launched(project, ONE, SEQUENCE)
    settle(project, "hello", State.UNKNOWN)
    assert finish_if_done(project.engine, "spring", NOW + DAY)
    with write(project.engine) as connection:
        assert resolve_unknown(connection, 1, State.DEAD, by="me", now=NOW + DAY) == "spring"
    assert summary(project.engine, "spring").state is CampaignState.FINISHED


@pytest.mark.parametrize("text", [SHORT, SEQUENCE], ids=["journey", "sequence"])
def test_a_dead_letter_is_not_sent_again_to_a_recipient_who_replied(project: CampaignProject, text: str) -> None:
    launched(project, ONE, text)
    settle(project, "hello", State.ACCEPTED)
    for day in (1, 3):
        advance(project.engine, "spring", NOW + day * DAY)
    assert settle(project, "again", State.DEAD)
    reply(project, NOW + 4 * DAY)
    with write(project.engine) as connection:
        [hello, again] = connection.execute(sa.text("SELECT id FROM touch ORDER BY id")).scalars()
        record_reply(connection, hello, "digest", NOW + 4 * DAY)
        assert requeue_dead(connection, [again]) == {}

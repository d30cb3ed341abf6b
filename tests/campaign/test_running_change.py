"""The steps of a running campaign change only where no recipient is hurt, and versions are kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from threading import Thread

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.campaign.apply_running import extend_follow_ups
from postroad.campaign.journey_context import open_pass
from postroad.campaign.journey_pass import advance_enrolments
from postroad.campaign.message import StepKey, step_message
from postroad.campaign.plan import advance, launch
from postroad.campaign.status import finish_if_done
from postroad.errors import StateError
from postroad.mail.token import TokenSigner
from postroad.store.engine import read, write
from postroad.store.frequency import FrequencyRule
from postroad.store.ledger import TouchState
from postroad.store.touch_page import touch_page
from postroad.store.touches.sending import Claim, admit, mark_queued, rejected_claims, unqueue
from tests.campaign import journeys
from tests.campaign.journeys import JOURNEY, places, settle
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject
from tests.postgresql import wait_until_blocked

DAY = timedelta(days=1)
S = TouchState
SEQUEL = "  - wait: 2d\n  - email: again\n    subject: Again\n    text: hello.txt\n"
THIRD = "  - wait: 2d\n  - email: third\n    subject: Third\n    text: hello.txt\n"
TAIL = "  - wait: 1d\n  - email: goodbye\n    subject: Goodbye\n    text: hello.txt\n"


def launched(project: CampaignProject, text: str = CAMPAIGN, people: int = 3) -> None:
    project.fill([f"p{n}@example.com,,P" for n in range(people)])
    project.apply(text)
    launch(project.engine, "spring", NOW)


def rows(project: CampaignProject, sql: str, **values: object) -> list[tuple[object, ...]]:
    with read(project.engine) as connection:
        return [tuple(row) for row in connection.execute(sa.text(sql), values)]


def states(project: CampaignProject, step: str) -> Mapping[str, str]:
    found = rows(
        project,
        "SELECT recipient.address, touch.state FROM touch JOIN step ON step.id = touch.step_id "
        "JOIN recipient ON recipient.id = touch.recipient_id WHERE step.name = :step",
        step=step,
    )
    return {str(address).partition("@")[0]: str(state) for address, state in found}


def touch_ids(project: CampaignProject) -> list[int]:
    with read(project.engine) as connection:
        return list(connection.execute(sa.text("SELECT id FROM touch ORDER BY id")).scalars())


def test_content_changes_until_a_recipient_got_it(project: CampaignProject) -> None:
    launched(project)
    changed = CAMPAIGN.replace("subject: Hello", "subject: Hi")
    project.apply(changed)
    assert rows(project, "SELECT version FROM step") == [(2,)]
    [(old,)] = rows(project, "SELECT version FROM step_version")
    assert old == 1
    settle(project, "hello", S.ACCEPTED, of="p0%")
    project.apply(changed)  # It changes nothing.
    with pytest.raises(StateError, match="the content of step 'hello' cannot change: 1 person has got it"):
        project.apply(CAMPAIGN)
    settle(project, "hello", S.UNKNOWN, of="p1%")
    with pytest.raises(StateError, match="2 people have got it"):
        project.apply(CAMPAIGN)


@pytest.mark.parametrize("state", [S.DEFERRED, S.SUPPRESSED, S.CANCELLED, S.EXPIRED])
def test_a_message_without_a_reader_does_not_fix_the_content(project: CampaignProject, state: TouchState) -> None:
    launched(project)
    settle(project, "hello", state)
    project.apply(CAMPAIGN.replace("subject: Hello", "subject: Hi"))
    assert rows(project, "SELECT version FROM step") == [(2,)]


def test_a_template_that_changed_is_a_change_of_its_step(project: CampaignProject) -> None:
    launched(project)
    project.template("hello.txt", "Other.\n{{ postal_address }} {{ unsubscribe_url }}\n")
    project.apply()
    with read(project.engine) as connection:
        [(step_id,)] = connection.execute(sa.text("SELECT id FROM step")).all()
        signer = TokenSigner(SecretStr("k" * 32))
        texts = [
            step_message(connection, StepKey(step_id, None, version), signer, "https://post.example.com").message
            for version in (1, 2, None)
        ]
    bodies = [
        str(message.render({"name": "Ada"} | message.reserved_fields(1, "a@example.com")).text) for message in texts
    ]
    assert "Other" not in bodies[0]
    assert "Other" in bodies[1]
    assert bodies[2] == bodies[1]


def test_a_job_of_an_earlier_version_is_not_admitted_and_is_planned_again(project: CampaignProject) -> None:
    launched(project, people=1)
    [touch] = touch_ids(project)
    with write(project.engine) as connection:
        mark_queued(connection, [touch])
    project.apply(CAMPAIGN.replace("subject: Hello", "subject: Hi"))
    rule = FrequencyRule(caps={}, now=NOW)
    with write(project.engine) as connection:
        assert admit(connection, [Claim(touch, 5)], rule) == set()
        assert rejected_claims(connection, [touch])[touch].version == 2
        assert unqueue(connection, [touch]) == {touch}
    assert states(project, "hello") == {"p0": "planned"}
    with write(project.engine) as connection:
        assert admit(connection, [Claim(touch, 6, version=2)], rule) == {touch}
    assert rows(project, "SELECT state, version FROM touch") == [("sending", 2)]
    with pytest.raises(StateError, match="1 person has got it"):
        project.apply(CAMPAIGN)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_a_change_waits_for_an_admission_in_progress_and_is_refused_after_it(project: CampaignProject) -> None:
    launched(project, people=1)
    [touch] = touch_ids(project)
    errors: list[StateError] = []

    def change() -> None:
        with pytest.raises(StateError) as caught:
            project.apply(CAMPAIGN.replace("subject: Hello", "subject: Hi"))
        errors.append(caught.value)

    with write(project.engine) as connection:
        assert admit(connection, [Claim(touch, 5)]) == {touch}
        thread = Thread(target=change)
        thread.start()
        wait_until_blocked(project.engine)
    thread.join()
    assert "1 person has got it" in errors[0].message
    assert rows(project, "SELECT version FROM step") == [(1,)]


def test_new_steps_follow_for_who_gets_the_last_email_later(project: CampaignProject) -> None:
    launched(project)
    settle(project, "hello", S.ACCEPTED, of="p0%")
    later = NOW + DAY
    project.apply(CAMPAIGN + SEQUEL, now=later)
    assert not finish_if_done(project.engine, "spring", later)
    settle(project, "hello", S.ACCEPTED, later, of="p1%")  # Before a pass was made.
    assert advance(project.engine, "spring", later) == 1
    settle(project, "hello", S.ACCEPTED, later, of="p2%")
    assert advance(project.engine, "spring", later) == 1
    assert states(project, "again") == {"p1": "planned", "p2": "planned"}
    settle(project, "again", S.ACCEPTED, later + 2 * DAY)
    assert advance(project.engine, "spring", later + 3 * DAY) == 0
    assert finish_if_done(project.engine, "spring", later + 3 * DAY)


def test_steps_may_be_added_twice_before_a_pass(project: CampaignProject) -> None:
    launched(project, people=1)
    project.apply(CAMPAIGN + SEQUEL)
    project.apply(CAMPAIGN + SEQUEL + THIRD)
    for step in ("hello", "again"):
        settle(project, step, S.ACCEPTED, NOW + DAY)
        assert advance(project.engine, "spring", NOW + DAY) == 1
    assert states(project, "third") == {"p0": "planned"}


def test_an_interrupted_extension_continues(project: CampaignProject, monkeypatch: pytest.MonkeyPatch) -> None:
    launched(project, people=5)
    project.apply(CAMPAIGN + SEQUEL)
    monkeypatch.setattr(touch_page, "__kwdefaults__", {"after_request": 0, "limit": 2})
    real = extend_follow_ups.__globals__["extend_touches"]
    calls: list[int] = []

    def failing(*arguments: object) -> int:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError
        return int(real(*arguments))

    monkeypatch.setitem(extend_follow_ups.__globals__, "extend_touches", failing)
    with pytest.raises(RuntimeError):
        extend_follow_ups(project.engine, "spring")
    assert rows(project, "SELECT count(*) FROM touch WHERE follow_up") == [(2,)]
    extend_follow_ups(project.engine, "spring")
    assert rows(project, "SELECT count(*) FROM touch WHERE follow_up") == [(5,)]


REFUSED = {
    "a removed step": (
        CAMPAIGN + SEQUEL,
        CAMPAIGN,
        "step 'wait-2' cannot be removed: step 'wait-2' has 1 person in it",
    ),
    "a new step before the last": (
        CAMPAIGN + SEQUEL,
        CAMPAIGN
        + "  - email: between\n    subject: B\n    text: hello.txt\n"
        + SEQUEL.replace("wait: 2d", "wait: 2d\n    name: wait-2"),
        "'between' comes before step 'wait-2'",
    ),
    "a changed wait that people are in": (
        CAMPAIGN + SEQUEL,
        CAMPAIGN + SEQUEL.replace("2d", "5d"),
        "wait_ms of step 'wait-2' cannot change: step 'wait-2' has 1 person in it",
    ),
    "a changed time of day": (CAMPAIGN, CAMPAIGN + "    at: 9:00\n", "at of step 'hello' cannot change"),
    "another kind": (
        CAMPAIGN + SEQUEL,
        CAMPAIGN + SEQUEL.replace("wait: 2d", "email: wait-2\n    subject: W\n    text: hello.txt"),
        "step 'wait-2' cannot become email",
    ),
    "a journey": (
        CAMPAIGN,
        CAMPAIGN + "  - if: \"plan = 'a'\"\n    then:\n      - email: x\n        subject: X\n        text: hello.txt\n",
        "without enrolments",
    ),
}


@pytest.mark.parametrize(("before", "after", "message"), REFUSED.values(), ids=REFUSED)
def test_other_changes_are_refused_with_the_people(
    project: CampaignProject, before: str, after: str, message: str
) -> None:
    launched(project, before)
    settle(project, "hello", S.ACCEPTED, of="p0%")
    with pytest.raises(StateError, match=message):
        project.apply(after)
    assert rows(project, "SELECT revision FROM campaign") == [(0,)]


def test_a_wait_without_people_may_change(project: CampaignProject) -> None:
    launched(project, CAMPAIGN + SEQUEL, people=1)
    project.apply(CAMPAIGN + SEQUEL.replace("2d", "5d"))
    settle(project, "hello", S.ACCEPTED)
    advance(project.engine, "spring", NOW)
    assert rows(project, "SELECT count(*) FROM touch") == [(2,)]
    [due] = {at for step, *_, at in project.touches() if step == "again"}
    assert due == NOW + 5 * DAY


def test_steps_that_follow_a_journey_are_taken_by_who_is_in_it(project: CampaignProject) -> None:
    journeys.launched(project)
    settle(project, "hello", S.BOUNCED, of="other%")
    settle(project, "hello", S.ACCEPTED)
    advance(project.engine, "spring", NOW)
    project.apply(JOURNEY + TAIL)
    advance(project.engine, "spring", NOW + 3 * DAY)
    for step in ("big", "german"):
        settle(project, step, S.ACCEPTED, NOW + 3 * DAY)
    advance(project.engine, "spring", NOW + 20 * DAY)
    settle(project, "last", S.ACCEPTED, NOW + 20 * DAY)
    advance(project.engine, "spring", NOW + 20 * DAY)
    assert places(project) == {"big": "wait-9 active", "german": "wait-9 active", "other": "hello exited bounced"}


def test_a_condition_that_people_passed_is_refused_and_another_may_change(project: CampaignProject) -> None:
    journeys.launched(project)
    changed = JOURNEY.replace("number(seats) >= 5", "number(seats) >= 3")
    project.apply(changed)
    settle(project, "hello", S.ACCEPTED)
    advance(project.engine, "spring", NOW)
    project.apply(JOURNEY)  # They wait before it.
    advance(project.engine, "spring", NOW + 3 * DAY)
    with pytest.raises(
        StateError, match="if of step 'if-3' cannot change: step 'if-3' has 0 people in it, and 3 have passed"
    ):
        project.apply(changed)
    with pytest.raises(StateError, match="step 'big' has 1 person in it"):
        project.apply(JOURNEY.replace("email: big", "email: large"))


def test_a_pass_that_began_before_a_change_writes_nothing(project: CampaignProject) -> None:
    journeys.launched(project)
    settle(project, "hello", S.ACCEPTED)
    begun = open_pass(project.engine, "spring", NOW)
    project.apply(JOURNEY + TAIL)
    before = places(project)
    assert advance_enrolments(begun) == 0
    assert places(project) == before
    advance(project.engine, "spring", NOW)
    assert set(places(project).values()) == {"wait-2 active"}


@pytest.mark.parametrize("state", ["finished", "cancelled"])
def test_the_steps_of_an_ended_campaign_do_not_change(project: CampaignProject, state: str) -> None:
    launched(project)
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = :state"), {"state": state})
    with pytest.raises(StateError, match=f"was launched and is {state}"):
        project.apply(CAMPAIGN + SEQUEL)

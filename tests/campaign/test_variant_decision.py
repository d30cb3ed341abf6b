"""A part of the recipients tests the variants of a step, and the others get the winner, or their shares without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from postroad.campaign import variant_decision
from postroad.campaign.plan import advance, launch
from postroad.campaign.sequential_test import min_successes
from postroad.campaign.status import finish_if_done, summary
from postroad.campaign.variant_report import StepVariants, variant_report
from postroad.operations.campaigns import cancel_in_ledger
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState, record_reply
from postroad.store.recipient_event import NewEvent, record_events
from postroad.store.suppression import SuppressionReason, suppress_now
from postroad.store.touches.planning import give_variants
from postroad.store.types import UtcDateTime
from tests.campaign.journeys import places
from tests.campaign.planned import run_at_once
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject

DAY = timedelta(days=1)
PEOPLE = 700
TWO = "\n    variants:\n      - {name: a, subject: A, share: 50}\n      - {name: b, share: 50}\n"
REPLIED = CAMPAIGN.rstrip() + TWO + "    winner: {by: replied, decide: {after: 2d, at_most: 20%}}\n"
GOAL = "goal: \"event('paid')\"\n" + REPLIED.replace("replied", "goal").lstrip()
S = TouchState


def ready(project: CampaignProject, text: str = REPLIED, people: int = PEOPLE) -> None:
    project.fill(f"p{n}@example.com,,Name{n}" for n in range(people))
    project.apply(text)


def accept(project: CampaignProject, at: datetime = NOW) -> int:
    statement = sa.text("UPDATE touch SET state = 'accepted', settled_at = :at WHERE state IN ('planned', 'queued')")
    with write(project.engine) as connection:
        return connection.execute(statement.bindparams(sa.bindparam("at", type_=UtcDateTime())), {"at": at}).rowcount


def touches_of(project: CampaignProject, variant: str) -> list[tuple[int, str]]:
    """Return the accepted touches of a variant, with their recipients' addresses."""
    statement = sa.text(
        "SELECT touch.id, recipient.address FROM touch JOIN recipient ON recipient.id = touch.recipient_id "
        "WHERE touch.variant = :variant AND touch.state = 'accepted' ORDER BY touch.id"
    )
    with read(project.engine) as connection:
        return [tuple(row) for row in connection.execute(statement, {"variant": variant})]


def reply(project: CampaignProject, variant: str, number: int) -> None:
    with write(project.engine) as connection:
        for touch, _ in touches_of(project, variant)[:number]:
            record_reply(connection, touch, f"reply to {touch}", NOW)


def pay(project: CampaignProject, variant: str, number: int, at: datetime) -> None:
    with write(project.engine) as connection:
        record_events(connection, [NewEvent(who, "paid", at) for _, who in touches_of(project, variant)[:number]])


def report(project: CampaignProject) -> StepVariants:
    [step] = variant_report(project.engine, "spring").steps
    return step


def states(project: CampaignProject) -> dict[TouchState, int]:
    return {state: n for state, n in summary(project.engine, "spring").counts.items() if n}


def given(project: CampaignProject) -> Counter[str | None]:
    with read(project.engine) as connection:
        return Counter(connection.execute(sa.text("SELECT variant FROM touch")).scalars())


def test_at_most_the_share_tests_and_the_others_wait(project: CampaignProject) -> None:
    ready(project)
    launch(project.engine, "spring", NOW)
    assert states(project) == {S.AWAITING: PEOPLE * 8 // 10, S.PLANNED: PEOPLE * 2 // 10}
    found = given(project)
    assert found[None] == PEOPLE * 8 // 10
    assert found["a"] == pytest.approx(PEOPLE / 10, abs=25)
    decision = report(project).decision
    assert decision is not None
    assert (decision.planned, decision.tested) == (PEOPLE, PEOPLE * 2 // 10)
    assert (decision.begun_at, decision.decide_at) == (NOW, NOW + 2 * DAY)
    accept(project)
    assert advance(project.engine, "spring", NOW + DAY) == 0
    assert states(project) == {S.AWAITING: PEOPLE * 8 // 10, S.ACCEPTED: PEOPLE * 2 // 10}
    assert summary(project.engine, "spring").next_due_at == NOW + 2 * DAY
    assert not finish_if_done(project.engine, "spring", NOW + DAY)


def test_the_winner_goes_to_the_others_as_soon_as_it_is_known(project: CampaignProject) -> None:
    ready(project)
    launch(project.engine, "spring", NOW)
    accept(project)
    enough = min_successes({"a": 50, "b": 50})
    reply(project, "a", enough - 1)
    advance(project.engine, "spring", NOW + DAY / 2)
    assert states(project)[S.AWAITING] == PEOPLE * 8 // 10
    reply(project, "a", enough)
    advance(project.engine, "spring", NOW + DAY)
    assert S.AWAITING not in states(project)
    decision = report(project).decision
    assert decision is not None
    assert (decision.winner, decision.reason, decision.decided_at) == ("a", "evidence", NOW + DAY)
    assert decision.evidence["a"]["successes"] == enough
    assert decision.words.startswith("a won at 2026-05-05 08:30:00 UTC: replied after a ")
    found = given(project)
    assert found["b"] < PEOPLE / 10 + 25
    assert found["a"] == PEOPLE - found["b"]
    # What waited leaves now, and not when it was due, so that its job does not expire.
    with read(project.engine) as connection:
        times = sa.text("SELECT waited_until, count(*) AS n FROM touch GROUP BY waited_until")
        columns = (sa.column("waited_until", UtcDateTime()), sa.column("n", sa.Integer()))
        assert {row.waited_until: row.n for row in connection.execute(times.columns(*columns))} == {
            None: PEOPLE * 2 // 10,
            NOW + DAY: PEOPLE * 8 // 10,
        }
    accept(project, NOW + DAY)
    reply(project, "b", 100)
    advance(project.engine, "spring", NOW + 3 * DAY)
    assert report(project).decision == decision  # A decision never changes.
    evidence = {variant.name: variant.evidence or 0.0 for variant in report(project).variants}
    assert evidence["a"] >= decision.evidence_needed > evidence["b"], "by the replies at the decision"
    assert finish_if_done(project.engine, "spring", NOW + 3 * DAY)


def test_without_a_winner_the_others_get_their_shares(project: CampaignProject) -> None:
    ready(project)
    launch(project.engine, "spring", NOW)
    accept(project)
    for variant in ("a", "b"):
        reply(project, variant, 10)
    advance(project.engine, "spring", NOW + 2 * DAY - timedelta(seconds=1))
    assert states(project)[S.AWAITING] == PEOPLE * 8 // 10
    advance(project.engine, "spring", NOW + 2 * DAY)
    decision = report(project).decision
    assert decision is not None
    assert (decision.winner, decision.reason) == (None, "time")
    assert decision.words.startswith("no winner: the time was over at 2026-05-06 08:30:00 UTC")
    found = given(project)
    assert found["a"] == pytest.approx(PEOPLE / 2, abs=60)
    assert found["a"] + found["b"] == PEOPLE


def test_a_crash_between_the_decision_and_its_effects_loses_nothing(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(project)
    launch(project.engine, "spring", NOW)
    accept(project)
    give: Callable[..., set[int]] = give_variants
    steps = 0

    class CrashError(Exception):
        pass

    def interrupted(*arguments: object) -> set[int]:
        nonlocal steps
        steps += 1
        if steps in (1, 3):
            raise CrashError
        return give(*arguments)

    monkeypatch.setattr(variant_decision, "give_variants", interrupted)
    with pytest.raises(CrashError):
        advance(project.engine, "spring", NOW + 2 * DAY)
    assert states(project)[S.AWAITING] == PEOPLE * 8 // 10
    decision = report(project).decision
    assert decision is not None
    assert decision.decided_at == NOW + 2 * DAY
    with pytest.raises(CrashError):
        advance(project.engine, "spring", NOW + 3 * DAY)
    assert 0 < states(project)[S.AWAITING] < PEOPLE * 8 // 10
    advance(project.engine, "spring", NOW + 4 * DAY)
    assert S.AWAITING not in states(project)
    assert given(project)[None] == 0
    now = report(project).decision
    assert now is not None
    assert (now.decided_at, now.winner) == (decision.decided_at, decision.winner)


def test_two_passes_at_once_decide_once(project: CampaignProject) -> None:
    ready(project)
    launch(project.engine, "spring", NOW)
    accept(project)
    reply(project, "b", 60)
    run_at_once([lambda: advance(project.engine, "spring", NOW + DAY)] * 3)
    decision = report(project).decision
    assert decision is not None
    assert decision.winner == "b"
    assert S.AWAITING not in states(project)
    assert given(project).total() == PEOPLE


def test_the_goal_decides_also_after_the_last_step(project: CampaignProject) -> None:
    ready(project, GOAL)
    launch(project.engine, "spring", NOW)
    accept(project)
    advance(project.engine, "spring", NOW)
    assert Counter(places(project).values())["hello completed"] == PEOPLE * 2 // 10
    pay(project, "b", 40, NOW + timedelta(hours=1))
    pay(project, "a", 3, NOW + timedelta(hours=1))
    advance(project.engine, "spring", NOW + DAY)
    step = report(project)
    assert step.decision is not None
    assert (step.success, step.decision.winner) == ("goal", "b")
    assert {each.name: each.goal for each in step.variants} == {"a": 3, "b": 40}
    journey = summary(project.engine, "spring").journey
    assert journey is not None
    assert journey.goal == 43


def test_who_reached_the_goal_before_the_message_counts_for_no_variant(project: CampaignProject) -> None:
    ready(project, GOAL, people=50)
    with write(project.engine) as connection:
        record_events(connection, [NewEvent(f"p{n}@example.com", "paid", NOW - DAY) for n in range(50)])
    launch(project.engine, "spring", NOW)
    accept(project, NOW + timedelta(hours=1))
    advance(project.engine, "spring", NOW + DAY)
    assert {each.goal for each in report(project).variants} == {0}


ARRIVING = (
    GOAL.replace("steps:", "entry: joined\nsteps:")
    .replace("at_most: 20%", "at_most: 50%")
    .replace("by: goal", "by: replied")
)


def test_people_who_arrive_over_time_are_tested_by_the_same_share(project: CampaignProject) -> None:
    project.fill(["early@example.com,,E"])
    project.apply(ARRIVING)
    launch(project.engine, "spring", NOW)
    for number in range(1, 21):
        now = NOW + number * timedelta(hours=1)
        with write(project.engine) as connection:
            join(connection, f"late{number}@example.com", now)
        advance(project.engine, "spring", now)
        tested = sum(n for state, n in states(project).items() if state is not S.AWAITING)
        assert tested <= number / 2
    assert states(project) == {S.AWAITING: 10, S.PLANNED: 10}
    advance(project.engine, "spring", NOW + 3 * DAY)
    assert states(project) == {S.PLANNED: 20}
    with write(project.engine) as connection:
        join(connection, "last@example.com", NOW + 3 * DAY)
    advance(project.engine, "spring", NOW + 3 * DAY + timedelta(minutes=1))
    assert states(project) == {S.PLANNED: 21}  # After the decision no one waits.


def test_the_time_of_a_test_counts_from_its_first_message(project: CampaignProject) -> None:
    """Of the first people who arrive none may test, and their messages are no test."""
    project.fill(["early@example.com,,E"])
    project.apply(ARRIVING.replace("at_most: 50%", "at_most: 20%"))
    launch(project.engine, "spring", NOW)
    for number in range(1, 8):
        now = NOW + number * timedelta(hours=9)
        with write(project.engine) as connection:
            join(connection, f"late{number}@example.com", now)
        advance(project.engine, "spring", now)
    assert states(project) == {S.AWAITING: 6, S.PLANNED: 1}
    decision = report(project).decision
    assert decision is not None
    assert (decision.planned, decision.tested) == (7, 1)
    assert decision.begun_at == NOW + timedelta(hours=45)
    assert decision.decide_at == NOW + timedelta(hours=45) + 2 * DAY


def join(connection: sa.Connection, address: str, at: datetime) -> None:
    new = sa.text(
        "INSERT INTO recipient (address, domain, attributes, created_at) "
        "VALUES (:address, 'example.com', '{}', :at) RETURNING id"
    ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
    recipient_id = connection.execute(new, {"address": address, "at": at}).scalar_one()
    member = sa.text(
        "INSERT INTO audience_member (audience_id, recipient_id, import_id, joined_at) "
        "SELECT audience_id, :id, import_id, :at FROM audience_member LIMIT 1"
    ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
    connection.execute(member, {"id": recipient_id, "at": at})


def test_who_waits_is_suppressed_cancelled_and_recalled_as_others_are(project: CampaignProject) -> None:
    ready(project, people=50)
    launch(project.engine, "spring", NOW)
    with read(project.engine) as connection:
        waiting = sa.text(
            "SELECT address FROM touch JOIN recipient ON recipient.id = recipient_id WHERE state = 'awaiting' LIMIT 1"
        )
        address = connection.execute(waiting).scalar_one()
    suppress_now(project.engine, [address], SuppressionReason.MANUAL, "test", NOW)
    advance(project.engine, "spring", NOW)
    assert states(project) == {S.AWAITING: 39, S.PLANNED: 10, S.SUPPRESSED: 1}
    cancel_in_ledger(project.engine, "spring", NOW)
    assert states(project) == {S.CANCELLED: 49, S.SUPPRESSED: 1}
    decision = report(project).decision
    assert decision is not None
    assert decision.words == "not decided: the campaign is cancelled"


def test_a_time_of_day_holds_for_who_waited(project: CampaignProject) -> None:
    ready(project, REPLIED + "    at: 10:00\n", people=20)
    launch(project.engine, "spring", NOW)  # 08:30 UTC
    first = NOW.replace(hour=10, minute=0)
    assert {due for *_, due in project.touches()} == {first}
    decision = report(project).decision
    assert decision is not None
    assert decision.decide_at == first + 2 * DAY
    accept(project, first)
    advance(project.engine, "spring", first + 2 * DAY + timedelta(minutes=5))
    with read(project.engine) as connection:
        leaves = sa.text("SELECT DISTINCT waited_until FROM touch WHERE waited_until IS NOT NULL")
        found = connection.execute(leaves.columns(sa.column("waited_until", UtcDateTime()))).scalars().all()
    assert found == [first + 3 * DAY]


def test_a_test_of_all_recipients_keeps_no_one_waiting(project: CampaignProject) -> None:
    ready(project, REPLIED.replace("20%", "100%"), people=40)
    launch(project.engine, "spring", NOW)
    assert states(project) == {S.PLANNED: 40}
    accept(project)
    advance(project.engine, "spring", NOW)
    assert finish_if_done(project.engine, "spring", NOW)

"""The transition table of enrolments: each write changes an enrolment if, and only if, the table allows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from postroad.store.engine import read, write
from postroad.store.enrolment import FAILED, EnrolmentState, ExitReason, enrolments_by_step, exit_cause, reason_of
from postroad.store.enrolments.changes import (
    EnrolmentMove,
    Entrance,
    Place,
    delete_enrolments,
    end_after_reply,
    enter,
    exit_enrolments,
    exit_recipient,
    exit_suppressed,
    move,
    record_goals,
    revive,
)
from postroad.store.enrolments.transitions import ENROLMENT_TRANSITIONS, EnrolmentEvent
from postroad.store.ledger import SENT_OR_SKIPPED, TouchState
from tests.store.rows import NOW, add_campaign, add_recipient
from tests.store.test_transitions import SOURCE, texts

LATER = NOW + timedelta(hours=1)
E, S, R = EnrolmentEvent, EnrolmentState, ExitReason

Row = dict[str, Any]


class Case:
    """One enrolment at the first of two steps."""

    def __init__(self, connection: sa.Connection, state: EnrolmentState, why: ExitReason | None) -> None:
        self.connection = connection
        self.campaign, self.steps = add_campaign(connection, steps=({}, {}))
        self.recipient = add_recipient(connection)
        place = Place(self.steps[0], state, NOW if state is S.ACTIVE else None, why)
        assert enter(connection, self.campaign, [Entrance(self.recipient, place, NOW)], NOW) == {self.recipient}
        self.id = self.row()["id"]

    def row(self) -> Row:
        statement = sa.text("SELECT * FROM enrolment WHERE recipient_id = :id")
        found = self.connection.execute(statement, {"id": self.recipient}).mappings().first()
        return dict(found) if found is not None else {}

    def move(self, state: EnrolmentState, why: ExitReason | None = None) -> object:
        return move(
            self.connection, [EnrolmentMove([self.id], self.steps[0], Place(self.steps[1], state, None, why))], LATER
        )


def _reply_to_exited(case: Case) -> None:
    """Let the recipient reply, where the enrolment is not active: then the reply is an exit as any other."""
    if case.row()["state"] != S.ACTIVE:
        end_after_reply(case.connection, case.recipient, case.campaign, LATER)


WRITES: list[tuple[EnrolmentEvent, EnrolmentState | None, Callable[[Case], object]]] = [
    (E.MOVED, S.ACTIVE, lambda case: case.move(S.ACTIVE)),
    (E.COMPLETED, S.COMPLETED, lambda case: case.move(S.COMPLETED)),
    (E.EXITED, S.EXITED, lambda case: case.move(S.EXITED, R.EXIT)),
    (E.EXITED, S.EXITED, lambda case: exit_enrolments(case.connection, [case.id], R.CANCELLED, LATER)),
    (E.EXITED, S.EXITED, lambda case: exit_suppressed(case.connection, case.recipient, LATER)),
    (
        E.EXITED,
        S.EXITED,
        lambda case: exit_recipient(case.connection, case.recipient, case.campaign, R.REPLIED, LATER),
    ),
    (E.REPLIED, S.EXITED, _reply_to_exited),
    (E.REVIVED, S.ACTIVE, lambda case: revive(case.connection, [case.id])),
    (E.GOAL, None, lambda case: record_goals(case.connection, [case.id], LATER)),
    (E.DELETED, None, lambda case: delete_enrolments(case.connection, [case.id])),
]
STATES: list[tuple[EnrolmentState, ExitReason | None]] = [
    (S.ACTIVE, None),
    (S.COMPLETED, None),
    *((S.EXITED, reason) for reason in ExitReason),
]


@pytest.mark.parametrize(("event", "target", "change"), WRITES)
def test_a_write_changes_an_enrolment_if_the_table_allows_it(
    engine: sa.Engine,
    event: EnrolmentEvent,
    target: EnrolmentState | None,
    change: Callable[[Case], object],
) -> None:
    [allowed] = [row for row in ENROLMENT_TRANSITIONS if row.event is event]
    assert allowed.target is target
    with write(engine) as connection:
        for state, why in STATES:
            case = Case(connection, state, why)
            before = case.row()
            change(case)
            after = case.row()
            expected = state in allowed.sources and (not allowed.reasons or why in allowed.reasons)
            label = f"{event}: {state} ({why}) -> {target}"
            if not expected:
                assert after == before, label
            elif event is E.DELETED:
                assert after == {}, label
            else:
                assert after != before, label
                assert after["state"] == (target or state), label
                assert (after["why"] is not None) is (after["state"] == S.EXITED), label


def test_the_table_has_no_transition_without_a_write() -> None:
    assert {(row.event, row.target) for row in ENROLMENT_TRANSITIONS} == {
        (event, target) for event, target, _ in WRITES
    }


def test_a_move_from_another_step_has_no_effect(engine: sa.Engine) -> None:
    with write(engine) as connection:
        case = Case(connection, S.ACTIVE, None)
        before = case.row()
        assert move(connection, [EnrolmentMove([case.id], case.steps[1], Place(case.steps[1]))], LATER) == set()
        assert case.row() == before


def test_a_recipient_is_enrolled_once(engine: sa.Engine) -> None:
    with write(engine) as connection:
        case = Case(connection, S.COMPLETED, None)
        before = case.row()
        assert enter(connection, case.campaign, [Entrance(case.recipient, Place(case.steps[1]), LATER)], LATER) == set()
        assert case.row() == before


def test_a_suppression_in_one_audience_ends_enrolments_in_its_campaigns_alone(engine: sa.Engine) -> None:
    with write(engine) as connection:
        case = Case(connection, S.ACTIVE, None)
        statement = sa.text("SELECT audience_id FROM campaign WHERE id = :id")
        audience = connection.execute(statement, {"id": case.campaign}).scalar_one()
        assert exit_suppressed(connection, case.recipient, LATER, audience + 1) == 0
        assert exit_suppressed(connection, case.recipient, LATER, audience) == 1


def test_counts_tell_states_reasons_and_goals_and_outlive_their_rows(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, [step] = add_campaign(connection)
        places = [Place(step), Place(step), Place(step, S.COMPLETED), Place(step, S.EXITED, why=R.BOUNCED)]
        people = [add_recipient(connection) for _ in places]
        entrances = [
            Entrance(one, place, NOW, n == 2) for n, (one, place) in enumerate(zip(people, places, strict=True))
        ]
        enter(connection, campaign, entrances, NOW)
        ids = list(connection.execute(sa.text("SELECT id FROM enrolment ORDER BY recipient_id")).scalars())
        assert record_goals(connection, ids, NOW) == 3
        assert record_goals(connection, ids, LATER) == 0
        delete_enrolments(connection, ids[2:])
    with read(engine) as connection:
        [(of_step, counts)] = enrolments_by_step(connection, campaign).items()
    assert of_step == step
    assert (counts.active, counts.completed, dict(counts.exited), counts.goal) == (2, 1, {R.BOUNCED: 1}, 4)
    assert counts.total == 4


def test_every_failed_touch_has_a_reason() -> None:
    assert {reason_of(state, None).value for state in FAILED} == {state.value for state in FAILED}
    assert {*FAILED} == {state for state in TouchState if state.ended} - {*SENT_OR_SKIPPED}
    assert reason_of(TouchState.CANCELLED, exit_cause("plan\n = 'paid'")) is ExitReason.EXIT
    assert reason_of(TouchState.CANCELLED, "cancelled by an operator") is ExitReason.CANCELLED
    assert len(exit_cause("x" * 500)) == 100


WRITE = re.compile(r"\b(?:UPDATE|INSERT INTO|DELETE FROM)\s+enrolment\b", re.IGNORECASE)


def test_only_one_module_writes_enrolments() -> None:
    files = [file for file in SOURCE.rglob("*.py") if "migrations" not in file.parts]
    writers = {file for file in files if any(WRITE.search(text) for text in texts(file))}
    assert {file.relative_to(SOURCE).as_posix() for file in writers} == {"store/enrolments/changes.py"}

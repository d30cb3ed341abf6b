"""The transition table of touches: each write changes a touch if, and only if, the table allows it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.touches.ending import (
    cancel_touches,
    delete_touches,
    drop_dead,
    end_sequence_of,
    suppress_touches,
    suppress_touches_of,
)
from postroad.store.touches.planning import (
    GivenVariant,
    extend_touches,
    give_variants,
    mark_followed_up,
    mark_left,
)
from postroad.store.touches.results import TouchResult, apply_results, record_returned, resolve_unknown
from postroad.store.touches.sending import (
    Claim,
    HeldTouch,
    NewSender,
    admit,
    assign_senders,
    hold,
    mark_queued,
    mark_unknown,
    requeue_dead,
    set_not_before,
    unqueue,
)
from postroad.store.touches.transitions import (
    TRANSITIONS,
    Condition,
    TouchEvent,
    Transition,
    allowed_sql,
    states_sql,
    transitions,
)
from postroad.store.touches.withholding import DrawnTouch, ReleasedTouch, draw_shares, release
from tests.store.rows import NOW, add_campaign, add_touch

SOURCE = Path(__file__).parents[2] / "src/postroad"
CLAIM = 7
LATER_BY = timedelta(hours=1)
LATER = NOW + LATER_BY

Target = TouchState | None
Row = dict[str, Any]


class Case:
    """One touch, and whether the conditions of all transitions are met for it."""

    def __init__(self, connection: sa.Connection, row: Row, met: bool) -> None:
        self.connection = connection
        self.row = row
        self.id = row["id"]
        self.met = met

    def result(self, state: TouchState) -> TouchResult:
        return TouchResult(
            uid=f"{self.id}:result",
            touch_id=self.id,
            state=state,
            claim=CLAIM if self.met else CLAIM + 1,
            at_ms=int(LATER.timestamp() * 1000),
            attempt=1,
            next_ms=int(LATER.timestamp() * 1000) if state is TouchState.DEFERRED else None,
            reply_code=None,
            enhanced_code=None,
            reply="result",
            cause=None,
            blame=None,
            words=None,
        )


def recorded(state: TouchState) -> Callable[[Case], object]:
    return lambda case: apply_results(case.connection, [case.result(state)])


def returned(state: TouchState) -> Callable[[Case], object]:
    return lambda case: record_returned(case.connection, case.id, state, "returned", LATER)


def resolved(state: TouchState) -> Callable[[Case], object]:
    return lambda case: resolve_unknown(case.connection, case.id, state, by="ada", now=LATER)


E, S = TouchEvent, TouchState
WRITES: list[tuple[TouchEvent, Target, Callable[[Case], object]]] = [
    (E.DECIDED, S.PLANNED, lambda case: give_variants(case.connection, [GivenVariant(case.id, "a", LATER)])),
    (E.ENQUEUED, S.QUEUED, lambda case: mark_queued(case.connection, [case.id])),
    (
        E.ADMITTED,
        S.SENDING,
        lambda case: admit(case.connection, [Claim(case.id, CLAIM + 2, (CLAIM,) if case.met else (CLAIM + 1,))]),
    ),
    *(
        (E.RECORDED, state, recorded(state))
        for state in (
            S.ACCEPTED,
            S.BOUNCED,
            S.DEAD,
            S.UNKNOWN,
            S.SUPPRESSED,
            S.CANCELLED,
            S.SKIPPED,
            S.EXPIRED,
            S.DEFERRED,
            S.QUEUED,
        )
    ),
    (E.QUEUE_LOST, S.UNKNOWN, lambda case: mark_unknown(case.connection, [case.id], LATER)),
    *((E.RETURNED, state, returned(state)) for state in (S.BOUNCED, S.ACCEPTED)),
    *((E.RESOLVED, state, resolved(state)) for state in (S.ACCEPTED, S.DEAD, S.QUEUED)),
    (E.SUPPRESSED, S.SUPPRESSED, lambda case: suppress_touches(case.connection, [case.id], LATER)),
    (E.SUPPRESSED, S.SUPPRESSED, lambda case: suppress_touches_of(case.connection, case.row["recipient_id"], LATER)),
    (E.CANCELLED, S.CANCELLED, lambda case: cancel_touches(case.connection, [case.id], LATER)),
    (
        E.CANCELLED,
        S.CANCELLED,
        lambda case: end_sequence_of(
            case.connection, case.row["campaign_id"], case.row["recipient_id"], "replied", LATER
        ),
    ),
    (E.DRAWN, None, lambda case: draw_shares(case.connection, [DrawnTouch(case.id, 2)])),
    (E.RELEASED, S.PLANNED, lambda case: release(case.connection, [ReleasedTouch(case.id, LATER)])),
    (E.REQUEUED, S.QUEUED, lambda case: requeue_dead(case.connection, [case.id])),
    (E.DROPPED, S.CANCELLED, lambda case: drop_dead(case.connection, [case.id], by="ada", now=LATER)),
    (E.HELD, S.PLANNED, lambda case: hold(case.connection, [HeldTouch(case.id, LATER, "over the cap")])),
    (E.POSTPONED, None, lambda case: set_not_before(case.connection, [case.id], LATER)),
    (
        E.REASSIGNED,
        None,
        lambda case: assign_senders(case.connection, [NewSender(case.id, other_sender(case), "cap")], 1, LATER),
    ),
    (E.FOLLOWED_UP, None, lambda case: mark_followed_up(case.connection, [case.id])),
    (E.UNQUEUED, S.PLANNED, lambda case: unqueue(case.connection, [case.id])),
    (
        E.EXTENDED,
        None,
        lambda case: extend_touches(case.connection, [case.id], NOW - LATER_BY if case.met else LATER),
    ),
    (E.LEFT, None, lambda case: mark_left(case.connection, [case.id])),
    (E.DELETED, None, lambda case: delete_touches(case.connection, [case.id])),
]
NAMES = [f"{event}-{target or 'same'}" for event, target, _ in WRITES]


def other_sender(case: Case) -> int:
    statement = sa.text(
        "SELECT max(id) FROM sender WHERE id <> COALESCE((SELECT sender_id FROM touch WHERE id = :id), 0)"
    )
    return int(case.connection.execute(statement, {"id": case.id}).scalar_one())


def row_of(connection: sa.Connection, touch_id: int) -> Row | None:
    found = connection.execute(sa.text("SELECT * FROM touch WHERE id = :id"), {"id": touch_id}).mappings().first()
    return dict(found) if found is not None else None


def counts(connection: sa.Connection) -> dict[tuple[int, str], int]:
    statement = sa.text("SELECT step_id, state, sum(touches) AS n FROM touch_count GROUP BY step_id, state")
    return {(row.step_id, row.state): int(row.n) for row in connection.execute(statement) if row.n}


def add_case(connection: sa.Connection, event: TouchEvent, state: TouchState, met: bool) -> Case:
    """Add a touch in a state, of a running campaign of its own, for which the conditions are met, or none of them."""
    campaign, (step,) = add_campaign(connection)
    add_campaign(connection)  # its sender is another one
    touch = add_touch(connection, campaign, step, state, claim=CLAIM)
    statement = sa.text(
        "UPDATE touch SET follow_up = :follow_up, enrolled = :met, sender_id = :sender, settled_at = :at WHERE id = :id"
    )
    sender = None
    if event is TouchEvent.REASSIGNED and not met:
        sender = connection.execute(sa.text("SELECT min(id) FROM sender")).scalar_one()
    at = NOW.replace(tzinfo=None) if connection.dialect.name == "sqlite" else NOW
    follow_up = met and event is not TouchEvent.EXTENDED
    values = {"met": met, "follow_up": follow_up, "sender": sender, "at": str(at) if state.ended else None, "id": touch}
    connection.execute(statement, values)
    if not met:
        note = sa.text(
            "INSERT INTO delivery_event (uid, touch_id, state, at, attempt, cause) "
            "VALUES (:uid, :id, :state, :at, 0, 'unsubscribe')"
        )
        connection.execute(note, {"uid": f"{touch}:unsubscribe", "id": touch, "state": state.value, "at": str(at)})
        mail = sa.text("INSERT INTO bounce_mail (digest, received_at, source) VALUES (:digest, :at, 'test')")
        connection.execute(mail, {"digest": f"d{touch}", "at": str(at)})
        effect = sa.text(
            "INSERT INTO bounce_effect (digest, effect, touch_id, detail, at) "
            "VALUES (:digest, 'touch_bounced', :id, '', :at)"
        )
        connection.execute(effect, {"digest": f"d{touch}", "id": touch, "at": str(at)})
    row = row_of(connection, touch)
    assert row is not None
    return Case(connection, row, met)


def transition_for(event: TouchEvent, target: Target, state: TouchState) -> Transition | None:
    """Return the transition of the table, read without any function of the product."""
    found = [row for row in TRANSITIONS if row.event is event and row.target is target and state in row.sources]
    assert len(found) <= 1, "two transitions have the same event, source and target"
    return found[0] if found else None


@pytest.mark.parametrize(("event", "target", "change"), WRITES, ids=NAMES)
def test_a_write_changes_a_touch_if_the_table_allows_it(
    engine: sa.Engine, event: TouchEvent, target: Target, change: Callable[[Case], object]
) -> None:
    with write(engine) as connection:
        for state, met in product(TouchState, (True, False)):
            case = add_case(connection, event, state, met)
            before = counts(connection)
            change(case)
            after, after_counts = row_of(connection, case.id), counts(connection)
            allowed = transition_for(event, target, state)
            expected = allowed is not None and (met or allowed.condition is None)
            label = f"{event}: {state} -> {target}, conditions {'met' if met else 'not met'}"
            if not expected:
                assert after == case.row, label
                assert after_counts == before, label
            elif event is TouchEvent.DELETED:
                assert after is None, label
                assert after_counts == before, label
            else:
                assert after is not None, label
                assert after != case.row, label
                assert after["state"] == (target or state), label
                step = case.row["step_id"]
                moved = {(step, str(state)): -1, (step, str(after["state"])): 1} if after["state"] != state else {}
                assert after_counts == {
                    key: number
                    for key in before.keys() | moved.keys()
                    if (number := before.get(key, 0) + moved.get(key, 0))
                }, label


def test_the_table_has_no_transition_without_a_write_and_no_write_without_a_transition() -> None:
    assert {(row.event, row.target) for row in TRANSITIONS} == {(event, target) for event, target, _ in WRITES}
    assert {row.event for row in TRANSITIONS} == set(TouchEvent)
    assert {row.condition for row in TRANSITIONS} == {None, *Condition}


def test_every_state_has_a_way_in_and_every_live_state_a_way_out() -> None:
    inserted = {TouchState.PLANNED, TouchState.AWAITING, TouchState.WITHHELD}
    reached = {row.target for row in TRANSITIONS} | inserted
    assert reached >= set(TouchState)
    left = {state for row in TRANSITIONS for state in row.sources if row.target not in (None, state)}
    assert left >= {state for state in TouchState if not state.ended}


def test_only_acceptance_moves_what_was_sent_and_settled_without_a_person_or_a_returned_message() -> None:
    settled = {S.ACCEPTED, S.BOUNCED, S.DEAD, S.SUPPRESSED, S.CANCELLED, S.EXPIRED}
    moved = {(row.event, row.target) for row in TRANSITIONS if row.target is not None and row.sources & settled}
    by_a_person = {(E.REQUEUED, S.QUEUED), (E.DROPPED, S.CANCELLED)}
    assert moved == {(E.RECORDED, S.ACCEPTED), (E.RETURNED, S.BOUNCED), *by_a_person}


def test_a_transition_that_the_table_lacks_has_no_condition_in_sql() -> None:
    with pytest.raises(ValueError, match="no transition leads to planned"):
        transitions(TouchEvent.RECORDED, TouchState.PLANNED)
    with pytest.raises(ValueError, match="no transition leads to sending"):
        allowed_sql(TouchEvent.RESOLVED, TouchState.SENDING)
    assert states_sql([TouchState.DEAD]) == "= 'dead'"
    assert states_sql({TouchState.QUEUED, TouchState.PLANNED}) == "IN ('planned', 'queued')"


WRITE = re.compile(r"\b(?:UPDATE|INSERT INTO|DELETE FROM)\s+touch\b", re.IGNORECASE)
STATES = re.compile(rf"\bstate\s*(?:=|<>|(?:NOT )?IN\s*\()\s*'(?:{'|'.join(TouchState)})'")


def test_only_one_package_writes_touches_and_takes_the_states_from_the_table() -> None:
    files = [file for file in SOURCE.rglob("*.py") if "migrations" not in file.parts]
    writers = {file for file in files if any(WRITE.search(text) for text in texts(file))}
    assert {file.relative_to(SOURCE).parent.as_posix() for file in writers} == {"store/touches"}
    assert len(writers) >= 4
    assert [(file.name, text) for file in writers for text in texts(file) if STATES.search(text)] == []


def texts(file: Path) -> list[str]:
    """Return the constant parts of each text of a module, those of an f-string as one."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found

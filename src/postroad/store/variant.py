"""Variants of steps: what recipients did after they got one, how many did, and the tests that decide the winners.

The touches name their variants. Triggers count touches and outcomes by variant, so that no report reads the touches.
The counts of a campaign stay when its touches are deleted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from postroad.store.bulk import any_of, id_rows
from postroad.store.types import BIG_ID, JSON_OR_NULL, StoredRow, StrEnumType, UtcDateTime


class VariantOutcome(StrEnum):
    """What a recipient did after a message. Each counts once for a touch."""

    REPLIED = "replied"
    UNSUBSCRIBED = "unsubscribed"
    COMPLAINED = "complained"
    GOAL = "goal"


class OutcomeOfTouch(StoredRow, table=True):
    """One outcome of a touch that has a variant. Its touch's step and variant are repeated, for the triggers."""

    __tablename__ = "variant_outcome"
    __table_args__ = (sa.Index("ix_variant_outcome_list", "step_id", "variant", "outcome", "touch_id"),)

    touch_id: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    outcome: VariantOutcome = Field(primary_key=True, sa_type=StrEnumType(VariantOutcome))
    step_id: int = Field(sa_type=sa.BigInteger)
    variant: str = Field(sa_type=sa.String(64))
    at: datetime = Field(sa_type=UtcDateTime)


class VariantCount(StoredRow, table=True):
    """A part of a number of touches of one variant: the number is the sum of all slots, as in `TouchCount`.

    ``what``: a state of touches, or an outcome.
    """

    __tablename__ = "variant_count"

    step_id: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    variant: str = Field(primary_key=True, sa_type=sa.String(64))
    what: str = Field(primary_key=True, sa_type=sa.String(24))
    slot: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    touches: int = Field(sa_type=sa.BigInteger)


class DecisionReason(StrEnum):
    """Why a test ended."""

    EVIDENCE = "evidence"  # the sequential test found a winner
    TIME = "time"  # its time is over without a winner


class VariantTest(StoredRow, table=True):
    """The test that decides the winner of a step. It begins when the first touches of the step are planned.

    ``planned``, ``tested``: recipients of the step before the decision, and those of them who got a variant.
    """

    __tablename__ = "variant_test"

    step_id: int = Field(
        primary_key=True, foreign_key="step.id", sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False}
    )
    campaign_id: int = Field(foreign_key="campaign.id", sa_type=BIG_ID, index=True)
    begun_at: datetime = Field(sa_type=UtcDateTime, description="when the first message of the test is due")
    decide_at: datetime = Field(sa_type=UtcDateTime, description="when it is decided at the latest")
    planned: int = Field(default=0, sa_type=sa.BigInteger)
    tested: int = Field(default=0, sa_type=sa.BigInteger)
    cursor: int = Field(default=0, sa_type=sa.BigInteger, description="last recipient of whom the goal was looked at")
    decided_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    winner: str | None = Field(default=None, sa_type=sa.String(64), description="NULL after the decision: no winner")
    reason: DecisionReason | None = Field(default=None, sa_type=StrEnumType(DecisionReason))
    evidence: dict[str, Any] | None = Field(
        default=None, sa_type=JSON_OR_NULL, nullable=True, description="what the decision was made from"
    )


def counts_by_variant(connection: sa.Connection, campaign_id: int) -> dict[int, dict[str, Counter[str]]]:
    """Return the number of touches in each state and with each outcome, by step and variant."""
    statement = sa.text(
        "SELECT variant_count.step_id, variant_count.variant, variant_count.what, sum(variant_count.touches) AS n "
        "FROM step JOIN variant_count ON variant_count.step_id = step.id WHERE step.campaign_id = :id "
        "GROUP BY variant_count.step_id, variant_count.variant, variant_count.what "
        "HAVING sum(variant_count.touches) <> 0"
    )
    counts: defaultdict[int, dict[str, Counter[str]]] = defaultdict(dict)
    for step_id, variant, what, n in connection.execute(statement, {"id": campaign_id}):
        counts[step_id].setdefault(variant, Counter())[what] = int(n)
    return dict(counts)


def fold_variant_counts(connection: sa.Connection) -> int:
    """Add the slots of closed connections to slot 0. Returns the number of deleted rows, which is 0 on SQLite."""
    if connection.dialect.name == "sqlite":
        return 0
    gone = sa.text(
        "DELETE FROM variant_count WHERE slot <> 0 "
        "AND NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pg_stat_activity.pid = variant_count.slot) "
        "RETURNING step_id, variant, what, touches"
    )
    rows = connection.execute(gone).all()
    add = sa.text(
        "INSERT INTO variant_count AS counted (step_id, variant, what, slot, touches) "
        "VALUES (:step_id, :variant, :what, 0, :touches) ON CONFLICT (step_id, variant, what, slot) "
        "DO UPDATE SET touches = counted.touches + excluded.touches"
    )
    for row in sorted(rows):  # In a fixed order, so that two transactions do not deadlock.
        connection.execute(add, row._asdict())
    return len(rows)


def record_outcomes(
    connection: sa.Connection, touch_ids: Sequence[int], outcome: VariantOutcome, now: datetime
) -> None:
    """Record an outcome of those of these touches that have a variant. Idempotent.

    Args:
        connection: A connection in a transaction that writes.
        touch_ids: The touches.
        outcome: What their recipients did.
        now: The time of the transaction.
    """
    item, parameters = id_rows(connection, touch_ids)
    touches = any_of(connection, f"SELECT batch.id FROM {item}")
    _insert(connection, f"touch WHERE touch.id {touches} AND touch.variant IS NOT NULL", outcome, now, parameters)


def record_goals_of_enrolments(connection: sa.Connection, enrolment_ids: Sequence[int], now: datetime) -> None:
    """Record that the goal of these enrolments was reached, for the variants that their recipients got before.

    Enrolments without a goal, and messages that were not accepted before the goal was noticed, are skipped.

    Args:
        connection: A connection in a transaction that writes.
        enrolment_ids: The enrolments.
        now: The time of the transaction.
    """
    item, parameters = id_rows(connection, enrolment_ids)
    enrolments = any_of(connection, f"SELECT batch.id FROM {item}")
    # With + 0 and without a range of states, only the index of recipients fits.
    source = (
        f"enrolment CROSS JOIN touch WHERE enrolment.id {enrolments} AND enrolment.goal_at IS NOT NULL "
        "AND touch.recipient_id = enrolment.recipient_id AND touch.campaign_id + 0 = enrolment.campaign_id "
        "AND touch.request_id = CASE WHEN enrolment.entry = 1 THEN 0 ELSE -enrolment.entry END "
        "AND touch.variant IS NOT NULL AND touch.state = 'accepted' AND touch.settled_at <= enrolment.goal_at"
    )
    _insert(connection, source, VariantOutcome.GOAL, now, parameters)


def _insert(
    connection: sa.Connection, source: str, outcome: VariantOutcome, now: datetime, parameters: dict[str, str]
) -> None:
    at = ":now" if connection.dialect.name == "sqlite" else "CAST(:now AS timestamptz)"
    statement = sa.text(
        "INSERT INTO variant_outcome (touch_id, outcome, step_id, variant, at) "
        f"SELECT touch.id, '{outcome}', touch.step_id, touch.variant, {at} FROM {source} "
        "ORDER BY touch.id ON CONFLICT (touch_id, outcome) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    connection.execute(statement, {"now": now, **parameters})


def variant_tests(connection: sa.Connection, campaign_id: int) -> dict[int, VariantTest]:
    """Return the tests of a campaign that have begun, by their steps."""
    session = Session(connection)
    found = list(session.exec(select(VariantTest).where(VariantTest.campaign_id == campaign_id)))
    session.expunge_all()
    return {test.step_id: test for test in found}


def decides_at(connection: sa.Connection, campaign_id: int) -> datetime | None:
    """Return when the first of the open tests of a campaign is decided at the latest; None without an open test."""
    open_tests = [test.decide_at for test in variant_tests(connection, campaign_id).values() if test.decided_at is None]
    return min(open_tests, default=None)


def find_variant_test(connection: sa.Connection, step_id: int) -> VariantTest | None:
    """Return the test of a step; None: it has not begun."""
    session = Session(connection)
    found = session.exec(select(VariantTest).where(VariantTest.step_id == step_id)).one_or_none()
    session.expunge_all()
    return found


def save_variant_test(connection: sa.Connection, test: VariantTest) -> None:
    """Save a test. The caller holds the lock of its campaign."""
    session = Session(connection)
    session.merge(test)
    session.flush()
    session.expunge_all()


def set_test_cursor(connection: sa.Connection, step_id: int, recipient_id: int) -> None:
    """Record the last recipient of whom the goal of a test was looked at; 0: the next pass begins again."""
    connection.execute(sa.update(VariantTest).where(col(VariantTest.step_id) == step_id).values(cursor=recipient_id))


def record_decision(
    connection: sa.Connection,
    step_id: int,
    winner: str | None,
    reason: DecisionReason,
    evidence: dict[str, Any],
    now: datetime,
) -> bool:
    """Record the decision of a test. Idempotent. Returns whether this call did: a decision never changes."""
    values = {"decided_at": now, "winner": winner, "reason": reason, "evidence": evidence}
    open_test = (col(VariantTest.step_id) == step_id) & col(VariantTest.decided_at).is_(None)
    return connection.execute(sa.update(VariantTest).where(open_test).values(**values)).rowcount == 1

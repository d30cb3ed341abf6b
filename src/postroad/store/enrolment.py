"""Enrolments: one row for each recipient's way through a journey, and how many there are at each step.

A campaign of emails and waits alone has no enrolments: its touches are. See docs/adr/0045. The statements that change
enrolments are in `postroad.store.enrolments`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field

from postroad.store.ledger import TouchState
from postroad.store.types import BIG_ID, PartialIndex, StoredRow, StrEnumType, UtcDateTime


class EnrolmentState(StrEnum):
    """The state of an enrolment. `postroad.store.enrolments.transitions` has the events that change it."""

    ACTIVE = "active"
    COMPLETED = "completed"
    EXITED = "exited"


class ExitReason(StrEnum):
    """Why an enrolment exited."""

    EXIT = "exit"  # its recipient matches the campaign's exit condition
    REPLIED = "replied"
    NO_DATE = "no-date"  # the recipient lacks the date of a `wait_until`
    BOUNCED = "bounced"  # from here on: the state in which its touch ended
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEAD = "dead"
    UNKNOWN = "unknown"


FAILED = (
    TouchState.BOUNCED,
    TouchState.SUPPRESSED,
    TouchState.CANCELLED,
    TouchState.EXPIRED,
    TouchState.DEAD,
    TouchState.UNKNOWN,
)
"""States in which a touch ends, and its enrolment exits. Each is also an `ExitReason`."""

_EXIT_CAUSE = "exit: "
_MAX_CAUSE = 100


def exit_cause(condition: str) -> str:
    """Return the cause of a touch that is cancelled because its recipient matches the exit condition."""
    return f"{_EXIT_CAUSE}{' '.join(condition.split())}"[:_MAX_CAUSE]


def reason_of(state: TouchState, cause: str | None) -> ExitReason:
    """Return why an enrolment exits whose touch failed. ``cause``: why the touch did."""
    if state is TouchState.CANCELLED and (cause or "").startswith(_EXIT_CAUSE):
        return ExitReason.EXIT
    return ExitReason(state)


_DUE = "state = 'active' AND due_at IS NOT NULL"
_ACTIVE = "state = 'active'"


class Enrolment(StoredRow, table=True):
    """One recipient's way through one campaign. One for each entry; at most one of them is active."""

    __tablename__ = "enrolment"
    __table_args__ = (
        sa.UniqueConstraint("campaign_id", "recipient_id", "entry"),
        PartialIndex(
            "ix_enrolment_due",
            "campaign_id",
            "due_at",
            "id",
            where=_DUE,
        ),
        PartialIndex(
            "ix_enrolment_recipient",
            "recipient_id",
            where=_ACTIVE,
        ),
        # For `postroad.store.step_page` alone: the condition, which always holds, hides it from other statements.
        PartialIndex("ix_enrolment_step", "step_id", "state", "why", "id", where="recipient_id > 0"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    campaign_id: int = Field(foreign_key="campaign.id", sa_type=BIG_ID)
    recipient_id: int = Field(foreign_key="recipient.id", sa_type=BIG_ID)
    entry: int = Field(
        default=1,
        sa_column_kwargs={"server_default": sa.text("1")},
        description="1 for the recipient's first way through the campaign, 2 for the next one, …",
    )
    state: EnrolmentState = Field(sa_type=StrEnumType(EnrolmentState))
    step_id: int = Field(foreign_key="step.id", sa_type=BIG_ID, description="where it is, or where it ended")
    entered_at: datetime = Field(sa_type=UtcDateTime)
    since: datetime = Field(sa_type=UtcDateTime, description="when it came to this step, or ended")
    due_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="when to look at it; NULL while its email is under way"
    )
    why: ExitReason | None = Field(default=None, sa_type=StrEnumType(ExitReason), description="why it exited")
    goal_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="when the goal was noticed")


class EnrolmentCount(StoredRow, table=True):
    """A part of the number of enrolments at one step: the number is the sum of all slots, as in `TouchCount`.

    Triggers maintain it. ``why``: empty for an enrolment that did not exit.
    """

    __tablename__ = "enrolment_count"

    step_id: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    state: str = Field(primary_key=True, sa_type=sa.String(24))
    why: str = Field(primary_key=True, sa_type=sa.String(24))
    goal: bool = Field(primary_key=True)
    slot: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    enrolments: int = Field(sa_type=sa.BigInteger)


@dataclass(frozen=True, kw_only=True)
class StepEnrolments:
    """Enrolments at one step: those that are there, and those that ended there."""

    active: int = 0
    completed: int = 0
    exited: Counter[ExitReason] = field(default_factory=Counter)
    goal: int = 0

    @property
    def total(self) -> int:
        return self.active + self.completed + self.exited.total()


def enrolments_by_step(connection: sa.Connection, campaign_id: int) -> dict[int, StepEnrolments]:
    """Return the enrolments of a campaign by the step where they are or ended. Steps without any are missing."""
    statement = sa.text(
        "SELECT enrolment_count.step_id, enrolment_count.state, enrolment_count.why, enrolment_count.goal, "
        "sum(enrolment_count.enrolments) AS n FROM step "
        "JOIN enrolment_count ON enrolment_count.step_id = step.id WHERE step.campaign_id = :id "
        "GROUP BY enrolment_count.step_id, enrolment_count.state, enrolment_count.why, enrolment_count.goal "
        "HAVING sum(enrolment_count.enrolments) <> 0"
    )
    rows = [(*row[:4], int(row.n)) for row in connection.execute(statement, {"id": campaign_id})]
    found: dict[int, StepEnrolments] = {}
    for step_id in {row[0] for row in rows}:
        states: Counter[str] = Counter()
        exited: Counter[ExitReason] = Counter()
        goal = 0
        for of_step, state, why, reached, n in rows:
            if of_step != step_id:
                continue
            states[state] += n
            goal += n if reached else 0
            if why:
                exited[ExitReason(why)] += n
        found[step_id] = StepEnrolments(
            active=states[EnrolmentState.ACTIVE], completed=states[EnrolmentState.COMPLETED], exited=exited, goal=goal
        )
    return found


def any_active(connection: sa.Connection, campaign_id: int) -> bool:
    """Return whether a campaign has an active enrolment."""
    return any(step.active for step in enrolments_by_step(connection, campaign_id).values())


def fold_enrolment_counts(connection: sa.Connection) -> int:
    """Add the slots of closed connections to slot 0. Returns the number of deleted rows, which is 0 on SQLite."""
    if connection.dialect.name == "sqlite":
        return 0
    gone = sa.text(
        "DELETE FROM enrolment_count WHERE slot <> 0 "
        "AND NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pg_stat_activity.pid = enrolment_count.slot) "
        "RETURNING step_id, state, why, goal, enrolments"
    )
    rows = connection.execute(gone).all()
    add = sa.text(
        "INSERT INTO enrolment_count AS counted (step_id, state, why, goal, slot, enrolments) "
        "VALUES (:step_id, :state, :why, :goal, 0, :enrolments) ON CONFLICT (step_id, state, why, goal, slot) "
        "DO UPDATE SET enrolments = counted.enrolments + excluded.enrolments"
    )
    for row in sorted(rows):  # In a fixed order, so that two transactions do not deadlock.
        connection.execute(add, row._asdict())
    return len(rows)

"""The transition table of an enrolment: which event moves it from which state to which.

::

    active ─► completed
       ▲└───► exited
       └─────────┘   (the touch whose failure ended it was accepted after all)
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from postroad.store.enrolment import EnrolmentState, ExitReason


class EnrolmentEvent(StrEnum):
    """What changes an enrolment."""

    MOVED = "moved"  # it came to another step, or waits at one for longer
    COMPLETED = "completed"  # it passed its last step
    EXITED = "exited"
    REVIVED = "revived"  # its touch failed, and was accepted after all: replayed by an operator, or resolved
    REPLIED = "replied"  # its recipient replied after it had exited because a touch failed
    GOAL = "goal"  # its recipient reached the goal
    DELETED = "deleted"  # the retention of its campaign is over


class EnrolmentTransition(NamedTuple):
    """Source state of one event and target. ``target`` None: the state stays, or the row is deleted.

    ``reasons``: an exited enrolment takes the transition if it exited for one of these. Empty: for any.
    """

    event: EnrolmentEvent
    sources: tuple[EnrolmentState, ...]
    target: EnrolmentState | None
    reasons: tuple[ExitReason, ...] = ()


_S, _E, _R = EnrolmentState, EnrolmentEvent, ExitReason
_UNSENT = (_R.BOUNCED, _R.EXPIRED, _R.DEAD, _R.UNKNOWN)
"""A touch that ended so may be accepted after all."""

ENROLMENT_TRANSITIONS: Final = (
    EnrolmentTransition(_E.MOVED, (_S.ACTIVE,), _S.ACTIVE),
    EnrolmentTransition(_E.COMPLETED, (_S.ACTIVE,), _S.COMPLETED),
    EnrolmentTransition(_E.EXITED, (_S.ACTIVE,), _S.EXITED),
    EnrolmentTransition(_E.REVIVED, (_S.EXITED,), _S.ACTIVE, _UNSENT),
    EnrolmentTransition(_E.REPLIED, (_S.EXITED,), _S.EXITED, _UNSENT),
    EnrolmentTransition(_E.GOAL, (_S.ACTIVE, _S.COMPLETED, _S.EXITED), None),
    EnrolmentTransition(_E.DELETED, (_S.COMPLETED, _S.EXITED), None),
)
"""Every transition. An enrolment is inserted in any state: a recipient may exit at the entry."""


def allowed_enrolments_sql(event: EnrolmentEvent) -> str:
    """Return the SQL condition under which a row of ``enrolment`` takes the transition of an event."""
    [row] = [row for row in ENROLMENT_TRANSITIONS if row.event is event]
    names = [f"'{state}'" for state in row.sources]
    # Equality with one state: SQLite then uses the partial indexes that have the same condition.
    states = f"= {names[0]}" if len(names) == 1 else f"IN ({', '.join(names)})"
    reasons = ", ".join(f"'{reason}'" for reason in row.reasons)
    why = f" AND enrolment.why IN ({reasons})" if reasons else ""
    return f"enrolment.state {states}{why}"

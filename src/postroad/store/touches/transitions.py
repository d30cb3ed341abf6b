"""The transition table of a touch: which event moves it from which state to which.

::

    awaiting ─► planned ─► queued ─► sending ─► accepted | bounced | dead | expired | unknown
    withheld ─►   │          ▲          │
                  │          └ deferred ◄┘        unknown ─► accepted | bounced | dead   (when it is known later)
                  └─► suppressed | cancelled | skipped      (also from queued and deferred; the first two from the left)

Every UPDATE and DELETE of the table ``touch`` takes its condition on the state from here, by `allowed_sql`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from postroad.store.ledger import LIVE, ON_THE_WIRE, SENT_OR_SKIPPED, UNSENT, WAITING, TouchState


class TouchEvent(StrEnum):
    """What changes a touch."""

    DECIDED = "decided"  # it gets a variant
    ENQUEUED = "enqueued"  # the queue has its job
    ADMITTED = "admitted"  # a worker is about to send it
    RECORDED = "recorded"  # an event of the queue was read
    QUEUE_LOST = "queue-lost"  # its job is gone
    RETURNED = "returned"  # a bounce message or a report was received
    RESOLVED = "resolved"  # a person says what became of it
    SUPPRESSED = "suppressed"  # its recipient was
    CANCELLED = "cancelled"  # its campaign, its sequence, or the touch alone
    DRAWN = "drawn"  # a rollout draws its share
    RELEASED = "released"  # its share of a rollout is let go
    REQUEUED = "requeued"  # it failed, and a person has it sent again
    DROPPED = "dropped"  # it failed, and a person decides that it is not sent again
    POSTPONED = "postponed"  # a person sets a time before which it is not sent
    HELD = "held"  # a frequency cap holds it for longer than its job may wait in the queue
    REASSIGNED = "reassigned"  # overflow gives it to another sender
    FOLLOWED_UP = "followed-up"  # the next step of its recipient is taken
    UNQUEUED = "unqueued"  # its job has an earlier version of its step
    EXTENDED = "extended"  # its email was the last one, and steps were added
    LEFT = "left"  # its enrolment exited, because it failed
    DELETED = "deleted"  # its retention is over


class Condition(StrEnum):
    """What a transition needs in addition to the state."""

    CLAIM_ENDED = "the queue reports that the claim of the touch ended without delivery"
    SAME_CLAIM = "the event belongs to the claim of the touch"
    NOT_RETURNED = "no bounce message moved the touch"
    OWN_SENDER = "the sender of its campaign sends it"
    FOLLOW_UP = "another step follows, and is not taken"
    ENDED_LATER = "it ended after the steps were added"
    ENROLLED = "its enrolment has not exited"
    NOT_UNSUBSCRIBED = "no unsubscribe is recorded for the touch"


class Transition(NamedTuple):
    """Source states of one event and target. ``target`` None: the state stays, or the row is deleted."""

    event: TouchEvent
    sources: frozenset[TouchState]
    target: TouchState | None
    condition: Condition | None = None


def _from(
    sources: Iterable[TouchState], event: TouchEvent, target: TouchState | None, condition: Condition | None = None
) -> Transition:
    return Transition(event, frozenset(sources), target, condition)


_S, _E = TouchState, TouchEvent
_ENDED = tuple(state for state in TouchState if state.ended)

TRANSITIONS: Final = (
    _from([_S.AWAITING], _E.DECIDED, _S.PLANNED),
    _from([_S.PLANNED], _E.ENQUEUED, _S.QUEUED),
    _from(WAITING, _E.ADMITTED, _S.SENDING),
    _from(ON_THE_WIRE, _E.ADMITTED, _S.SENDING, Condition.CLAIM_ENDED),
    # A server accepted it: that is a fact, whatever the ledger assumed. A bounce message is newer than the acceptance.
    _from({*TouchState} - {_S.ACCEPTED, _S.BOUNCED}, _E.RECORDED, _S.ACCEPTED),
    _from([_S.BOUNCED], _E.RECORDED, _S.ACCEPTED, Condition.NOT_RETURNED),
    _from([*LIVE, _S.UNKNOWN], _E.RECORDED, _S.BOUNCED),
    _from([*LIVE, _S.UNKNOWN], _E.RECORDED, _S.DEAD),
    _from(LIVE, _E.RECORDED, _S.UNKNOWN),
    _from(LIVE, _E.RECORDED, _S.SUPPRESSED),
    _from(LIVE, _E.RECORDED, _S.CANCELLED),
    _from(LIVE, _E.RECORDED, _S.SKIPPED),
    _from(LIVE, _E.RECORDED, _S.EXPIRED),
    # An event of another claim does not tell what became of the claim that is on the wire.
    _from(WAITING, _E.RECORDED, _S.DEFERRED),
    _from(ON_THE_WIRE, _E.RECORDED, _S.DEFERRED, Condition.SAME_CLAIM),
    _from(ON_THE_WIRE, _E.RECORDED, _S.QUEUED, Condition.SAME_CLAIM),
    _from([_S.SENDING], _E.QUEUE_LOST, _S.UNKNOWN),
    _from([*ON_THE_WIRE, _S.ACCEPTED], _E.RETURNED, _S.BOUNCED),
    _from([_S.UNKNOWN], _E.RETURNED, _S.ACCEPTED),
    _from([_S.UNKNOWN], _E.RESOLVED, _S.ACCEPTED),
    _from([_S.UNKNOWN], _E.RESOLVED, _S.DEAD),
    _from([_S.UNKNOWN], _E.RESOLVED, _S.QUEUED),
    _from(UNSENT, _E.SUPPRESSED, _S.SUPPRESSED),
    _from(UNSENT, _E.CANCELLED, _S.CANCELLED),
    _from([_S.DEAD, _S.EXPIRED], _E.REQUEUED, _S.QUEUED),
    _from([_S.DEAD], _E.DROPPED, _S.CANCELLED),
    _from([_S.QUEUED, _S.DEFERRED], _E.POSTPONED, None),
    _from(WAITING, _E.HELD, _S.PLANNED),
    _from([_S.WITHHELD], _E.DRAWN, None),
    _from([_S.WITHHELD], _E.RELEASED, _S.PLANNED),
    _from([_S.PLANNED], _E.REASSIGNED, None, Condition.OWN_SENDER),
    _from(SENT_OR_SKIPPED, _E.FOLLOWED_UP, None, Condition.FOLLOW_UP),
    _from([_S.QUEUED, _S.DEFERRED], _E.UNQUEUED, _S.PLANNED),
    _from({*TouchState} - {*SENT_OR_SKIPPED}, _E.EXTENDED, None),
    _from(SENT_OR_SKIPPED, _E.EXTENDED, None, Condition.ENDED_LATER),
    _from({*_ENDED} - {*SENT_OR_SKIPPED}, _E.LEFT, None, Condition.ENROLLED),
    _from({*_ENDED} - {_S.UNKNOWN}, _E.DELETED, None, Condition.NOT_UNSUBSCRIBED),
)
"""Every transition.

A touch is inserted as ``planned``, ``awaiting`` or ``withheld``; one that is never sent, as ``suppressed`` or
``cancelled``.
"""


def transitions(event: TouchEvent, target: TouchState | None = None) -> list[Transition]:
    """Return the transitions of an event to a target.

    Raises:
        ValueError: The table has no such transition.
    """
    rows = [row for row in TRANSITIONS if row.event is event and row.target is target]
    if not rows:
        raise ValueError(f"no transition leads to {target} on {event}")
    return rows


def states_sql(states: Collection[TouchState]) -> str:
    """Return the right side of an SQL comparison with states, in the order of `TouchState`."""
    names = [f"'{state}'" for state in TouchState if state in states]
    return f"= {names[0]}" if len(names) == 1 else f"IN ({', '.join(names)})"


def allowed_sql(
    event: TouchEvent,
    target: TouchState | None = None,
    *,
    state: str = "touch.state",
    conditions: Mapping[Condition, str] | None = None,
) -> str:
    """Return the SQL condition under which a row takes a transition.

    Args:
        event: What happened.
        target: The state after it; None for an event that changes no state.
        state: SQL expression of the state before.
        conditions: SQL of each condition that a transition of this event and target has.

    Raises:
        ValueError: The table has no such transition.
    """
    alternatives = []
    for row in transitions(event, target):
        clause = f"{state} {states_sql(row.sources)}"
        if row.condition is not None:
            clause = f"({clause} AND {(conditions or {})[row.condition]})"
        alternatives.append(clause)
    return alternatives[0] if len(alternatives) == 1 else f"({' OR '.join(alternatives)})"

"""Reads events of the queue as facts about touches: the rows that the ledger gets."""

from __future__ import annotations

import msgspec

from postroad.delivery.job import DeliveryResult, decode_note, touch_of
from postroad.queue import Event, EventKind
from postroad.store.ledger import TouchState

MAX_REPLY, MAX_CAUSE = 500, 100
"""Characters that the ledger has room for."""


class TouchFact(msgspec.Struct, frozen=True, kw_only=True):
    """One event, read as a row for the ledger. ``words``: see `DeliveryResult`."""

    uid: str
    touch_id: int
    state: TouchState
    claim: int
    at_ms: int
    attempt: int
    next_ms: int | None
    reply_code: int | None
    enhanced_code: str | None
    reply: str | None
    cause: str | None
    blame: str | None
    suppress: bool
    words: str | None
    noted: bool  # whether it gets a row of its own


def read_event(event: Event) -> TouchFact | None:
    """Return what an event says of its touch; None if it says nothing that the ledger keeps."""
    note = decode_note(event.note) if event.note else None
    state = _state(event, note)
    if state is None:
        return None
    return TouchFact(
        uid=event.uid,
        touch_id=touch_of(event.id),
        state=state,
        claim=event.token,
        at_ms=event.at_ms,
        attempt=event.attempt,
        next_ms=event.next_ms if event.next_ms and state is TouchState.DEFERRED else None,
        reply_code=note.reply_code if note is not None else None,
        enhanced_code=note.enhanced_code if note is not None else None,
        reply=(note.reply if note is not None else _fitting(event.error, MAX_REPLY)) or None,
        cause=(note.cause if note is not None else _fitting(event.cause, MAX_CAUSE)) or None,
        blame=note.blame if note is not None else None,
        suppress=note.suppress if note is not None else False,
        words=(note.words if note is not None else "") or None,
        # A cancelled campaign's million need no row each to say so.
        noted=state is not TouchState.QUEUED and not (state is TouchState.CANCELLED and note is None),
    )


def _fitting(said: str, length: int) -> str:
    """What the queue says on its own, as where a handler failed, may be longer than a column, and have NUL in it."""
    return said.replace("\0", "")[:length]


def _state(event: Event, note: DeliveryResult | None) -> TouchState | None:
    match kind := event.kind:
        case EventKind.DONE | EventKind.LATE:
            return note.state if note is not None else None
        case EventKind.RETRY | EventKind.DEFER:
            # Without a note it was put off before the wire, as by the pause of a campaign.
            return TouchState.DEFERRED if note is not None or kind is EventKind.RETRY else TouchState.QUEUED
        case EventKind.DEAD:
            # The last attempt of a retry is dead for the queue, whatever the note hoped for.
            bounced = note is not None and note.state is TouchState.BOUNCED
            return TouchState.BOUNCED if bounced else TouchState.DEAD
        case EventKind.UNCERTAIN:
            return TouchState.UNKNOWN
        case EventKind.CANCELLED if note is None and event.claim == 0:
            # Its campaign was cancelled while it was on the wire; it came back, and the queue ended it.
            return TouchState.CANCELLED
        case EventKind.CANCELLED:
            return note.state if note is not None else None
        case EventKind.EXPIRED:
            return TouchState.EXPIRED
        case EventKind.RELEASED:
            return TouchState.QUEUED
        case EventKind.REPLAYED:
            return None

"""The result of one delivery: one type from the classified reply, through the queue, to the ledger."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from postroad.delivery.job import touch_of
from postroad.errors import Blame
from postroad.queue import Cancel, Event, EventKind
from postroad.store.ledger import TouchState
from postroad.store.touches.results import TouchResult

MAX_REPLY, MAX_CAUSE = 500, 100
"""Characters of the columns of the ledger."""


class DeliveryVerdict(StrEnum):
    """What a worker does with the job after a delivery."""

    ACCEPTED = "accepted"
    RETRY = "retry"  # soon; it counts as an attempt
    DEFER = "defer"  # later; it counts as no attempt, because the server asked for it
    BOUNCED = "bounced"
    DEAD = "dead"
    UNKNOWN = "unknown"


class Pause(StrEnum):
    """What is paused in addition, because other messages would be refused for the same cause."""

    SENDER = "sender"  # until an operator repairs the sender's authentication or account
    SENDER_AT_PROVIDER = "sender-at-provider"
    ROUTE = "route"


class DeliveryResult(msgspec.Struct, frozen=True, kw_only=True, tag="delivery.v1", omit_defaults=True):
    """What happened to a touch on one claim.

    ``state``: the next state of the touch. ``words``: key of a refusal that is about the sender if many recipients get
    it, see `postroad.store.same_words`; empty: it is about this recipient. ``delay_ms``: delay of a deferral that
    counts as no attempt. ``delay_ms`` and ``pause`` are for the worker and are not encoded.
    """

    state: TouchState
    cause: str = ""
    blame: Blame | None = None
    reply_code: int | None = None
    enhanced_code: str | None = None
    reply: str = ""
    suppress: bool = False
    words: str = ""
    delay_ms: int | None = None
    pause: Pause | None = None

    @property
    def verdict(self) -> DeliveryVerdict:
        """What the worker does with the job."""
        if self.state is TouchState.DEFERRED:
            return DeliveryVerdict.RETRY if self.delay_ms is None else DeliveryVerdict.DEFER
        return DeliveryVerdict(self.state)


_encode = msgspec.msgpack.Encoder().encode
decode_result = msgspec.msgpack.Decoder(DeliveryResult).decode


def encode_result(result: DeliveryResult) -> bytes:
    """Encode a result as the note of an event, as much of it as the ledger stores."""
    if result.delay_ms is not None or result.pause is not None or len(result.reply) > MAX_REPLY:
        result = msgspec.structs.replace(result, delay_ms=None, pause=None, reply=result.reply[:MAX_REPLY])
    return _encode(result)


def cancel_with(state: TouchState, cause: str) -> Cancel:
    """Return the verdict that ends a job without an attempt, and that moves its touch to a state."""
    return Cancel(cause=cause, note=encode_result(DeliveryResult(state=state, cause=cause[:MAX_CAUSE])))


def event_result(event: Event) -> DeliveryResult | None:
    """Return the result that an event of the queue reports; None if it reports no result."""
    note = decode_result(event.note) if event.note else None
    state = _state(event, note)
    if state is None:
        return None
    if note is not None:
        return note if note.state is state else msgspec.structs.replace(note, state=state)
    return DeliveryResult(
        state=state,
        cause=_truncate(event.cause, MAX_CAUSE),
        reply=_truncate(event.error, MAX_REPLY),
    )


def has_row(event: Event, result: DeliveryResult) -> bool:
    """Return whether the ledger gets a row of ``delivery_event`` for an event.

    Args:
        event: The event.
        result: The result that it reports.

    Returns:
        False for a job that only waits again, and for each job of a cancelled campaign.
    """
    return result.state is not TouchState.QUEUED and (result.state is not TouchState.CANCELLED or bool(event.note))


def touch_result(event: Event, result: DeliveryResult) -> TouchResult:
    """Return the row of the ledger for the result of an event."""
    return TouchResult(
        uid=event.uid,
        touch_id=touch_of(event.id),
        state=result.state,
        claim=event.token,
        at_ms=event.at_ms,
        attempt=event.attempt,
        next_ms=event.next_ms if event.next_ms and result.state is TouchState.DEFERRED else None,
        reply_code=result.reply_code,
        enhanced_code=result.enhanced_code,
        reply=result.reply or None,
        cause=result.cause or None,
        blame=result.blame,
        words=result.words or None,
    )


def _truncate(text: str, length: int) -> str:
    # The queue's own error, as where a handler failed, may be longer than the column, and may contain NUL.
    return text.replace("\0", "")[:length]


def _state(event: Event, note: DeliveryResult | None) -> TouchState | None:
    match kind := event.kind:
        case EventKind.DONE | EventKind.LATE:
            return note.state if note is not None else None
        case EventKind.RETRY | EventKind.DEFER:
            # Without a note, the job was deferred before it was sent, as by the pause of a campaign.
            return TouchState.DEFERRED if note is not None or kind is EventKind.RETRY else TouchState.QUEUED
        case EventKind.DEAD:
            # After the last attempt the job is dead, also where the note defers it.
            bounced = note is not None and note.state is TouchState.BOUNCED
            return TouchState.BOUNCED if bounced else TouchState.DEAD
        case EventKind.UNCERTAIN:
            return TouchState.UNKNOWN
        case EventKind.CANCELLED if note is None and event.claim == 0:
            # The campaign was cancelled while the job was sent. The job was returned, and the queue ended it.
            return TouchState.CANCELLED
        case EventKind.CANCELLED:
            return note.state if note is not None else None
        case EventKind.EXPIRED:
            return TouchState.EXPIRED
        case EventKind.RELEASED:
            return TouchState.QUEUED
        case EventKind.REPLAYED:
            return None

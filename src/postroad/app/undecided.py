"""Decides what becomes of unknown and dead messages, as `postroad unknown resolve` and `postroad queue` do."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from postroad.app.context import AppContext
from postroad.app.replay import drop, replay
from postroad.app.unknown import resolve_each
from postroad.operations.unknown import Resolution
from postroad.queue import Queue
from postroad.store.ledger import TouchState


class Decision(StrEnum):
    """What a person decides about an undecided message."""

    DELIVERED = "delivered"  # it arrived
    SEND_AGAIN = "send-again"  # it did not arrive
    DROP = "drop"  # it is not sent again, whether it arrived or not


def decisions_for(state: TouchState) -> tuple[Decision, ...]:
    """Return the decisions about a message in this state. Empty: it is decided, or on its way."""
    match state:
        case TouchState.UNKNOWN:
            return tuple(Decision)
        case TouchState.DEAD:
            return (Decision.SEND_AGAIN, Decision.DROP)
        case _:
            return ()


async def decide(
    context: AppContext, queue: Queue, ids: Sequence[str], state: TouchState, decision: Decision, *, by: str
) -> int:
    """Decide about messages in one state. Those that left it meanwhile are skipped.

    A dropped message ends as cancelled. Of an unknown one the ledger first records that it is dead.

    Args:
        context: The open parts.
        queue: The queue of mail that has their jobs.
        ids: Ids of their touches.
        state: Unknown or dead.
        decision: One of `decisions_for` of the state.
        by: Who decides; kept in the ledger.

    Returns:
        How many were decided.

    Raises:
        UsageError: An id is not that of a touch.
        UnavailableError: The database or the queue is unavailable.
        ValueError: The state has no such decision.
    """
    if decision not in decisions_for(state):
        raise ValueError(f"{state} messages cannot be decided as {decision}")
    if state is TouchState.UNKNOWN:
        if decision is not Decision.DROP:
            resolution = Resolution.ACCEPTED if decision is Decision.DELIVERED else Resolution.NOT_SENT
            return len(await resolve_each(context, queue, ids, resolution, by=by))
        ids = await resolve_each(context, queue, ids, Resolution.DEAD, by=by)
    if decision is Decision.SEND_AGAIN:
        return await replay(context, queue, ids)
    return await drop(context, queue, ids, by=by)

"""How receivers are shown: links, colours of outcomes, and the limits of a sender at a provider with their use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from postroad.console.campaign_view import BarPart
from postroad.console.page_url import page_url
from postroad.console.queue_reply import queue_reply
from postroad.console.visit import Visit
from postroad.errors import PostroadError
from postroad.gates.name import GateName, Receiver
from postroad.queue import Gate, GateState
from postroad.read_model.receivers import ReceiverTraffic, TrafficWindow
from postroad.shaping.config import sender_route
from postroad.shaping.describe import ShapingStatus, known_receivers, shaping_status
from postroad.store.outcome import DeliveryOutcome
from postroad.store.shaping import open_changes

OUTCOME_TONES: Final[Mapping[DeliveryOutcome, str]] = {
    DeliveryOutcome.ACCEPTED: "good",
    DeliveryOutcome.DEFERRED: "warn",
    DeliveryOutcome.BOUNCED: "bad",
    DeliveryOutcome.COMPLAINED: "bad",
    DeliveryOutcome.DEAD: "end",
    DeliveryOutcome.UNKNOWN: "wait",
}


def receivers_url(*path: str, **query: object) -> str:
    """Return the URL of the receivers, or of a page below it, with query parameters that are not None."""
    return page_url("receivers", *path, **query)


def outcome_bar(row: ReceiverTraffic, window: TrafficWindow) -> list[BarPart]:
    """Return the outcomes of one sender at one provider as parts of a bar. Each links to its messages."""
    return [
        (
            outcome.value,
            getattr(row, outcome.value),
            receivers_url("messages", sender=row.sender, provider=row.provider, outcome=outcome.value, window=window),
            tone,
        )
        for outcome, tone in OUTCOME_TONES.items()
    ]


@dataclass(frozen=True, kw_only=True)
class QueueGates:
    """The gates of the queue of mail, by name. ``problem``: why they are unknown."""

    states: Mapping[str, GateState]
    problem: PostroadError | None = None


async def queue_gates(visit: Visit) -> QueueGates:
    """Return the gates of the queue of mail."""

    async def ask() -> QueueGates:
        queue = await visit.parts.queue()
        return QueueGates(states={state.gate.name: state for state in await queue.gates()})

    found = await queue_reply(ask())
    return QueueGates(states={}, problem=found) if isinstance(found, PostroadError) else found


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The limits of one sender at one mailbox provider, and their use.

    Attributes:
        per_minute: Messages a minute. None: no limit.
        connections: Messages at a time. None: no limit.
        in_flight: Messages that are being sent. None: it is not known.
        lanes: Lanes that wait for the gate.
        paused: Whether it is paused.
        is_known: Whether the queue has the gate. It makes the gate with the first message.
    """

    per_minute: float | None = None
    connections: int | None = None
    in_flight: int | None = None
    lanes: int = 0
    paused: bool = False
    is_known: bool = False


def pace_of(gates: QueueGates, sender: str, provider: str, now_ms: int) -> Pace:
    """Return the limits of a From address at a provider, as its gate has them now."""
    state = gates.states.get(str(GateName.at_receiver(sender, Receiver(provider))))
    if state is None:
        return Pace()
    gate = state.gate
    return Pace(
        per_minute=_per_minute(gate),
        connections=gate.concurrency,
        in_flight=state.in_flight,
        lanes=state.parked_lanes,
        paused=is_paused(gate, now_ms),
        is_known=True,
    )


def is_paused(gate: Gate, now_ms: int) -> bool:
    """Return whether a gate is paused now."""
    return gate.paused_until_ms is not None and gate.paused_until_ms > now_ms


def _per_minute(gate: Gate) -> float | None:
    return None if gate.rate is None else gate.rate.count / gate.rate.per_ms * 60_000


async def limits_at(visit: Visit, sender: str, provider: str, gates: QueueGates) -> Sequence[ShapingStatus]:
    """Return the limits of a From address at a provider and its sites and domains, as `postroad shaping show` does.

    Args:
        visit: The request.
        sender: From address.
        provider: The mailbox provider.
        gates: Gates of the queue.

    Returns:
        The limits that the shaping sets, those of the whole provider first.
    """
    context = visit.parts.context

    def read_limits(connection: sa.Connection) -> list[ShapingStatus]:
        changes, shaping = open_changes(connection), context.shaping
        known = known_receivers(connection, shaping, gates.states, changes)
        receivers = sorted({Receiver(provider), *(each for each in known if each.provider == provider)}, key=str)
        route = sender_route(context.settings, sender)
        found = shaping_status(shaping, context.settings.routes, [route], receivers, changes, context.clock.now())
        return [status for status in found if status.limits is not None or status.held]

    return await visit.read(read_limits)

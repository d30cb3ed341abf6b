"""The limits that the settings name, as gates of the queue. The queue's server keeps them, and may lose them."""

from __future__ import annotations

import asyncio
import logging

from postroad.clock import Clock
from postroad.delivery.gate_name import QUEUE_GATE, GateName
from postroad.errors import UnavailableError
from postroad.queue import Gate, Queue, Rate
from postroad.settings import QueueSettings, Settings
from postroad.settings import Rate as RateSetting

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
SETTINGS = "settings"
"""Owner of the gates that are set by the settings."""


def gates_of(settings: Settings, limits: QueueSettings) -> list[Gate]:
    """Gates of the queue and its senders. A sender without a rate has none: what an operator set by hand stands."""
    limited = [sender for sender in settings.senders.values() if sender.rate is not None]
    return [
        Gate(name=str(QUEUE_GATE), rate=gate_rate(limits.rate, limits.burst)),
        *(Gate(name=str(GateName.sender(sender.address)), rate=gate_rate(sender.rate, None)) for sender in limited),
    ]


def gate_rate(rate: RateSetting | None, burst: int | None) -> Rate | None:
    """Convert a rate of the settings to one of the queue. ``burst`` None: as `smooth_rate` says."""
    return None if rate is None else smooth_rate(rate.count, rate.per_ms, burst)


def smooth_rate(count: float, per_ms: int, burst: int | None = None) -> Rate:
    """A rate whose burst, where none is given, lets a worker claim in batches, and no receiver notices it: 50 ms'
    worth.
    """
    return Rate(count=count, per_ms=per_ms, burst=burst or max(1, round(count * 50 / per_ms)))


async def set_limits(queue: Queue, gates: list[Gate]) -> None:
    """Set the gates that the settings name, and lift the limits of those that they named once.

    They hold for all workers of the queue: the last one started says. A limit that a command set is not lifted.
    """
    await _set(queue, gates)
    named = {gate.name for gate in gates}
    for state in await queue.gates():
        if state.owner == SETTINGS and state.gate.name not in named:
            await queue.set_gate(Gate(name=state.gate.name))
            log.info("gate %s has no limit in the settings any more: its limit is lifted", state.gate.name)


async def _set(queue: Queue, gates: list[Gate]) -> None:
    for gate in gates:
        await queue.set_gate(gate, owner=SETTINGS)


async def restore_limits(queue: Queue, gates: list[Gate]) -> int:
    """Set the gates of which the queue knows no rate, as after its server was emptied. Returns how many."""
    known = {state.gate.name for state in await queue.gates() if state.gate.rate is not None}
    lost = [gate for gate in gates if gate.rate is not None and gate.name not in known]
    await _set(queue, lost)
    return len(lost)


async def keep_limits(queue: Queue, gates: list[Gate], clock: Clock) -> None:
    """Restore limits that the server lost, for as long as this runs: without them mail would leave unlimited."""
    while True:
        await clock.sleep(LOOK_SECONDS)
        try:
            restored = await asyncio.shield(restore_limits(queue, gates))
        except UnavailableError:
            continue  # The worker speaks of it.
        if restored:
            log.warning("the queue had lost %d limits; they are set again", restored)

"""What the settings contribute to gates: the rates of the queue and of its senders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from postroad.gates.name import QUEUE_GATE, GateName
from postroad.gates.plan import ALL_LIMITS, Contribution, GateLimit, SourceTraits
from postroad.queue import Gate, GateState, Rate
from postroad.settings import QueueSettings, RateSetting, Settings

SETTINGS = "settings"
"""Mark of the gates that are set by the settings."""
LIMITED = frozenset({GateLimit.RATE, GateLimit.CONCURRENCY})
"""Limits that settings have."""


def gates_of(settings: Settings, limits: QueueSettings) -> list[Gate]:
    """Return the gates of the queue and its senders.

    A sender without a rate has none, so that what an operator set by hand is kept.
    """
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


class SettingsLimits:
    """Contributes the limits of the settings.

    When a worker starts they are set, and those that left the settings are removed. They hold for all workers of the
    queue, so the last one started decides. Later they are only set where a gate has none, as after the queue was lost:
    what an operator sets meanwhile is kept until a worker starts.
    """

    def __init__(self, gates: Sequence[Gate], *, starting: bool = False) -> None:
        """Make the source.

        Args:
            gates: What the settings say, see `gates_of`.
            starting: A worker starts.
        """
        self._gates = gates
        self._decides = ALL_LIMITS if starting else frozenset()
        self.traits = SourceTraits(name=SETTINGS, limits=LIMITED, withdraws=starting)

    async def contribute(self, states: Mapping[str, GateState]) -> list[Contribution]:
        """Return the contribution to each gate that the settings name."""
        return [
            Contribution(
                source=SETTINGS,
                gate=gate.name,
                rate=gate.rate,
                concurrency=gate.concurrency,
                decides=self._decides,
            )
            for gate in self._gates
        ]

"""Contributes the rates of the settings to the gates of the queue and its senders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from postroad.gates.name import QUEUE_GATE, GateName
from postroad.gates.plan import ALL_LIMITS, Contribution, GateLimit, SourceTraits
from postroad.queue import Gate, GateState, Rate
from postroad.settings import QueueSettings, RateSetting, Settings

SETTINGS = "settings"
"""Mark of the gates that the settings set."""
LIMITED = frozenset({GateLimit.RATE, GateLimit.CONCURRENCY})
"""Limits that settings can have."""


def gates_of(settings: Settings, limits: QueueSettings) -> list[Gate]:
    """Return the gates of the queue and its senders.

    A sender without a rate has no gate here, so that a rate set by an operator is kept.
    """
    limited = [sender for sender in settings.senders.values() if sender.rate is not None]
    return [
        Gate(name=str(QUEUE_GATE), rate=gate_rate(limits.rate, limits.burst)),
        *(Gate(name=str(GateName.sender(sender.address)), rate=gate_rate(sender.rate, None)) for sender in limited),
    ]


def gate_rate(rate: RateSetting | None, burst: int | None) -> Rate | None:
    """Convert a rate of the settings to one of the queue. ``burst`` None: the default of `smooth_rate`."""
    return None if rate is None else smooth_rate(rate.count, rate.per_ms, burst)


def smooth_rate(count: float, per_ms: int, burst: int | None = None) -> Rate:
    """Return a rate with a small burst.

    Args:
        count: Jobs per interval.
        per_ms: The interval, in ms.
        burst: Jobs that may start at once. None: those of 50 ms, so that a worker can claim in batches.
    """
    return Rate(count=count, per_ms=per_ms, burst=burst or max(1, round(count * 50 / per_ms)))


class SettingsLimits:
    """Contributes the limits of the settings.

    When a worker starts they are set, and those removed from the settings are removed from the queue. They apply to all
    workers of the queue, so the last worker started decides. Later they are only set if a gate has none, as after a
    loss of the queue. So a limit set by an operator is kept until a worker starts.
    """

    def __init__(self, gates: Sequence[Gate], *, starting: bool = False) -> None:
        """Make the source.

        Args:
            gates: The gates of the settings, see `gates_of`.
            starting: Whether a worker starts.
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

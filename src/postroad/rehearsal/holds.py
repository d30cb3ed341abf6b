"""Adds up which gate held messages back, and for how long.

Every gate of the queue counts, so a limit that delivery changes meanwhile has a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from postroad.queue import FOREVER_MS, GateState, rate_in_words


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A gate that admitted none of the jobs that waited for it, and for how many seconds of the campaign's time."""

    gate: str
    why: str
    seconds: float


class Holds:
    """Adds up how long each gate held jobs."""

    def __init__(self, start_ms: int) -> None:
        self._last_ms = start_ms
        self._held_ms: dict[tuple[str, str], int] = {}

    def add(self, gates: Iterable[GateState], now_ms: int) -> None:
        """Count the time since the last call for every gate that holds a job now."""
        elapsed_ms, self._last_ms = now_ms - self._last_ms, now_ms
        for state in gates:
            if state.parked_lanes and state.capacity == 0:
                key = (state.gate.name, why_closed(state, now_ms))
                self._held_ms[key] = self._held_ms.get(key, 0) + elapsed_ms

    def summed(self) -> tuple[Hold, ...]:
        """Return all of them, the longest first."""
        found = sorted(self._held_ms.items(), key=lambda item: -item[1])
        return tuple(Hold(gate=gate, why=why, seconds=ms / 1000) for (gate, why), ms in found)


def why_closed(state: GateState, now_ms: int) -> str:
    """Return which limit of a gate admits nothing now, in words that do not change while it lasts."""
    gate = state.gate
    if gate.paused_until_ms is not None and gate.paused_until_ms > now_ms:
        return "paused until it is resumed" if gate.paused_until_ms >= FOREVER_MS else "paused for a while"
    if gate.concurrency is not None and state.in_flight >= gate.concurrency:
        return f"{gate.concurrency} at once"
    if gate.quota is not None and now_ms < gate.quota.until_ms and gate.quota.left <= 0:
        return "quota used up"
    return f"rate {rate_in_words(gate.rate)}" if gate.rate is not None else "closed"

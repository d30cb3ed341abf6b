"""Decides how fast the clock may run, so that the machine does not delay the campaign. Pure.

While no message can leave, the clock runs at the speed that was asked for, and stops at the next time at which one can.
While messages are in flight it runs no faster than this machine delivers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

SAMPLE_MS = 10
"""Interval of samples, in ms of real time."""
MAX_BUSY_SPEED = 100.0
"""A message of some 10 ms then takes about a second of the campaign's time, as in real life."""
FULL = 0.75
"""Share of the worker's slots that counts as all of them: some are always between two messages."""
LAGGING_EVENTS = 2_000
KEPT_UP_MS = 60_000
"""Lag that is tolerated, in ms of the campaign's clock."""


@dataclass(frozen=True, kw_only=True)
class SpeedSample:
    """The queue at one time. ``next_ms``: when a job may be ready. None: not known."""

    now_ms: int
    scheduled: int
    in_flight: int
    ready_lanes: int
    unrecorded: int
    next_ms: int | None


class ClockRun(NamedTuple):
    """How fast the clock may run, and until when."""

    speed: float
    until_ms: float


class SpeedController:
    """Chooses the speed after each sample, and keeps what it was."""

    def __init__(self, max_speed: float, slots: int, start_ms: int) -> None:
        self.lag_ms = 0
        """The longest time that this machine delayed a message that could leave, in ms of the campaign's clock."""
        self.full_ms = 0
        """Time during which every slot was taken while a message could leave, in ms of the campaign's clock."""
        self.slowest = max_speed
        self._max_speed = max_speed
        self._slots = slots
        self._busy_speed = min(10.0, max_speed)
        self._speed = min(1.0, max_speed)
        self._before_ms = start_ms
        self._lagging_ms = 0

    def next(self, sample: SpeedSample) -> ClockRun:
        """Return how the clock runs until the next sample."""
        elapsed_ms, self._before_ms = sample.now_ms - self._before_ms, sample.now_ms
        crowded = sample.ready_lanes > 0 and sample.in_flight >= FULL * self._slots
        lagging = crowded or sample.unrecorded > LAGGING_EVENTS
        if crowded:
            self.full_ms += elapsed_ms
        # At real time the rehearsal does not cause the lag: the campaign would lag as well.
        self._lagging_ms = self._lagging_ms + elapsed_ms if lagging and self._speed > 1.0 else 0
        overslept_ms = sample.now_ms - sample.next_ms if sample.next_ms is not None and sample.in_flight == 0 else 0
        self.lag_ms = max(self.lag_ms, self._lagging_ms, overslept_ms)
        run = self._decide(sample, lagging=lagging)
        self._speed = run.speed
        self.slowest = min(self.slowest, run.speed)
        return run

    def _decide(self, sample: SpeedSample, *, lagging: bool) -> ClockRun:
        if lagging:
            self._busy_speed = max(self._busy_speed / 2, min(1.0, self._max_speed))
        elif sample.in_flight:
            self._busy_speed = min(self._busy_speed * 1.2, MAX_BUSY_SPEED, self._max_speed)
        busy = sample.in_flight or sample.ready_lanes or sample.unrecorded
        # The worker asks within milliseconds for what was scheduled.
        unasked = sample.scheduled if sample.next_ms is None else sample.next_ms <= sample.now_ms
        if busy or unasked:
            return ClockRun(self._busy_speed, math.inf)
        return ClockRun(self._max_speed, math.inf if sample.next_ms is None else sample.next_ms)

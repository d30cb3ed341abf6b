"""How fast the clock may run now, so that the machine is not what holds a campaign up. Decides, and does nothing.

While nothing can leave, the clock runs as fast as it was asked to, and no further than to the next instant at which
something can. While messages are on their way it runs no faster than this machine delivers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

LOOK_MS = 10
"""How often the pace is looked at, in real time."""
BUSY_MOST = 100.0
"""So that a message of some 10 ms takes about a second of the campaign's time, as it would in real life."""
FULL = 0.75
"""Share of the worker's slots from which on they count as all taken: some are always between two messages."""
BEHIND_EVENTS = 2_000
KEPT_UP_MS = 60_000
"""Being late by no more than this on the campaign's clock is keeping up."""


@dataclass(frozen=True, kw_only=True)
class SpeedSample:
    """What is seen at one instant. ``next_ms``: when there may be something to claim, if that is known."""

    now_ms: int
    scheduled: int
    in_flight: int
    ready_lanes: int
    unrecorded: int
    next_ms: int | None


class ClockRun(NamedTuple):
    """How fast the clock may run, and up to which instant."""

    speed: float
    until_ms: float


class SpeedController:
    """The speed from look to look, and what it was."""

    def __init__(self, most: float, slots: int, start_ms: int) -> None:
        self.lag_ms = 0
        """The longest that something could have gone and this machine was not there for it, on the campaign's clock."""
        self.full_ms = 0
        """For how long of the campaign's time every slot was taken while something could have gone."""
        self.slowest = most
        self._most = most
        self._slots = slots
        self._busy_speed = min(10.0, most)
        self._speed = min(1.0, most)
        self._before_ms = start_ms
        self._behind_ms = 0

    def next(self, look: SpeedSample) -> ClockRun:
        """Take a look into account, and say how the clock runs until the next one."""
        elapsed_ms, self._before_ms = look.now_ms - self._before_ms, look.now_ms
        crowded = look.ready_lanes > 0 and look.in_flight >= FULL * self._slots
        behind = crowded or look.unrecorded > BEHIND_EVENTS
        if crowded:
            self.full_ms += elapsed_ms
        # At the speed of the world it is not the rehearsal that makes it late: it would be late in earnest.
        self._behind_ms = self._behind_ms + elapsed_ms if behind and self._speed > 1.0 else 0
        overslept_ms = look.now_ms - look.next_ms if look.next_ms is not None and look.in_flight == 0 else 0
        self.lag_ms = max(self.lag_ms, self._behind_ms, overslept_ms)
        run = self._decide(look, behind=behind)
        self._speed = run.speed
        self.slowest = min(self.slowest, run.speed)
        return run

    def _decide(self, look: SpeedSample, *, behind: bool) -> ClockRun:
        if behind:
            self._busy_speed = max(self._busy_speed / 2, min(1.0, self._most))
        elif look.in_flight:
            self._busy_speed = min(self._busy_speed * 1.2, BUSY_MOST, self._most)
        busy = look.in_flight or look.ready_lanes or look.unrecorded
        # That the worker has not asked yet, or not since something was scheduled, is a matter of milliseconds.
        unasked = look.scheduled if look.next_ms is None else look.next_ms <= look.now_ms
        if busy or unasked:
            return ClockRun(self._busy_speed, math.inf)
        return ClockRun(self._most, math.inf if look.next_ms is None else look.next_ms)

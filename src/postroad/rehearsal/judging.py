"""Which lists are paused, judged as the recorder does it: whenever something new was recorded.

The breaker sleeps between its looks, by a clock that would have passed many messages by then. Here it is told when to
look, and time stands still while it does.
"""

from __future__ import annotations

import asyncio
import time

from postroad.clock import ScaledClock
from postroad.delivery.cohorts.breaker import CohortBreaker
from postroad.delivery.record import Recorder

RESTS = 4.0
"""After a look no other one for so many times as long, in real time: a large ledger takes longer to look at."""


class Judging:
    """The cohort breaker of a rehearsal."""

    def __init__(self, breaker: CohortBreaker, recorder: Recorder, clock: ScaledClock) -> None:
        self._breaker = breaker
        self._recorder = recorder
        self._clock = clock
        self._recorded = 0
        self._rests_until_s = 0.0

    async def look(self) -> None:
        """Judge, if there is anything new. Raises UnavailableError."""
        recorded, began_s = self._recorder.recorded, time.monotonic()
        if recorded == self._recorded or began_s < self._rests_until_s:
            return
        with self._clock.held():
            await asyncio.to_thread(self._breaker.turn)
        self._recorded = recorded
        ended_s = time.monotonic()
        self._rests_until_s = ended_s + RESTS * (ended_s - began_s)

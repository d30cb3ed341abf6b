"""Checks cohorts as the recorder does: whenever something new was recorded.

The breaker sleeps between its checks. On a fast clock many messages would pass meanwhile, so a rehearsal starts each
check itself, and holds the clock while it runs.
"""

from __future__ import annotations

import asyncio
import time

from postroad.clock import ScaledClock
from postroad.delivery.recorder import Recorder
from postroad.senders.cohort_breaker import CohortBreaker

REST_FACTOR = 4.0
"""The next check starts after this multiple of the real time that the last one took: a large ledger takes longer."""


class CohortWatch:
    """The cohort breaker of a rehearsal."""

    def __init__(self, breaker: CohortBreaker, recorder: Recorder, clock: ScaledClock) -> None:
        self._breaker = breaker
        self._recorder = recorder
        self._clock = clock
        self._recorded = 0
        self._next_s = 0.0

    async def check(self) -> None:
        """Check cohorts if anything was recorded since the last check.

        Raises:
            UnavailableError: The database is unavailable.
        """
        recorded, began_s = self._recorder.recorded, time.monotonic()
        if recorded == self._recorded or began_s < self._next_s:
            return
        with self._clock.paused():
            await asyncio.to_thread(self._breaker.run_once)
        self._recorded = recorded
        ended_s = time.monotonic()
        self._next_s = ended_s + REST_FACTOR * (ended_s - began_s)

"""A circuit breaker: a host that fails is left alone for a while, then tried by one message."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import assert_never

from postroad.clock import Clock

log = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 3
WINDOW = 20
"""Outcomes that the share of failures is taken of."""
FAILING_SHARE = 0.5
PAUSES_MS: Sequence[int] = (5_000, 10_000, 20_000, 60_000, 300_000)
"""How long it is left alone the first, second, … time in a row; the last repeats."""


class BreakerState(StrEnum):
    """Whether a host is used."""

    CLOSED = "closed"  # as usual
    OPEN = "open"  # left alone
    HALF_OPEN = "half-open"  # one message tries it


class Breaker:
    """The breaker of one host. Ask `begin`, and say `succeeded`, `failed` or `gave_up` for each that it let through."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.failures = 0
        """Since the process began."""
        self._clock = clock
        self._state = BreakerState.CLOSED
        self._in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._openings = 0  # in a row, without a success between
        self._until_ms = 0

    @property
    def state(self) -> BreakerState:
        return self._state

    @property
    def healthy(self) -> bool:
        """Whether it answered last."""
        return self._state is BreakerState.CLOSED and self._in_a_row == 0

    @property
    def until_ms(self) -> int:
        """When an open one lets a message through, epoch."""
        return self._until_ms

    @property
    def admits(self) -> bool:
        """Whether `begin` would let a message through now."""
        match self._state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return self._clock.now_ms() >= self._until_ms
            case BreakerState.HALF_OPEN:
                return False  # one is on its way to find out
            case other:
                assert_never(other)

    def begin(self) -> bool:
        """Whether a message may try. From an open one, the first that may is the probe."""
        if not self.admits:
            return False
        if self._state is BreakerState.OPEN:
            self._state = BreakerState.HALF_OPEN
        return True

    def succeeded(self) -> None:
        """It answered, whatever it said."""
        if self._state is not BreakerState.CLOSED:
            log.info("%s answers again", self.name)
            self._recent.clear()
        self._state = BreakerState.CLOSED
        self._in_a_row = self._openings = 0
        self._recent.append(True)

    def failed(self, why: str) -> None:
        """No session could be had, or it was lost."""
        self.failures += 1
        self._in_a_row += 1
        self._recent.append(False)
        match self._state:
            case BreakerState.OPEN:
                return  # It was on its way when others failed: that is the same failure.
            case BreakerState.CLOSED:
                full = len(self._recent) == WINDOW
                share = self._recent.count(False) / WINDOW
                if self._in_a_row < FAILURES_IN_A_ROW and not (full and share >= FAILING_SHARE):
                    return
            case BreakerState.HALF_OPEN:
                pass
            case other:
                assert_never(other)
        pause_ms = PAUSES_MS[min(self._openings, len(PAUSES_MS) - 1)]
        self._openings += 1
        self._state, self._until_ms = BreakerState.OPEN, self._clock.now_ms() + pause_ms
        log.warning("%s is left alone for %g s: %s", self.name, pause_ms / 1000, why)

    def gave_up(self) -> None:
        """It was not found out: the message was taken back. The next one tries."""
        if self._state is BreakerState.HALF_OPEN:
            self._state = BreakerState.OPEN

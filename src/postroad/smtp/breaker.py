"""A circuit breaker: a host that fails gets no messages for a while, then one message as a probe."""

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
"""Number of recent outcomes from which the share of failures is computed."""
FAILING_SHARE = 0.5
PAUSES_MS: Sequence[int] = (5_000, 10_000, 20_000, 60_000, 300_000)
"""Duration of the first, second, … consecutive pause; the last one repeats."""


class BreakerState(StrEnum):
    """State of a circuit breaker."""

    CLOSED = "closed"  # every message is let through
    OPEN = "open"  # no message is let through
    HALF_OPEN = "half-open"  # one message probes the host


class Breaker:
    """The circuit breaker of one host.

    Call `allow` before a message. If it returns True, call `succeeded`, `failed` or `release` afterwards.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.failures = 0
        """Failures since the process started."""
        self._clock = clock
        self._state = BreakerState.CLOSED
        self._consecutive_failures = 0
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._consecutive_pauses = 0  # without a success between them
        self._until_ms = 0

    @property
    def state(self) -> BreakerState:
        return self._state

    @property
    def healthy(self) -> bool:
        """Whether the host answered last."""
        return self._state is BreakerState.CLOSED and self._consecutive_failures == 0

    @property
    def until_ms(self) -> int:
        """Time at which an open breaker lets a message through, ms since the epoch."""
        return self._until_ms

    @property
    def admits(self) -> bool:
        """Whether `allow` would let a message through now."""
        match self._state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return self._clock.now_ms() >= self._until_ms
            case BreakerState.HALF_OPEN:
                return False  # a probe is in progress
            case other:
                assert_never(other)

    def allow(self) -> bool:
        """Return whether a message may be sent. The first message that an open breaker lets through is the probe."""
        if not self.admits:
            return False
        if self._state is BreakerState.OPEN:
            self._state = BreakerState.HALF_OPEN
        return True

    def succeeded(self) -> None:
        """Record that the host answered, with whatever reply."""
        if self._state is not BreakerState.CLOSED:
            log.info("%s answers again", self.name)
            self._recent.clear()
        self._state = BreakerState.CLOSED
        self._consecutive_failures = self._consecutive_pauses = 0
        self._recent.append(True)

    def failed(self, reason: str) -> None:
        """Record that no session could be opened, or that it was lost."""
        self.failures += 1
        self._consecutive_failures += 1
        self._recent.append(False)
        match self._state:
            case BreakerState.OPEN:
                return  # This message left before the breaker opened: it is part of the same failure.
            case BreakerState.CLOSED:
                full = len(self._recent) == WINDOW
                share = self._recent.count(False) / WINDOW
                if self._consecutive_failures < FAILURES_IN_A_ROW and not (full and share >= FAILING_SHARE):
                    return
            case BreakerState.HALF_OPEN:
                pass
            case other:
                assert_never(other)
        pause_ms = PAUSES_MS[min(self._consecutive_pauses, len(PAUSES_MS) - 1)]
        self._consecutive_pauses += 1
        self._state, self._until_ms = BreakerState.OPEN, self._clock.now_ms() + pause_ms
        log.warning("%s is not used for %g s: %s", self.name, pause_ms / 1000, reason)

    def release(self) -> None:
        """Record that a message was withdrawn before the host could answer. The next message is the probe."""
        if self._state is BreakerState.HALF_OPEN:
            self._state = BreakerState.OPEN

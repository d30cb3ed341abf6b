"""Waiting longer each time something fails."""

from __future__ import annotations

from random import Random


class Backoff:
    """``first_s``, doubling up to ``most_s``; each delay is spread over its upper half, so that many do not
    come back at once.
    """

    def __init__(self, rng: Random, *, first_s: float = 0.1, most_s: float = 5.0) -> None:
        self._rng = rng
        self._first_s = first_s
        self._most_s = most_s
        self.failures = 0

    def next_s(self) -> float:
        delay_s = min(self._first_s * 2.0**self.failures, self._most_s)
        # The exponent stops growing with the delay.
        self.failures = min(self.failures + 1, 64)
        return delay_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> bool:
        """Return whether there was anything to reset."""
        failed, self.failures = self.failures > 0, 0
        return failed

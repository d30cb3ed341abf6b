"""A model of a gate in plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

FOREVER_MS = 2**53 - 1


@dataclass
class ModelGate:
    rate: tuple[float, int, int] | None = None
    limit: int | None = None
    left: int | None = None
    quota_ms: int = 0
    quota_token: int = 0
    paused_ms: int = 0
    paused_set_ms: int = 0
    tat_us: int = 0
    in_flight: int = 0

    @property
    def interval_us(self) -> float:
        assert self.rate
        return self.rate[1] * 1000 / self.rate[0]

    def clock_stepped_back(self, now_ms: int) -> None:
        """Limit stored times that are in the future now: a pause to its length, a rate to its burst."""
        if self.rate:
            self.tat_us = min(self.tat_us, math.ceil(now_ms * 1000 + self.rate[2] * self.interval_us))
        if now_ms < self.paused_set_ms and 0 < self.paused_ms < FOREVER_MS:
            self.paused_ms = now_ms + max(self.paused_ms - self.paused_set_ms, 0)
            self.paused_set_ms = now_ms

    def set_rate(self, rate: tuple[float, int, int] | None, now_ms: int) -> None:
        self.rate = rate
        if rate:
            self.tat_us = min(self.tat_us, math.ceil(now_ms * 1000 + rate[2] * self.interval_us))

    def set_quota(self, left: int | None, until_ms: int, token: int) -> None:
        self.left = left
        if left is not None:
            self.quota_ms, self.quota_token = until_ms, token

    def suspend(self, until_ms: int, now_ms: int) -> None:
        self.paused_set_ms = now_ms
        self.paused_ms = until_ms

    def room(self, now_ms: int) -> float:
        return min(self._limits(now_ms), default=math.inf)

    def _limits(self, now_ms: int) -> Iterable[float]:
        if self.paused_ms > now_ms:
            yield 0
        if self.limit is not None:
            yield max(self.limit - self.in_flight, 0)
        if self.left is not None and now_ms < self.quota_ms:
            yield max(self.left, 0)
        if self.rate:
            ahead_us = max(self.tat_us - now_ms * 1000, 0)
            room = (self.rate[2] * self.interval_us - ahead_us) / self.interval_us
            yield max(math.floor(room + 1e-9), 0)

    def opens_ms(self, now_ms: int) -> float:
        """Return the earliest time at which the gate may admit again if nothing else happens."""
        opens: float = now_ms
        if self.paused_ms > now_ms:
            opens = math.inf if self.paused_ms >= FOREVER_MS else self.paused_ms
        if self.limit is not None and self.in_flight >= self.limit:
            opens = math.inf
        if self.left is not None and now_ms < self.quota_ms and self.left <= 0:
            opens = max(opens, self.quota_ms)
        if self.rate:
            opens = max(opens, math.ceil((self.tat_us - (self.rate[2] - 1) * self.interval_us) / 1000))
        return opens

    def debit(self, n: int, now_ms: int) -> None:
        self.in_flight += n
        if self.left is not None and now_ms < self.quota_ms:
            self.left -= n
        if self.rate:
            self.tat_us = math.ceil(max(self.tat_us, now_ms * 1000) + n * self.interval_us)

    def credit(self, refund_token: int | None, now_ms: int) -> None:
        self.in_flight -= 1
        if refund_token is None:
            return
        if self.left is not None and now_ms < self.quota_ms and refund_token > self.quota_token:
            self.left += 1
        if self.rate:
            self.tat_us -= math.floor(self.interval_us)

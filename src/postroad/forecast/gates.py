"""Gates in a simulation: how many messages each admits in a span of time, and when it opens. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Protocol

from postroad.queue import Quota, Rate
from postroad.warmup.caps import Cap, combine_caps, opens_at, spread_ms
from postroad.warmup.day import day_of, midnight
from postroad.warmup.decide import KEPT_DAYS, WarmupDay, decide
from postroad.warmup.health import Counts
from postroad.warmup.identity import WarmingIdentity
from postroad.warmup.overflow import capacity_until
from postroad.warmup.plan import plan_for

_NONE_LEFT = 1e-6
"""Amounts of messages are real numbers. Less than this is nothing."""


class SimulatedGate(Protocol):
    """A gate. Times are in seconds since the epoch."""

    @property
    def name(self) -> str:
        """The name of the gate in the queue."""
        ...

    def capacity(self, now: float, seconds: float) -> float:
        """Return how many messages it admits between ``now`` and ``seconds`` later."""
        ...

    def take(self, now: float, messages: float) -> None:
        """Count messages that passed it. Times never go back."""
        ...

    def opens(self, now: float) -> float:
        """Return the first time, not before ``now``, at which it admits anything; infinite if it never does."""
        ...

    def limit(self, now: float) -> str:
        """Return its limit as text, such as ``rate 60/1h``."""
        ...


class RateGate:
    """A gate with a rate, a quota or a pause, any of which may be absent."""

    def __init__(
        self,
        name: str,
        *,
        rate: Rate | None = None,
        quota: Quota | None = None,
        paused_until: float = 0.0,
        factor: float = 1.0,
    ) -> None:
        """Make a gate. ``factor``: its rate is multiplied by this."""
        self.name = name
        self._per_s = rate.count / rate.per_ms * 1000 * factor if rate is not None else inf
        self._shown = f"rate {rate.count * factor:g} in {rate.per_ms / 1000:g} s" if rate is not None else "no limit"
        self._left = float(quota.left) if quota is not None else inf
        self._quota_ends = quota.until_ms / 1000 if quota is not None else 0.0
        self._paused_until = paused_until

    def capacity(self, now: float, seconds: float) -> float:
        if now < self._paused_until:
            return 0.0
        admitted = self._per_s * seconds
        return min(admitted, self._left) if now < self._quota_ends else admitted

    def take(self, now: float, messages: float) -> None:
        if now < self._quota_ends:
            self._left -= messages

    def opens(self, now: float) -> float:
        at = max(now, self._paused_until)
        return self._quota_ends if at < self._quota_ends and self._left < _NONE_LEFT else at

    def limit(self, now: float) -> str:
        if now < self._paused_until:
            until = "it is resumed" if self._paused_until == inf else f"{_utc(self._paused_until):%Y-%m-%d %H:%M} UTC"
            return f"paused until {until}"
        return "quota used up" if now < self._quota_ends and self._left < _NONE_LEFT else self._shown


class WarmupGate:
    """The gate of identities with the same senders at one mailbox provider. Its cap changes from day to day.

    Each day is decided as the warmup decides it, from the days before. Everything that is sent counts as accepted.
    """

    def __init__(
        self,
        name: str,
        provider: str,
        identities: Sequence[WarmingIdentity],
        history: Sequence[Sequence[WarmupDay]],
        *,
        now: float,
        used: float,
        factor: float = 1.0,
    ) -> None:
        """Begin on the day of ``now``.

        Args:
            name: Name of the gate.
            provider: The mailbox provider.
            identities: The identities, the narrowest first, whose zone and hours apply.
            history: Days of each identity up to today, the oldest first; today's may be missing.
            now: The time.
            used: Messages that were sent today.
            factor: Its caps are multiplied by this.
        """
        self.name = name
        self._provider = provider
        self._identities = identities
        self._first = identities[0]
        self._used, self._factor = used, factor
        self._day = day_of(self._first, _utc(now))
        self._days = [list(days) for days in history]
        for place in range(len(identities)):
            if not self._days[place] or self._days[place][-1].day != self._day:
                self._decide(place)
        self._hours_s = spread_ms(self._first.warmup) / 1000

    @property
    def cap(self) -> Cap:
        """Today's cap, and the end of a pause."""
        newest = [days[-1] for days in self._days]
        return combine_caps(Cap(cap=round(day.cap * self._factor), paused_until=day.paused_until) for day in newest)

    def capacity(self, now: float, seconds: float) -> float:
        self._advance(now)
        if self._opens_at(now) > now:
            return 0.0
        cap = self.cap.cap
        return min(max(cap - self._used, 0.0), cap / self._hours_s * seconds)

    def take(self, now: float, messages: float) -> None:
        self._used += messages

    def opens(self, now: float) -> float:
        self._advance(now)
        if self.cap.cap - self._used < _NONE_LEFT:
            return self._opens_at(midnight(self._day + timedelta(days=1), self._first.zone).timestamp())
        return self._opens_at(now)

    def limit(self, now: float) -> str:
        self._advance(now)
        return "outside its hours" if self._opens_at(now) > now else f"cap {self.cap.cap:,} on {self._day}"

    def capacity_until(self, now: float, until: float) -> int:
        """Return how many messages its caps admit until a time, as overflow estimates it: without growth."""
        self._advance(now)
        return capacity_until(self._first.warmup, self._first, self.cap, round(self._used), _utc(now), _utc(until))

    def _opens_at(self, now: float) -> float:
        return opens_at(self._first.warmup, self._first, self.cap, _utc(now)).timestamp()

    def _advance(self, now: float) -> None:
        today = day_of(self._first, _utc(now))
        while self._day < today:
            for days in self._days:
                sent = round(self._used / self._factor)
                ended = days[-1]
                days[-1] = WarmupDay(
                    day=ended.day,
                    cap=ended.cap,
                    move=ended.move,
                    reason=ended.reason,
                    paused_until=ended.paused_until,
                    counts=Counts(attempts=sent, accepted=sent),
                )
            self._day += timedelta(days=1)
            self._used = 0.0
            for place in range(len(self._identities)):
                self._decide(place)

    def _decide(self, place: int) -> None:
        identity, days = self._identities[place], self._days[place]
        plan = plan_for(identity.warmup, self._provider)
        days.append(decide(plan, days, today=self._day, now=midnight(self._day, identity.zone).astimezone(UTC)))
        del days[:-KEPT_DAYS]


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)

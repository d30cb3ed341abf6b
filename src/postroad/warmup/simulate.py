"""Simulates a warmup: makes the real decisions on days with given rates. Deterministic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta

from msgspec import Struct

from postroad.warmup.decide import KEPT_DAYS, WarmupDay, decide
from postroad.warmup.health import Counts
from postroad.warmup.plan import Plan


class Rates(Struct, frozen=True, kw_only=True):
    """Shares of a day's attempts. ``complained`` is a share of accepted messages, ``used`` a share of the cap."""

    bounced: float = 0.0
    complained: float = 0.0
    deferred: float = 0.0
    blocked: float = 0.0
    used: float = 1.0


class SimulatedDay(Struct, frozen=True, kw_only=True):
    """A day with its number from 1 and the plan's cap for it."""

    number: int
    planned: int
    day: WarmupDay


class _Rounder:
    """Rounds amounts down and carries the remainder over to the next day."""

    def __init__(self) -> None:
        self._remainders: dict[str, float] = {}

    def round(self, name: str, amount: float) -> int:
        exact = amount + self._remainders.get(name, 0.0)
        whole = int(exact + 1e-9)
        self._remainders[name] = exact - whole
        return whole


def simulate(plan: Plan, days: int, rates_on: Callable[[int], Rates], *, start: date) -> Iterator[SimulatedDay]:
    """Yield simulated days, which begin at midnight UTC.

    Args:
        plan: The plan that caps follow.
        days: Number of days.
        rates_on: Function from a day's number, from 1, to its rates.
        start: The first day.
    """
    rounder = _Rounder()
    history: list[WarmupDay] = []
    planned = plan.caps()
    for number in range(1, days + 1):
        today = start + timedelta(days=number - 1)
        now = datetime.combine(today, time(), tzinfo=UTC)
        decided = decide(plan, history, today=today, now=now)
        paused = decided.paused_until is not None and decided.paused_until > now
        counts = Counts() if paused else _simulate_mail(decided.cap, rates_on(number), rounder)
        day = WarmupDay(
            day=today,
            cap=decided.cap,
            move=decided.move,
            reason=decided.reason,
            paused_until=decided.paused_until,
            counts=counts,
        )
        history = [*history[-KEPT_DAYS:], day]
        yield SimulatedDay(number=number, planned=next(planned), day=day)


def _simulate_mail(cap: int, rates: Rates, rounder: _Rounder) -> Counts:
    attempts = min(rounder.round("used", cap * rates.used), cap)
    left = attempts
    failed = {}
    for outcome in ("deferred", "bounced", "blocked"):
        failed[outcome] = min(rounder.round(outcome, attempts * getattr(rates, outcome)), left)
        left -= failed[outcome]
    complained = min(rounder.round("complained", left * rates.complained), left)
    return Counts(attempts=attempts, accepted=left, complained=complained, **failed)

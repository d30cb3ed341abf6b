"""What a warmup would come to if mail went so and so: the same decisions on made-up days. No chance in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta

from msgspec import Struct

from postroad.warmup.decide import KEPT_DAYS, WarmupDay, decide
from postroad.warmup.health import Counts
from postroad.warmup.plan import Plan


class Rates(Struct, frozen=True, kw_only=True):
    """Shares of a day's attempts, but complaints: of what was accepted. ``used``: of the cap."""

    bounced: float = 0.0
    complained: float = 0.0
    deferred: float = 0.0
    blocked: float = 0.0
    used: float = 1.0


class SimulatedDay(Struct, frozen=True, kw_only=True):
    """A day, counted from 1, beside the cap that the plan has for it."""

    number: int
    planned: int
    day: WarmupDay


class _Whole:
    """Makes whole numbers of shares: what is left over counts on the next day."""

    def __init__(self) -> None:
        self._left: dict[str, float] = {}

    def of(self, what: str, amount: float) -> int:
        exact = amount + self._left.get(what, 0.0)
        whole = int(exact + 1e-9)
        self._left[what] = exact - whole
        return whole


def simulate(plan: Plan, days: int, rates_on: Callable[[int], Rates], *, start: date) -> Iterator[SimulatedDay]:
    """Yield so many days; ``rates_on``: the rates of a day, by its number from 1 on. Days begin at midnight UTC."""
    whole = _Whole()
    history: list[WarmupDay] = []
    planned = plan.caps()
    for number in range(1, days + 1):
        today = start + timedelta(days=number - 1)
        now = datetime.combine(today, time(), tzinfo=UTC)
        decided = decide(plan, history, today=today, now=now)
        paused = decided.paused_until is not None and decided.paused_until > now
        counts = Counts() if paused else _mail(decided.cap, rates_on(number), whole)
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


def _mail(cap: int, rates: Rates, whole: _Whole) -> Counts:
    attempts = min(whole.of("used", cap * rates.used), cap)
    left = attempts
    taken = {}
    for what in ("deferred", "bounced", "blocked"):
        taken[what] = min(whole.of(what, attempts * getattr(rates, what)), left)
        left -= taken[what]
    complained = min(whole.of("complained", left * rates.complained), left)
    return Counts(attempts=attempts, accepted=left, complained=complained, **taken)

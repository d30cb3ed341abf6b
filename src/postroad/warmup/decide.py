"""What a day's cap is, from the days before it: a pure function, run once for each day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import takewhile
from types import MappingProxyType
from typing import assert_never

from msgspec import Struct

from postroad.warmup.health import Counts, HealthAssessment, WarmupHealth, judge, judged, total
from postroad.warmup.plan import Plan

JUDGED_DAYS = 7
NOTHING_REPORTED: Mapping[date, float] = MappingProxyType({})
USED = 0.9
"""Share of a cap that must have been delivered before the next one is larger."""
IDLE_WEEK, IDLE_RESTART = 7, 30
PAUSE = timedelta(hours=24)
KEPT_DAYS = IDLE_RESTART + JUDGED_DAYS + 8
"""How many days before it a decision looks at: more than silence counts."""


class Move(StrEnum):
    """What was decided for a day."""

    START = "start"
    GROW = "grow"
    HOLD = "hold"
    SLOW = "slow"
    PAUSE = "pause"
    IDLE = "idle"  # halved: nothing was sent for a week
    RESTART = "restart"
    MISSED = "missed"  # nobody decided; the cap of the day before held
    OVERRIDE = "override"


_USED_UP = (Move.START, Move.SLOW, Move.PAUSE, Move.RESTART, Move.OVERRIDE)
"""What was seen before such a day has had its effect, and is not held against the sender again."""


class WarmupDay(Struct, frozen=True, kw_only=True):
    """One day of one identity at one provider: its cap, why, and what became of its mail."""

    day: date
    cap: int
    move: Move
    reason: str
    paused_until: datetime | None = None
    counts: Counts = Counts()


def decide(
    plan: Plan,
    history: Sequence[WarmupDay],
    *,
    today: date,
    now: datetime,
    reported: Mapping[date, float] = NOTHING_REPORTED,
) -> WarmupDay:
    """Return the day that is to be, from all days before it: none missing (`fill`), the oldest first.

    ``reported``: shares of a day's mail that people called spam, as the mailbox provider says.
    """
    if not history:
        return WarmupDay(day=today, cap=plan.first, move=Move.START, reason="the first day")
    last = history[-1]
    cap = min(last.cap, plan.ceiling)
    idle = len(list(takewhile(lambda day: day.counts.attempts == 0, reversed(history))))
    still_paused = last.paused_until if last.paused_until is not None and last.paused_until > now else None
    if idle >= IDLE_RESTART:
        # A pause that is still on is not ended by silence.
        reason = f"nothing was sent for {idle} days: it starts again"
        return WarmupDay(day=today, cap=plan.first, move=Move.RESTART, reason=reason, paused_until=still_paused)
    if weeks := _idle_weeks(history, idle):
        reason = f"nothing was sent for {idle} days: half as much for each week"
        least = min(cap, plan.first)
        return WarmupDay(
            day=today, cap=max(cap >> weeks, least), move=Move.IDLE, reason=reason, paused_until=still_paused
        )
    if still_paused is not None:
        return WarmupDay(day=today, cap=cap, move=Move.HOLD, reason="it is paused", paused_until=still_paused)
    evidence = _evidence(history, today)
    seen = total(day.counts for day in evidence)
    complaints = sum(max(day.counts.complained, reported.get(day.day, 0.0) * day.counts.accepted) for day in evidence)
    judgement = judge(seen, complaints) if judged(seen, cap) else HealthAssessment(WarmupHealth.HEALTHY, "")
    return _by_health(plan, history[-1], cap, judgement, today=today, now=now)


def _by_health(
    plan: Plan, last: WarmupDay, cap: int, judgement: HealthAssessment, *, today: date, now: datetime
) -> WarmupDay:
    health, reason = judgement
    match health:
        case WarmupHealth.HEALTHY:
            return _by_use(plan, last, cap, today)
        case WarmupHealth.HOLD:
            return WarmupDay(day=today, cap=cap, move=Move.HOLD, reason=reason)
        case WarmupHealth.SLOW:
            return WarmupDay(day=today, cap=max(cap // 2, 1), move=Move.SLOW, reason=reason)
        case WarmupHealth.PAUSE:
            return WarmupDay(day=today, cap=max(cap // 4, 1), move=Move.PAUSE, reason=reason, paused_until=now + PAUSE)
        case other:
            assert_never(other)


def _by_use(plan: Plan, last: WarmupDay, cap: int, today: date) -> WarmupDay:
    delivered = f"{last.counts.accepted:,} of {last.cap:,} delivered the day before"
    if last.counts.accepted < USED * last.cap:
        return WarmupDay(day=today, cap=cap, move=Move.HOLD, reason=f"{delivered}; it grows from {USED:.0%} on")
    if cap >= plan.ceiling:
        return WarmupDay(day=today, cap=cap, move=Move.HOLD, reason="it is at its ceiling")
    return WarmupDay(day=today, cap=plan.after(cap), move=Move.GROW, reason=delivered)


def _evidence(history: Sequence[WarmupDay], today: date) -> list[WarmupDay]:
    """Days that are judged: the last week's, from the last one on that was decided for what had been seen."""
    since = today - timedelta(days=JUDGED_DAYS)
    week = [day for day in history if day.day >= since]
    starts = [place for place, day in enumerate(week) if day.move in _USED_UP]
    return week[starts[-1] :] if starts else week


def _idle_weeks(history: Sequence[WarmupDay], idle: int) -> int:
    """Idle weeks that ended since somebody last decided."""
    missed = len(list(takewhile(lambda day: day.move is Move.MISSED, reversed(history))))
    return idle // IDLE_WEEK - max(idle - missed - 1, 0) // IDLE_WEEK


def fill(history: Sequence[WarmupDay], *, until: date) -> list[WarmupDay]:
    """Return the days with those that nobody decided put between, up to and without ``until``."""
    filled: list[WarmupDay] = []
    for day in [*history, None]:
        end = day.day if day is not None else until
        while filled and (missed := filled[-1].day + timedelta(days=1)) < end:
            last = filled[-1]
            reason = "nobody decided on this day; the cap of the day before held"
            filled.append(
                WarmupDay(day=missed, cap=last.cap, move=Move.MISSED, reason=reason, paused_until=last.paused_until)
            )
        if day is not None:
            filled.append(day)
    return filled

"""Decides a day's cap from the previous days. Pure functions; one decision for each day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import takewhile
from types import MappingProxyType
from typing import assert_never

from msgspec import Struct

from postroad.warmup.health import Counts, HealthAssessment, WarmupHealth, assess, has_enough_data, total
from postroad.warmup.plan import Plan

ASSESSED_DAYS = 7
NOTHING_REPORTED: Mapping[date, float] = MappingProxyType({})
USED = 0.9
"""Share of a cap that must be delivered before the next cap is larger."""
IDLE_WEEK, IDLE_RESTART = 7, 30
PAUSE = timedelta(hours=24)
KEPT_DAYS = IDLE_RESTART + ASSESSED_DAYS + 8
"""Number of previous days that a decision reads. It is longer than the idle time that restarts a warmup."""


class Move(StrEnum):
    """The decision for a day."""

    START = "start"
    GROW = "grow"
    HOLD = "hold"
    SLOW = "slow"
    PAUSE = "pause"
    IDLE = "idle"  # halved: nothing was sent for a week
    RESTART = "restart"
    MISSED = "missed"  # no decision was written; the previous day's cap held
    OVERRIDE = "override"


_USED_UP = (Move.START, Move.SLOW, Move.PAUSE, Move.RESTART, Move.OVERRIDE)
"""Moves that used up the evidence before them. That evidence is not counted against the sender again."""


class WarmupDay(Struct, frozen=True, kw_only=True):
    """One day of one identity at one provider: its cap, the reason, and the outcomes of its mail."""

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
    """Decide today's cap from the previous days.

    Args:
        plan: The plan of the identity at the provider.
        history: All previous days without gaps (`fill_missing_days`), the oldest first.
        today: The day to decide.
        now: The time, for pauses.
        reported: Spam rates that the mailbox provider reported, as a share from 0 to 1, by day.

    Returns:
        Today with its cap, move and reason.
    """
    if not history:
        return WarmupDay(day=today, cap=plan.first, move=Move.START, reason="the first day")
    last = history[-1]
    cap = min(last.cap, plan.ceiling)
    idle = len(list(takewhile(lambda day: day.counts.attempts == 0, reversed(history))))
    still_paused = last.paused_until if last.paused_until is not None and last.paused_until > now else None
    if idle >= IDLE_RESTART:
        # Idle days do not end a pause.
        reason = f"nothing was sent for {idle} days: it starts again"
        return WarmupDay(day=today, cap=plan.first, move=Move.RESTART, reason=reason, paused_until=still_paused)
    if weeks := _idle_weeks(history, idle):
        reason = f"nothing was sent for {idle} days: half as much for each week"
        lowest = min(cap, plan.first)
        return WarmupDay(
            day=today, cap=max(cap >> weeks, lowest), move=Move.IDLE, reason=reason, paused_until=still_paused
        )
    if still_paused is not None:
        return WarmupDay(day=today, cap=cap, move=Move.HOLD, reason="it is paused", paused_until=still_paused)
    evidence = _evidence(history, today)
    seen = total(day.counts for day in evidence)
    complaints = sum(max(day.counts.complained, reported.get(day.day, 0.0) * day.counts.accepted) for day in evidence)
    assessment = assess(seen, complaints) if has_enough_data(seen, cap) else HealthAssessment(WarmupHealth.HEALTHY, "")
    return _by_health(plan, history[-1], cap, assessment, today=today, now=now)


def _by_health(
    plan: Plan, last: WarmupDay, cap: int, assessment: HealthAssessment, *, today: date, now: datetime
) -> WarmupDay:
    health, reason = assessment
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
    return WarmupDay(day=today, cap=plan.next_cap(cap), move=Move.GROW, reason=delivered)


def _evidence(history: Sequence[WarmupDay], today: date) -> list[WarmupDay]:
    """Return the days that are assessed: last week's, from the last move on that used up the evidence before it."""
    since = today - timedelta(days=ASSESSED_DAYS)
    week = [day for day in history if day.day >= since]
    starts = [place for place, day in enumerate(week) if day.move in _USED_UP]
    return week[starts[-1] :] if starts else week


def _idle_weeks(history: Sequence[WarmupDay], idle: int) -> int:
    """Return the number of idle weeks that ended since the last decision."""
    missed = len(list(takewhile(lambda day: day.move is Move.MISSED, reversed(history))))
    return idle // IDLE_WEEK - max(idle - missed - 1, 0) // IDLE_WEEK


def fill_missing_days(history: Sequence[WarmupDay], *, until: date) -> list[WarmupDay]:
    """Return the days with a `Move.MISSED` day for each day without a decision, up to but excluding ``until``."""
    filled: list[WarmupDay] = []
    for day in [*history, None]:
        end = day.day if day is not None else until
        while filled and (missed := filled[-1].day + timedelta(days=1)) < end:
            last = filled[-1]
            reason = "no decision was made on this day; the cap of the day before held"
            filled.append(
                WarmupDay(day=missed, cap=last.cap, move=Move.MISSED, reason=reason, paused_until=last.paused_until)
            )
        if day is not None:
            filled.append(day)
    return filled

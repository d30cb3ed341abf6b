"""The decision for one day, and warmups of many days."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.warmup.decide import Move, WarmupDay, decide, fill_missing_days
from postroad.warmup.health import Counts
from postroad.warmup.plan import Plan
from postroad.warmup.simulate import Rates, SimulatedDay, simulate

START = date(2026, 5, 4)
PLAN = Plan(first=50)
RATES = st.builds(
    Rates,
    bounced=st.sampled_from([0, 0, 0.01, 0.03, 0.06, 0.2]),
    complained=st.sampled_from([0, 0, 0.0005, 0.0009, 0.002, 0.01]),
    deferred=st.sampled_from([0, 0, 0.1, 0.2, 0.5]),
    blocked=st.sampled_from([0, 0, 0.01, 0.03, 0.1]),
    used=st.sampled_from([0, 0.5, 1, 1, 1]),
)


def run(rates: list[Rates], plan: Plan = PLAN) -> list[SimulatedDay]:
    return list(simulate(plan, len(rates), lambda number: rates[number - 1], start=START))


def instant(day: date, hour: int = 0) -> datetime:
    return datetime.combine(day, time(hour), tzinfo=UTC)


def a_day(number: int, cap: int, *, accepted: int | None = None, move: Move = Move.GROW, **counts: int) -> WarmupDay:
    """A day on which the whole cap was delivered, or the given number."""
    accepted = cap if accepted is None else accepted
    attempts = accepted + sum(counts.get(what, 0) for what in ("bounced", "deferred", "blocked"))
    seen = Counts(attempts=attempts, accepted=accepted, **counts)
    return WarmupDay(day=START + timedelta(days=number), cap=cap, move=move, reason="x", counts=seen)


def next_day(history: list[WarmupDay], plan: Plan = PLAN) -> WarmupDay:
    today = history[-1].day + timedelta(days=1)
    return decide(plan, history, today=today, now=instant(today, 4))


def test_caps_of_a_healthy_sender_equal_the_plan() -> None:
    days = run([Rates(bounced=0.01)] * 45)
    assert [each.day.cap for each in days] == [each.planned for each in days] == list(islice(PLAN.caps(), 45))


@settings(deadline=None)
@given(rates=st.lists(RATES, min_size=1, max_size=90), ceiling=st.sampled_from([60, 5_000, 10**9]))
def test_no_cap_is_ever_above_the_plan_and_each_is_explained(rates: list[Rates], ceiling: int) -> None:
    plan = Plan(first=50, ceiling=ceiling)
    for each in run(rates, plan):
        day = each.day
        assert 1 <= day.cap <= each.planned
        assert day.reason
        if day.move in (Move.PAUSE, Move.SLOW):
            assert any(what in day.reason for what in ("bounces", "complaints", "deferrals", "blocks"))
            assert "%" in day.reason
        if day.move is Move.PAUSE:
            assert day.paused_until is not None
        if day.paused_until is not None and day.paused_until > instant(day.day):
            assert day.counts.attempts == 0


@settings(deadline=None)
@given(rates=st.lists(RATES, min_size=2, max_size=60))
def test_a_cap_grows_by_at_most_one_step_of_the_plan(rates: list[Rates]) -> None:
    days = [each.day for each in run(rates)]
    for before, after in pairwise(days):
        if after.move is not Move.RESTART:
            assert after.cap <= PLAN.next_cap(before.cap)


@given(bounced=st.integers(0, 400), worse=st.integers(0, 400), what=st.sampled_from(["bounced", "deferred", "blocked"]))
def test_worse_mail_never_gets_a_larger_cap(bounced: int, worse: int, what: str) -> None:
    def cap(events: int) -> tuple[bool, int]:
        day = next_day(
            [a_day(0, 1_000, accepted=1_000 - min(events, 1_000), move=Move.GROW, **{what: min(events, 1_000)})]
        )
        return day.paused_until is None, day.cap

    assert cap(bounced + worse) <= cap(bounced)


@given(complained=st.integers(0, 100), more=st.integers(0, 100))
def test_more_complaints_never_get_a_larger_cap(complained: int, more: int) -> None:
    def cap(events: int) -> int:
        return next_day([a_day(0, 10_000, complained=events)]).cap

    assert cap(complained + more) <= cap(complained)


@given(reported=st.floats(0, 0.02), worse=st.floats(0, 0.02), own=st.integers(0, 60))
def test_a_worse_reported_rate_never_raises_the_cap(reported: float, worse: float, own: int) -> None:
    day = a_day(0, 10_000, complained=own)

    def after(rate: float) -> WarmupDay:
        today = day.day + timedelta(days=1)
        return decide(PLAN, [day], today=today, now=instant(today, 4), reported={day.day: rate})

    better, last = after(reported), after(reported + worse)
    assert last.cap <= better.cap <= next_day([day]).cap
    if last.move in (Move.HOLD, Move.SLOW, Move.PAUSE):
        assert "complaints" in last.reason
        assert "%" in last.reason
    assert (last.move is Move.PAUSE) is (last.paused_until is not None)


def test_a_reported_rate_of_a_day_without_mail_is_ignored() -> None:
    history = [a_day(0, 1_000), a_day(1, 1_000)]
    reported = {START - timedelta(days=1): 1.0, START + timedelta(days=9): 1.0}
    today = START + timedelta(days=2)
    assert decide(PLAN, history, today=today, now=instant(today, 4), reported=reported) == next_day(history)


def test_a_cap_grows_from_ninety_percent_use_on() -> None:
    assert next_day([a_day(0, 1_000, accepted=900)]).move is Move.GROW
    held = next_day([a_day(0, 1_000, accepted=899)])
    assert (held.move, held.cap) == (Move.HOLD, 1_000)
    assert "899 of 1,000" in held.reason


def test_a_pause_lasts_a_day_and_resumes_with_a_quarter() -> None:
    paused = next_day([a_day(0, 1_000, accepted=800, bounced=200)])
    assert (paused.move, paused.cap, paused.paused_until) == (Move.PAUSE, 250, instant(date(2026, 5, 6), 4))
    late = decide(PLAN, [paused], today=date(2026, 5, 6), now=instant(date(2026, 5, 6), 3))
    assert (late.move, late.cap, late.paused_until) == (Move.HOLD, 250, paused.paused_until)
    over = decide(PLAN, [paused], today=date(2026, 5, 6), now=instant(date(2026, 5, 6), 4))
    assert (over.cap, over.paused_until) == (250, None)


def test_one_incident_counts_against_a_sender_once() -> None:
    slowed = next_day([a_day(0, 1_000, accepted=940, bounced=60)])
    assert (slowed.move, slowed.cap) == (Move.SLOW, 500)
    well = WarmupDay(
        day=slowed.day, cap=500, move=Move.SLOW, reason=slowed.reason, counts=Counts(attempts=500, accepted=500)
    )
    assert next_day([a_day(0, 1_000, accepted=940, bounced=60), well]).move is Move.GROW


def test_each_idle_week_halves_the_cap_until_a_restart() -> None:
    history = [a_day(0, 8_000, accepted=1)]
    caps = []
    for _ in range(31):
        day = next_day(history)
        history.append(day)
        caps.append((day.cap, day.move))
    assert caps[6] == (8_000, Move.HOLD)  # six idle days
    assert caps[7] == (4_000, Move.IDLE)
    assert caps[8] == (4_000, Move.HOLD)
    assert caps[14] == (2_000, Move.IDLE)
    assert caps[29] == (500, Move.HOLD)
    assert caps[30] == (50, Move.RESTART)


def test_idle_weeks_never_move_a_cap_across_the_first_cap() -> None:
    week = [a_day(n, 60, accepted=0) for n in range(1, 7)]
    assert next_day([a_day(0, 60), *week, a_day(7, 60, accepted=0)]).cap == 50
    week = [a_day(n, 12, accepted=0) for n in range(1, 7)]
    assert next_day([a_day(0, 12), *week, a_day(7, 12, accepted=0)]).cap == 12


@pytest.mark.parametrize("missed", [1, 5, 20])
def test_catching_up_never_jumps(missed: int) -> None:
    today = START + timedelta(days=missed + 1)
    filled = fill_missing_days([a_day(0, 1_000)], until=today)
    assert [day.day for day in filled] == [START + timedelta(days=n) for n in range(missed + 1)]
    assert {day.move for day in filled[1:]} == {Move.MISSED}
    full = [
        WarmupDay(day=d.day, cap=d.cap, move=d.move, reason=d.reason, counts=Counts(attempts=1_000, accepted=1_000))
        for d in filled
    ]
    assert decide(PLAN, full, today=today, now=instant(today)).cap == PLAN.next_cap(1_000)


@settings(deadline=None)
@given(silent=st.integers(0, 45), decided=st.sets(st.integers(1, 45)))
def test_missed_days_do_not_change_the_effect_of_idle_time(silent: int, decided: set[int]) -> None:
    """The day after the idle time has the same cap, whether each idle day was decided or some were missed."""

    def after(days: set[int]) -> int:
        history = [a_day(0, 100_000, accepted=1)]
        for number in sorted({n for n in days if n <= silent}):
            day = START + timedelta(days=number)
            history.append(decide(PLAN, fill_missing_days(history, until=day), today=day, now=instant(day)))
        last = START + timedelta(days=silent + 1)
        return decide(PLAN, fill_missing_days(history, until=last), today=last, now=instant(last)).cap

    assert after(decided) == after(set(range(1, 46)))


def test_sixty_days_with_an_incident() -> None:
    """A bad list on days 20 to 22: slowed, then paused, then continued from a quarter, and later above the old cap."""
    bad = Rates(bounced=0.15, complained=0.004)
    days = [
        each.day for each in simulate(PLAN, 60, lambda n: bad if 20 <= n <= 22 else Rates(bounced=0.01), start=START)
    ]
    caps = [day.cap for day in days]
    assert caps[:20] == list(islice(PLAN.caps(), 20))
    # With the good week before it the first bad day is 4.65 %; the second one alone is 15 %.
    assert (days[20].move, caps[20]) == (Move.SLOW, caps[19] // 2)
    assert (days[21].move, caps[21], days[21].counts.attempts) == (Move.PAUSE, caps[20] // 4, 0)
    assert "hard bounces are 15.00%" in days[21].reason
    assert (days[22].move, caps[22]) == (Move.HOLD, caps[21])
    assert {day.move for day in days[23:]} == {Move.GROW}
    assert caps[30] > caps[19]

"""The sequential test: its results and its error rates, by simulation with a seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, timedelta
from random import Random

import pytest

from postroad.senders.sprt import CohortFinding, DayCount, assess, log_evidence, log_ratio
from postroad.settings import CohortBreakerSettings, EvidenceSettings

DAY = date(2026, 5, 4)
HARD = CohortBreakerSettings().hard_bounces
COMPLAINTS = CohortBreakerSettings().complaints
# A rate that a simulation of this size can see.
LOOSE = EvidenceSettings(healthy=0.02, guilty=0.08, false_alarm=0.05, miss=0.05)
RUNS = 1_000


def one_day(tried: int, bad: int) -> list[DayCount]:
    return [DayCount(DAY, tried, bad)]


def looks(rng: Random, share: float, *, days: int, per_day: int, every: int, late: bool) -> Iterator[list[DayCount]]:
    """Yield the counts at each evaluation. Late: half of the bad touches are reported a day later."""
    tried, bad, coming = [0] * days, [0] * days, [0] * days
    for day in range(days):
        if late and day:
            bad[day - 1] += coming[day - 1]
        for number in range(1, per_day + 1):
            tried[day] += 1
            if rng.random() < share:
                if late and rng.random() < 0.5:
                    coming[day] += 1
                else:
                    bad[day] += 1
            if number % every == 0:
                yield [DayCount(DAY + timedelta(days=d), tried[d], bad[d]) for d in range(day + 1)]


def ends(test: EvidenceSettings, share: float, seed: int, **how: int | bool) -> tuple[int, int]:
    """Return the number of cohorts that were ever guilty, and that were ever healthy."""
    rng = Random(seed)
    guilty = healthy = 0
    for _ in range(RUNS):
        found = set()
        for days in looks(rng, share, **how):  # type: ignore[arg-type]
            finding = assess(test, days, DAY)
            found.add(finding)
            if finding is CohortFinding.GUILTY:
                break
        guilty += CohortFinding.GUILTY in found
        healthy += CohortFinding.HEALTHY in found
    return guilty, healthy


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("days", "per_day", "every"), [(1, 600, 10), (5, 120, 10)])
def test_the_false_alarm_rate_is_bounded_for_repeated_tests(days: int, per_day: int, every: int, late: bool) -> None:
    guilty, _ = ends(LOOSE, LOOSE.healthy, 1, days=days, per_day=per_day, every=every, late=late)
    assert guilty <= LOOSE.false_alarm * RUNS
    if not late:
        assert guilty > 0, "a simulation without any shows nothing"


def test_by_default_a_healthy_cohort_is_paused_at_most_once_in_1000() -> None:
    guilty, _ = ends(HARD, HARD.healthy, 2, days=1, per_day=500, every=10, late=False)
    assert guilty <= 3  # Of 1 that is the bound's; 4 or more would be chance with 2 %.


def test_a_guilty_cohort_is_found_and_rarely_healthy() -> None:
    guilty, healthy = ends(HARD, HARD.guilty, 3, days=1, per_day=400, every=10, late=False)
    assert guilty >= 0.95 * RUNS
    assert healthy <= HARD.miss * RUNS


def test_a_list_that_turns_bad_late_is_found() -> None:
    past = [DayCount(DAY + timedelta(days=n), 5_000, 75) for n in range(4)]
    today = DayCount(DAY + timedelta(days=4), 100, 25)
    assert log_ratio(HARD, 20_100, 325) < 0
    assert assess(HARD, past, DAY) is CohortFinding.HEALTHY
    assert assess(HARD, [*past, today], DAY) is CohortFinding.GUILTY


@pytest.mark.parametrize(
    ("test", "tried", "bad", "finding"),
    [
        (HARD, 0, 0, CohortFinding.OPEN),
        (HARD, 3, 3, CohortFinding.OPEN),
        (HARD, 20, 7, CohortFinding.GUILTY),
        (HARD, 20, 6, CohortFinding.OPEN),
        (HARD, 200, 4, CohortFinding.HEALTHY),
        (HARD, 100, 5, CohortFinding.OPEN),
        (COMPLAINTS, 39, 1, CohortFinding.OPEN),
        (COMPLAINTS, 1_000, 3, CohortFinding.OPEN),
        (COMPLAINTS, 1_000, 10, CohortFinding.GUILTY),
        (COMPLAINTS, 10_000, 8, CohortFinding.HEALTHY),
    ],
)
def test_what_counts_mean(test: EvidenceSettings, tried: int, bad: int, finding: CohortFinding) -> None:
    assert assess(test, one_day(tried, bad), DAY) is finding


def test_evidence_is_a_martingale_for_a_healthy_share() -> None:
    """Its expectation after the next touch is what it is now, on any day: the bound rests on that."""
    for days in ([], one_day(7, 2), [DayCount(DAY, 7, 2), DayCount(DAY + timedelta(days=2), 3, 0)]):
        for next_day in (DAY, DAY + timedelta(days=2), DAY + timedelta(days=5)):
            if days and next_day < days[-1].day:
                continue
            now = math.exp(log_evidence(HARD, days, DAY))

            def after(bad: int, days: list[DayCount] = days, next_day: date = next_day) -> float:
                rest = [count for count in days if count.day != next_day]
                had = next((count for count in days if count.day == next_day), DayCount(next_day, 0, 0))
                then = [*rest, DayCount(next_day, had.tried + 1, had.bad + bad)]
                return math.exp(log_evidence(HARD, then, DAY))

            expected = HARD.healthy * after(1) + (1 - HARD.healthy) * after(0)
            assert expected == pytest.approx(now)

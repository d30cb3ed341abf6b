"""The test of variants: its false winners under the null, its power, and its intervals, on simulated recipients."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from postroad.campaign.sequential_test import (
    FALSE_WINNER,
    MAX_EVIDENCE,
    evidence_needed,
    evidence_of,
    find_winner,
    log_evidence,
    min_successes,
    rate_interval,
)
from postroad.store.variant_split import VariantSplit

RUNS = 600
TWO, UNEVEN = {"a": 50, "b": 50}, {"a": 80, "b": 20}
FOUR = {"a": 25, "b": 25, "c": 25, "d": 25}


def winner_of_a_run(seed: int, shares: dict[str, int], rates: dict[str, float], people: int) -> str | None:
    """Return the winner of one test, looked at after every single success.

    Each recipient has another inclination, and succeeds after a delay that differs, in an order of its own.
    """
    rng = Random(seed)
    split = VariantSplit(campaign_id=seed, step="hello", shares=shares)
    times = []
    for person in range(people):
        variant, inclination = split.draw(person), rng.uniform(0.0, 2.0)
        if rng.random() < rates[variant] * inclination:
            times.append((person / 10 + rng.expovariate(0.02), variant))
    successes: Counter[str] = Counter()
    for _, variant in sorted(times):
        successes[variant] += 1
        if (winner := find_winner(successes, shares)) is not None:
            return winner
    return None


@pytest.mark.parametrize("shares", [TWO, UNEVEN, FOUR], ids=["two", "uneven", "four"])
def test_false_winners_are_rarer_than_stated_however_often_it_is_looked_at(shares: dict[str, int]) -> None:
    rates = dict.fromkeys(shares, 0.3)
    winners = [winner_of_a_run(seed, shares, rates, 600) for seed in range(RUNS)]
    found = sum(winner is not None for winner in winners)
    assert found <= FALSE_WINNER * RUNS
    assert found or len(shares) > 2  # With four variants false winners are rarer than one of a thousand.


def test_a_variant_that_ties_with_the_best_one_is_no_winner() -> None:
    shares = {"a": 34, "b": 33, "c": 33}
    rates = {"a": 0.1, "b": 0.4, "c": 0.4}
    winners = [winner_of_a_run(seed, shares, rates, 600) for seed in range(RUNS)]
    assert sum(winner is not None for winner in winners) <= FALSE_WINNER * RUNS
    assert "a" not in winners


@pytest.mark.parametrize(
    ("shares", "rates", "people"),
    [
        (TWO, {"a": 0.05, "b": 0.1}, 2_400),
        (UNEVEN, {"a": 0.05, "b": 0.1}, 4_000),
        (FOUR, {"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.2}, 3_600),
    ],
    ids=["two", "uneven", "four"],
)
def test_a_real_difference_is_found_in_most_runs(shares: dict[str, int], rates: dict[str, float], people: int) -> None:
    best = max(rates, key=rates.__getitem__)
    winners = Counter(winner_of_a_run(seed, shares, rates, people) for seed in range(60))
    assert winners[best] >= 0.8 * 60
    assert winners[best] + winners[None] == 60


def test_evidence_is_a_martingale_without_a_difference() -> None:
    # The mean of the ratio over both outcomes of one more success is the ratio before.
    before = log_evidence(7, 5, 80, 20)
    up, down = log_evidence(8, 5, 80, 20), log_evidence(7, 6, 80, 20)
    mean = 0.8 * 2.718281828459045 ** (up - before) + 0.2 * 2.718281828459045 ** (down - before)
    assert mean == pytest.approx(1.0)
    assert log_evidence(0, 0, 50, 50) == pytest.approx(0.0)


def test_no_variant_wins_below_the_smallest_number_of_successes() -> None:
    least = min_successes(TWO)
    assert 5 <= least <= 20
    assert find_winner({"a": least}, TWO) == "a"
    assert find_winner({"a": least - 1}, TWO) is None
    assert find_winner({}, TWO) is None


@pytest.mark.parametrize("shares", [TWO, UNEVEN, FOUR], ids=["two", "uneven", "four"])
def test_a_variant_wins_when_its_evidence_reaches_what_is_needed(shares: dict[str, int]) -> None:
    needed = evidence_needed(shares)
    assert needed == len(shares) / FALSE_WINNER
    for successes in range(0, 60, 3):
        counts = {"a": successes, "b": 2}
        is_enough = evidence_of("a", counts, shares) >= needed
        assert (find_winner(counts, shares) == "a") is is_enough, counts
    assert [evidence_of(name, {}, shares) for name in shares] == pytest.approx([1.0] * len(shares))
    assert evidence_of("a", {"a": 10**6}, shares) == MAX_EVIDENCE


def test_intervals_contain_the_true_rate_at_all_times() -> None:
    missed = 0
    for seed in range(RUNS):
        rng, done = Random(seed), 0
        for tried in range(1, 401):
            done += rng.random() < 0.2
            if tried % 5 == 0:
                found = rate_interval(done, tried)
                if not found.low <= 0.2 <= found.high:
                    missed += 1
                    break
    assert 0 < missed <= FALSE_WINNER * RUNS


@pytest.mark.parametrize(("successes", "tried"), [(0, 0), (0, 10), (10, 10), (1, 3), (200, 1_000), (5, 3)])
def test_an_interval_contains_its_rate(successes: int, tried: int) -> None:
    found = rate_interval(successes, tried)
    assert 0.0 <= found.low <= found.rate <= found.high <= 1.0
    assert (found.low == 0.0) == (successes == 0)
    assert (found.high == 1.0) == (successes >= tried)

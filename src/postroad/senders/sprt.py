"""Tests whether a share of bad touches is too high, by a sequential probability ratio test (SPRT). Pure functions.

The test may be evaluated any number of times: the probability of a false alarm stays bounded. Of n touches k were bad.
Wald's likelihood ratio compares the guilty share with the healthy one:
``(guilty/healthy)^k · ((1-guilty)/(1-healthy))^(n-k)``. While the true share is at most ``healthy``, the ratio is a
nonnegative supermartingale that begins at 1. So the probability that it ever reaches 1/α is at most α (Ville 1939).

A list that turns bad late has a long good past. So the evidence is a weighted sum of ratios, one for each day that it
may begin on: the ratio that begins on day j has the weight 1/(j(j+1)). The weights add up to 1, a future day has the
ratio 1, and the bound applies to the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from typing import NamedTuple

from postroad.settings import EvidenceSettings


class CohortFinding(StrEnum):
    """Result of the test so far."""

    GUILTY = "guilty"
    HEALTHY = "healthy"
    OPEN = "open"


class DayCount(NamedTuple):
    """Counts of the touches that were due on one day: those with an attempt, and those of them that were bad."""

    day: date
    tried: int
    bad: int


def log_ratio(test: EvidenceSettings, tried: int, bad: int) -> float:
    """Return the natural logarithm of the likelihood ratio, guilty to healthy."""
    return bad * math.log(test.guilty / test.healthy) + (tried - bad) * math.log1p(
        (test.healthy - test.guilty) / (1 - test.healthy)
    )


def log_evidence(test: EvidenceSettings, days: Sequence[DayCount], first: date) -> float:
    """Return the natural logarithm of the weighted sum of ratios.

    Args:
        test: Settings of the test.
        days: Counts by day.
        first: The first day on which a touch of the cohort is due, with an attempt or without.
    """
    terms: list[float] = []
    ratio_since_day = 0.0
    last = max((count.day for count in days), default=first)
    begun = (last - first).days + 1
    by_day = {count.day: count for count in days}
    for number in range(begun, 0, -1):
        count = by_day.get(date.fromordinal(first.toordinal() + number - 1))
        if count is not None:
            ratio_since_day += log_ratio(test, count.tried, count.bad)
        terms.append(ratio_since_day - math.log(number * (number + 1)))
    terms.append(-math.log(begun + 1))  # All future days.
    largest = max(terms)
    return largest + math.log(sum(math.exp(term - largest) for term in terms))


def assess(test: EvidenceSettings, days: Sequence[DayCount], first: date) -> CohortFinding:
    """Test a cohort.

    Args:
        test: Settings of the test.
        days: Counts by day.
        first: The first day on which a touch of the cohort is due.

    Returns:
        GUILTY: the probability that a healthy cohort ever gets this result is at most ``test.false_alarm``. HEALTHY:
        the probability that a guilty cohort ever gets it is at most ``test.miss``. Later days may change it.
    """
    if log_evidence(test, days, first) >= -math.log(test.false_alarm):
        return CohortFinding.GUILTY
    tried, bad = sum(count.tried for count in days), sum(count.bad for count in days)
    return CohortFinding.HEALTHY if log_ratio(test, tried, bad) <= math.log(test.miss) else CohortFinding.OPEN

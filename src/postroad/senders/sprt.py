"""A sequential test of one share, pure: it may look as often as it likes, and its false alarms stay bounded for ever.

Of n touches k were bad. Wald's likelihood ratio sets the guilty share against the healthy one:
``(guilty/healthy)^k · ((1-guilty)/(1-healthy))^(n-k)``. While the true share is no more than ``healthy``, that is a
nonnegative supermartingale that begins at 1, so that the probability that it ever reaches 1/α is at most α, however
often one looks (Ville 1939). A list that turns bad late has a long good past to outweigh, so evidence is also weighed
from each later day on: the ratio that begins on day j has the weight 1/(j(j+1)). The weights add up to 1, a day that
has not come counts with a ratio of 1, and the bound holds for the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from typing import NamedTuple

from postroad.settings import EvidenceSettings


class CohortFinding(StrEnum):
    """What is known of a cohort so far."""

    GUILTY = "guilty"
    HEALTHY = "healthy"
    OPEN = "open"


class DayCount(NamedTuple):
    """Touches that were due on one day and have been tried, and how many of them were bad."""

    day: date
    tried: int
    bad: int


def log_ratio(test: EvidenceSettings, tried: int, bad: int) -> float:
    """Logarithm of the likelihood ratio, guilty to healthy."""
    return bad * math.log(test.guilty / test.healthy) + (tried - bad) * math.log1p(
        (test.healthy - test.guilty) / (1 - test.healthy)
    )


def log_evidence(test: EvidenceSettings, days: Sequence[DayCount], first: date) -> float:
    """Logarithm of the weighted sum of ratios, one for each day that the evidence may begin on.

    ``first``: the first day on which any touch of the cohort is due, whether it was tried yet or not.
    """
    terms: list[float] = []
    from_here = 0.0
    last = max((count.day for count in days), default=first)
    begun = (last - first).days + 1
    by_day = {count.day: count for count in days}
    for number in range(begun, 0, -1):
        count = by_day.get(date.fromordinal(first.toordinal() + number - 1))
        if count is not None:
            from_here += log_ratio(test, count.tried, count.bad)
        terms.append(from_here - math.log(number * (number + 1)))
    terms.append(-math.log(begun + 1))  # All days to come.
    most = max(terms)
    return most + math.log(sum(math.exp(term - most) for term in terms))


def judge(test: EvidenceSettings, days: Sequence[DayCount], first: date) -> CohortFinding:
    """Guilty: a healthy cohort is ever called so with a probability of at most ``false_alarm``.

    Healthy: a guilty one is ever called so with at most ``miss``. It is watched further: its later days may differ.
    """
    if log_evidence(test, days, first) >= -math.log(test.false_alarm):
        return CohortFinding.GUILTY
    tried, bad = sum(count.tried for count in days), sum(count.bad for count in days)
    return CohortFinding.HEALTHY if log_ratio(test, tried, bad) <= math.log(test.miss) else CohortFinding.OPEN

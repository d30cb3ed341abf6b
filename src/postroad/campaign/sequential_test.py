"""Decides which variant wins, by a sequential test that is valid however often it is evaluated. Pure functions.

If the variants make no difference, then who succeeds and when does not depend on the draw of the variant. So of the
successes of two variants, each one belongs to the first with the probability of its share, whatever the rates are,
however late a success comes, and whatever order they are noticed in. For a ratio r of the success rates the likelihood
ratio of a successes against b is ``(p/q)^a · ((1-p)/(1-q))^b`` with ``q = s/(s+t)`` and ``p = rs/(rs+t)``, where s
and t are the shares. The evidence is its mean over `RATIOS`, a mixture (Robbins 1970). Without a difference it is a
nonnegative martingale that begins at 1, so it ever reaches m/α with a probability of at most α/m (Ville 1939).

A variant wins if it reaches m/α against each of the others. With m variants the probability of a winner that is not
better than all others is at most α: each of the m variants has one other that is at least as good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

FALSE_WINNER: Final = 0.05
"""Probability, at most, that a winner is found among variants that make no difference."""

RATIOS: Final = (1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)
"""Ratios of two success rates over which the evidence is averaged."""

MAX_EVIDENCE: Final = 1_000_000.0
"""Largest evidence that is reported: far more than any test needs."""

_STEPS: Final = 60
"""Halvings that find the end of an interval: more than a number of 64 bits distinguishes."""


def log_evidence(own: int, other: int, share: float, other_share: float) -> float:
    """Return the natural logarithm of the evidence that one variant is better than another one.

    Args:
        own: Successes of the first one.
        other: Successes of the second one.
        share: Share of the recipients who get the first one.
        other_share: Share of those who get the second one, in the same unit.
    """
    equal = share / (share + other_share)
    terms = []
    for ratio in RATIOS:
        better = ratio * share / (ratio * share + other_share)
        terms.append(own * math.log(better / equal) + other * math.log((1 - better) / (1 - equal)))
    largest = max(terms)
    return largest + math.log(sum(math.exp(term - largest) for term in terms) / len(terms))


def find_winner(successes: Mapping[str, int], shares: Mapping[str, int]) -> str | None:
    """Return the variant that wins.

    Args:
        successes: Number of recipients of each variant who did what decides.
        shares: Shares of the recipients who get each variant.

    Returns:
        The winner. None: no variant has won so far. The probability that a variant ever wins without a difference
        between them is at most `FALSE_WINNER`.
    """
    needed = math.log(evidence_needed(shares))
    for name in shares:
        if all(evidence >= needed for evidence in _log_evidences(name, successes, shares)):
            return name
    return None


def evidence_needed(shares: Mapping[str, int]) -> float:
    """Return the evidence against each other variant with which a variant wins: the number of variants / 5 %."""
    return len(shares) / FALSE_WINNER


def evidence_of(name: str, successes: Mapping[str, int], shares: Mapping[str, int]) -> float:
    """Return the evidence that a variant is better than each of the others: the least of them.

    Args:
        name: The variant.
        successes: Number of recipients of each variant who did what decides.
        shares: Shares of the recipients who get each variant.

    Returns:
        The evidence, at most `MAX_EVIDENCE`. The variant wins when it reaches `evidence_needed`.
    """
    least = min(_log_evidences(name, successes, shares), default=math.inf)
    return math.exp(least) if least < math.log(MAX_EVIDENCE) else MAX_EVIDENCE


def _log_evidences(name: str, successes: Mapping[str, int], shares: Mapping[str, int]) -> Iterator[float]:
    """Yield the logarithm of the evidence that a variant is better than each of the others."""
    for other in shares:
        if other != name:
            yield log_evidence(successes.get(name, 0), successes.get(other, 0), shares[name], shares[other])


def min_successes(shares: Mapping[str, int]) -> int:
    """Return the number of successes below which no variant can win, even if one variant has all of them."""
    number = 1
    while not any(find_winner({name: number}, shares) for name in shares):
        number += 1
    return number


class RateInterval(NamedTuple):
    """A share with its confidence interval, each from 0 to 1."""

    rate: float
    low: float
    high: float


def rate_interval(successes: int, tried: int) -> RateInterval:
    """Return the rate of a variant, with an interval that holds at all times at once.

    The probability that the interval ever misses the true rate is at most `FALSE_WINNER`. It contains the rates that
    the mixture of binomial likelihoods over a uniform prior does not reject (Robbins 1970).

    Args:
        successes: Recipients who did what is counted.
        tried: Recipients who got the message, and whose outcome is as it will be.
    """
    tried = max(tried, successes)
    if tried == 0:
        return RateInterval(0.0, 0.0, 1.0)
    rate, failures = successes / tried, tried - successes
    mixture = math.lgamma(successes + 1) + math.lgamma(failures + 1) - math.lgamma(tried + 2)
    limit = mixture + math.log(FALSE_WINNER)

    def rejected(share: float) -> bool:
        likelihood = (successes * math.log(share) if successes else 0.0) + (
            failures * math.log1p(-share) if failures else 0.0
        )
        return likelihood <= limit

    low = _boundary(rejected, 0.0, rate) if successes else 0.0
    high = _boundary(rejected, 1.0, rate) if failures else 1.0
    return RateInterval(rate, low, high)


def _boundary(rejected: Callable[[float], bool], outside: float, inside: float) -> float:
    """Return where the rejected shares end, between one that is rejected and one that is not."""
    for _ in range(_STEPS):
        middle = (outside + inside) / 2
        if rejected(middle):
            outside = middle
        else:
            inside = middle
    return outside

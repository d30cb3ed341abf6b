"""Assesses a sender's health from its bounces, complaints, deferrals and blocks. Pure functions of counts."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from math import sqrt
from typing import NamedTuple

from msgspec import Struct

MIN_ATTEMPTS = 100
PAUSE_EVENTS = 3
ONE_SIDED_90 = 1.2815515655446004
"""90 % quantile of the standard normal distribution."""


class WarmupHealth(IntEnum):
    """Health of a sender; a higher value is worse."""

    HEALTHY = 0
    HOLD = 1
    SLOW = 2
    PAUSE = 3


class Counts(Struct, frozen=True, kw_only=True):
    """Outcomes of delivery attempts. ``bounced``: no such mailbox. ``blocked``: rejected because of the sender."""

    attempts: int = 0
    accepted: int = 0
    bounced: int = 0
    complained: int = 0
    deferred: int = 0
    blocked: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            attempts=self.attempts + other.attempts,
            accepted=self.accepted + other.accepted,
            bounced=self.bounced + other.bounced,
            complained=self.complained + other.complained,
            deferred=self.deferred + other.deferred,
            blocked=self.blocked + other.blocked,
        )


def total(days: Iterable[Counts]) -> Counts:
    return sum(days, Counts())


class _Gate(NamedTuple):
    """Shares of mail from which a cap holds, is halved, or the sender pauses."""

    what: str
    hold: float
    slow: float
    pause: float


_BOUNCES = _Gate("hard bounces", 0.02, 0.04, 0.08)
_COMPLAINTS = _Gate("complaints", 0.0008, 0.001, 0.003)
_DEFERRALS = _Gate("deferrals", 0.05, 0.15, 0.30)
_BLOCKS = _Gate("blocks", 0.005, 0.02, 0.05)


class HealthAssessment(NamedTuple):
    """The result of the worst gate, with its reason. The reason is empty if healthy."""

    health: WarmupHealth
    reason: str


def has_enough_data(counts: Counts, cap: int) -> bool:
    """Return whether there was enough mail for an assessment."""
    return counts.attempts >= max(MIN_ATTEMPTS, cap / 2)


def assess(counts: Counts, reported: float = 0.0) -> HealthAssessment:
    """Assess the outcomes of mail.

    A pause needs three events and 90 % confidence that the true share is above the threshold (`wilson_lower`).

    Args:
        counts: Outcomes of the assessed days.
        reported: Number of complaints by the mailbox provider's count. The larger number of complaints is used.

    Returns:
        The assessment of the worst gate.
    """
    answered = max(counts.attempts - counts.deferred, 0)
    complaints, complained = _COMPLAINTS, float(counts.complained)
    # The reported rate of a small volume is less than one complaint, but still a rate. Rounded: 0.003 * 1000 > 3.
    if (of_provider := round(reported, 6)) > complained:
        complaints, complained = _COMPLAINTS._replace(what="complaints, as the provider reports,"), of_provider
    seen = (
        (_BOUNCES, counts.bounced, answered),
        (complaints, complained, counts.accepted),
        (_DEFERRALS, counts.deferred, counts.attempts),
        (_BLOCKS, counts.blocked, answered),
    )
    results = [_assess_gate(gate, events, of) for gate, events, of in seen]
    return max(results, key=lambda assessment: assessment.health)


def _assess_gate(gate: _Gate, events: float, of: int) -> HealthAssessment:
    share = min(events / of, 1.0) if of > 0 else float(events > 0)
    if share < gate.hold:
        return HealthAssessment(WarmupHealth.HEALTHY, "")
    measured = f"{gate.what} are {share:.2%} ({_format_count(events)} of {of:,})"
    if events >= PAUSE_EVENTS and wilson_lower(events, of) >= gate.pause:
        return HealthAssessment(WarmupHealth.PAUSE, f"{measured}, and surely {gate.pause:.1%} or more")
    if share >= gate.slow:
        return HealthAssessment(WarmupHealth.SLOW, f"{measured}: {gate.slow:.1%} or more")
    return HealthAssessment(WarmupHealth.HOLD, f"{measured}: {gate.hold:.2%} or more")


def _format_count(events: float) -> str:
    return f"{events:,.0f}" if events == int(events) else f"{events:,.2f}"


def wilson_lower(events: float, of: int) -> float:
    """Return the lower confidence bound of the share that this sample was drawn from.

    Wilson's score interval (1927), one-sided at 90 %.

    Args:
        events: Number of events in the sample.
        of: Size of the sample.
    """
    if of <= 0:
        return 0.0
    share = min(events / of, 1.0)
    z2 = ONE_SIDED_90**2
    middle = share + z2 / (2 * of)
    spread = ONE_SIDED_90 * sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max((middle - spread) / (1 + z2 / of), 0.0)

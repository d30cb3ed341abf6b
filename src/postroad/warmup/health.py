"""Health gates: what bounces, complaints, deferrals and blocks say of a sender. Pure functions of counts."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from math import sqrt
from typing import NamedTuple

from msgspec import Struct

LEAST_JUDGED = 100
PAUSE_EVENTS = 3
ONE_SIDED_90 = 1.2815515655446004
"""Of the normal distribution: nine of ten lie below."""


class WarmupHealth(IntEnum):
    """How well it goes; the higher, the worse."""

    HEALTHY = 0
    HOLD = 1
    SLOW = 2
    PAUSE = 3


class Counts(Struct, frozen=True, kw_only=True):
    """What became of mail, in attempts. ``bounced``: there is no such mailbox. ``blocked``: refused for the sender."""

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
    """From which share on a cap holds, is halved, or all pauses."""

    what: str
    hold: float
    slow: float
    pause: float


_BOUNCES = _Gate("hard bounces", 0.02, 0.04, 0.08)
_COMPLAINTS = _Gate("complaints", 0.0008, 0.001, 0.003)
_DEFERRALS = _Gate("deferrals", 0.05, 0.15, 0.30)
_BLOCKS = _Gate("blocks", 0.005, 0.02, 0.05)


class HealthAssessment(NamedTuple):
    """The worst of the gates, and what it saw. Healthy: an empty reason."""

    health: WarmupHealth
    reason: str


def judged(counts: Counts, cap: int) -> bool:
    """Tell whether there was enough mail to judge by."""
    return counts.attempts >= max(LEAST_JUDGED, cap / 2)


def judge(counts: Counts, reported: float = 0.0) -> HealthAssessment:
    """Judge what became of mail. A pause needs three events, and nine chances of ten that the true share is so high.

    ``reported``: complaints that there were by the mailbox provider's own count; the worse one counts.
    """
    answered = max(counts.attempts - counts.deferred, 0)
    complaints, complained = _COMPLAINTS, float(counts.complained)
    # A share of few mails comes to less than one complaint, and is no less a share. (Rounded: 0.003 · 1000 is above 3.)
    if (of_provider := round(reported, 6)) > complained:
        complaints, complained = _COMPLAINTS._replace(what="complaints, as the provider reports,"), of_provider
    seen = (
        (_BOUNCES, counts.bounced, answered),
        (complaints, complained, counts.accepted),
        (_DEFERRALS, counts.deferred, counts.attempts),
        (_BLOCKS, counts.blocked, answered),
    )
    return max((_judge(gate, events, of) for gate, events, of in seen), key=lambda judgement: judgement.health)


def _judge(gate: _Gate, events: float, of: int) -> HealthAssessment:
    share = min(events / of, 1.0) if of > 0 else float(events > 0)
    if share < gate.hold:
        return HealthAssessment(WarmupHealth.HEALTHY, "")
    said = f"{gate.what} are {share:.2%} ({_in_words(events)} of {of:,})"
    if events >= PAUSE_EVENTS and wilson_lower(events, of) >= gate.pause:
        return HealthAssessment(WarmupHealth.PAUSE, f"{said}, and surely {gate.pause:.1%} or more")
    if share >= gate.slow:
        return HealthAssessment(WarmupHealth.SLOW, f"{said}: {gate.slow:.1%} or more")
    return HealthAssessment(WarmupHealth.HOLD, f"{said}: {gate.hold:.2%} or more")


def _in_words(events: float) -> str:
    return f"{events:,.0f}" if events == int(events) else f"{events:,.2f}"


def wilson_lower(events: float, of: int) -> float:
    """Lower bound of the share that these events are a sample of, which nine samples of ten lie above.

    Wilson's score interval (1927), one-sided at 90 %.
    """
    if of <= 0:
        return 0.0
    share = min(events / of, 1.0)
    z2 = ONE_SIDED_90**2
    middle = share + z2 / (2 * of)
    spread = ONE_SIDED_90 * sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max((middle - spread) / (1 + z2 / of), 0.0)

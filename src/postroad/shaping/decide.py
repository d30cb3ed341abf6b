"""Decides the change that a reply causes, and what a gate admits meanwhile. Pure functions.

In addition to the rules, the rate adapts as TCP's congestion window does (AIMD, RFC 5681). A reply that means "too
fast" halves it, at most once for all mail in flight. It grows by a fixed share for each interval in which mail was
accepted.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from postroad.gates.plan import Contribution, GateLimit, strictest
from postroad.gates.settings_limits import smooth_rate
from postroad.queue import FOREVER_MS
from postroad.shaping.limits import LimitScope, ReceiverLimits
from postroad.shaping.rules import PACE, ShapingRule
from postroad.store.shaping import ShapingChange

DECREASE_FACTOR, INCREASE_SHARE, MIN_SHARE = 0.5, 1 / 16, 1 / 64
"""Factor of a decrease, share added by an increase, and the smallest share of the limits."""

DECREASE_DELAY = timedelta(seconds=30)
"""How long replies may still concern mail that was sent before a decrease. They cause no further decrease."""

INCREASE_INTERVAL = timedelta(minutes=1)

SHAPING = "shaping"
"""Mark of the gates that shaping.toml or its rules set."""
SHAPED = frozenset({GateLimit.RATE, GateLimit.CONCURRENCY})
"""Limits that shaping sets."""


def change_by_rule(
    name: str, rule: ShapingRule, scope: LimitScope, reply: str, *, times: int, now: datetime
) -> ShapingChange | None:
    """Return the change that a rule makes.

    Args:
        name: Name of the rule.
        rule: The rule.
        scope: Sender and receiver that it slows down.
        reply: The first reply that matched since the last run.
        times: Number of replies that matched within an hour.
        now: The time.

    Returns:
        The change. None: too few replies matched.
    """
    if times < rule.per_hour:
        return None
    return ShapingChange(
        gate=scope.gate,
        rule=name,
        sender=scope.sender,
        provider=scope.provider,
        reply=reply[:500],
        at=now,
        ends_at=now + timedelta(milliseconds=rule.for_ms),
        suspended=rule.suspend,
        rate_count=float(rule.rate.count) if rule.rate else None,
        rate_per_ms=rule.rate.per_ms if rule.rate else None,
        connections=rule.connections,
    )


def decrease(
    scope: LimitScope, limits: ReceiverLimits, reply: str, *, last: ShapingChange | None, now: datetime
) -> ShapingChange | None:
    """Return the change to the next lower rate.

    Args:
        scope: Sender and receiver that it slows down.
        limits: Their limits in the file.
        reply: The reply that means "too fast".
        last: The open change of the rate. None: the limits of the file apply.
        now: The time.

    Returns:
        The change. None: the last decrease is too recent, or the share is at its minimum.
    """
    share = 1.0
    if last is not None and last.share is not None and last.moved_at is not None:
        if now < last.moved_at + DECREASE_DELAY:
            return None
        share = last.share
    if share <= MIN_SHARE:
        return None
    change = ShapingChange(
        gate=scope.gate, rule=PACE, sender=scope.sender, provider=scope.provider, reply=reply[:500], at=now
    )
    return _at_share(change, limits, max(share * DECREASE_FACTOR, MIN_SHARE), now)


def increase(change: ShapingChange, limits: ReceiverLimits, now: datetime) -> ShapingChange | None:
    """Return the change to the next higher rate, after mail was accepted.

    Args:
        change: The open change of the rate.
        limits: Limits of the file for its gate.
        now: The time.

    Returns:
        The change. It has expired when its share is 1. None: the last change is too recent.
    """
    if change.share is None or change.moved_at is None or now < change.moved_at + INCREASE_INTERVAL:
        return None
    grown = ShapingChange(**change.model_dump())
    return _at_share(grown, limits, min(change.share + INCREASE_SHARE, 1.0), now)


def _at_share(change: ShapingChange, limits: ReceiverLimits, share: float, now: datetime) -> ShapingChange:
    change.share, change.moved_at = share, now
    if limits.rate is not None:
        change.rate_count, change.rate_per_ms = limits.rate.count * share, limits.rate.per_ms
    if limits.connections is not None:
        change.connections = max(1, int(limits.connections * share))
    return change


def contribution(
    gate: str, limits: ReceiverLimits | None, changes: Iterable[ShapingChange], now: datetime
) -> Contribution | None:
    """Return what shaping contributes to a gate: its limits, each lowered by the changes that have not expired.

    If the file or a change has limits, shaping decides rate and concurrency, also right after the change expired. A
    pause ends by itself.

    Args:
        gate: Name of the gate.
        limits: Limits of the file. None: it has none for this gate.
        changes: Open changes of the gate, also expired ones.
        now: The time.

    Returns:
        The contribution. None: shaping does not limit this gate.
    """
    rates = [smooth_rate(limits.rate.count, limits.rate.per_ms)] if limits is not None and limits.rate else []
    connections = [limits.connections] if limits is not None and limits.connections is not None else []
    until_ms: int | None = None
    slowed = False
    for change in changes:
        slowed = slowed or not change.suspended
        if is_expired(change, now):
            continue
        if change.suspended:
            ends_ms = FOREVER_MS if change.ends_at is None else int(change.ends_at.timestamp() * 1000)
            until_ms = max(until_ms or 0, ends_ms)
            continue
        if change.rate_count is not None and change.rate_per_ms is not None:
            rates.append(smooth_rate(change.rate_count, change.rate_per_ms))
        if change.connections is not None:
            connections.append(change.connections)
    decides = limits is not None or slowed
    if not decides and until_ms is None:
        return None
    return Contribution(
        source=SHAPING,
        gate=gate,
        rate=strictest(GateLimit.RATE, rates),
        concurrency=strictest(GateLimit.CONCURRENCY, connections),
        paused_until_ms=until_ms,
        decides=SHAPED if decides else frozenset(),
    )


def is_expired(change: ShapingChange, now: datetime) -> bool:
    """Return whether an open change no longer limits anything."""
    return (change.ends_at is not None and change.ends_at <= now) or (change.share is not None and change.share >= 1)

"""What to do about a reply, and what a gate admits while it is done. Pure: no clock, no input, no output.

Between the rules a pace is kept as TCP keeps its window: halved when a receiver says that we are too fast, at most
once for what was in flight together, and grown by a fixed share for each while in which mail was accepted.
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

SLOWER, GROWTH, SLOWEST = 0.5, 1 / 16, 1 / 64
"""Factor of a decrease, share of an increase, and the share below which nothing is left to take."""

SETTLE = timedelta(seconds=30)
"""A decrease shows in the replies after this long: until then, what is said was said of the pace before."""

GROW_EVERY = timedelta(minutes=1)

SHAPING = "shaping"
"""Mark of the gates that are set by shaping.toml, or by its rules."""
SHAPED = frozenset({GateLimit.RATE, GateLimit.CONCURRENCY})
"""Limits that the shaping sets."""


def by_rule(
    name: str, rule: ShapingRule, scope: LimitScope, said: str, *, times: int, now: datetime
) -> ShapingChange | None:
    """The change that a rule makes when it has been met ``times`` within the hour. None: not often enough."""
    if times < rule.per_hour:
        return None
    return ShapingChange(
        gate=scope.gate,
        rule=name,
        sender=scope.sender,
        provider=scope.provider,
        reply=said[:500],
        at=now,
        ends_at=now + timedelta(milliseconds=rule.for_ms),
        suspended=rule.suspend,
        rate_count=float(rule.rate.count) if rule.rate else None,
        rate_per_ms=rule.rate.per_ms if rule.rate else None,
        connections=rule.connections,
    )


def decrease(
    scope: LimitScope, limits: ReceiverLimits, said: str, *, last: ShapingChange | None, now: datetime
) -> ShapingChange | None:
    """The next lower pace. None: the last decrease has not shown yet, or nothing is left to take."""
    share = 1.0
    if last is not None and last.share is not None and last.moved_at is not None:
        if now < last.moved_at + SETTLE:
            return None
        share = last.share
    if share <= SLOWEST:
        return None
    change = ShapingChange(
        gate=scope.gate, rule=PACE, sender=scope.sender, provider=scope.provider, reply=said[:500], at=now
    )
    return _at_share(change, limits, max(share * SLOWER, SLOWEST), now)


def increase(change: ShapingChange, limits: ReceiverLimits, now: datetime) -> ShapingChange | None:
    """The same change at the next higher pace, after mail was accepted. None: it was raised lately.

    At a share of 1 it is over.
    """
    if change.share is None or change.moved_at is None or now < change.moved_at + GROW_EVERY:
        return None
    grown = ShapingChange(**change.model_dump())
    return _at_share(grown, limits, min(change.share + GROWTH, 1.0), now)


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
    """Return what the shaping wants of a gate now: its limits, each lowered by the changes that hold.

    Where the file has limits, or a change has some, the shaping decides rate and concurrency, also right after the
    change is over. A pause ends by itself.

    Args:
        gate: Name of the gate.
        limits: What the file says of it. None: nothing.
        changes: Open changes of the gate, also those that are over.
        now: Time by which a change may be over.

    Returns:
        The contribution. None: there is none.
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
    """Whether an open change has nothing left to hold back."""
    return (change.ends_at is not None and change.ends_at <= now) or (change.share is not None and change.share >= 1)

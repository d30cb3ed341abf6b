"""What to do about a reply, and what a gate admits while it is done. Pure: no clock, no input, no output.

Between the rules a pace is kept as TCP keeps its window: halved when a receiver says that we are too fast, at most
once for what was in flight together, and grown by a fixed share for each while in which mail was accepted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from postroad.delivery.limits import gate_rate, smooth_rate
from postroad.delivery.shaping.limits import Limits, Scope
from postroad.delivery.shaping.rules import PACE, Rule
from postroad.queue import FOREVER_MS, Gate, Rate
from postroad.store.shaping import ShapingChange

SLOWER, GROWTH, SLOWEST = 0.5, 1 / 16, 1 / 64
"""Factor of a decrease, share of an increase, and the share below which nothing is left to take."""

SETTLE = timedelta(seconds=30)
"""A decrease shows in the replies after this long: until then, what is said was said of the pace before."""

GROW_EVERY = timedelta(minutes=1)


def by_rule(name: str, rule: Rule, scope: Scope, said: str, *, times: int, now: datetime) -> ShapingChange | None:
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


def slower(
    scope: Scope, limits: Limits, said: str, *, last: ShapingChange | None, now: datetime
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


def faster(change: ShapingChange, limits: Limits, now: datetime) -> ShapingChange | None:
    """The same change at the next higher pace, after mail was accepted. None: it was raised lately.

    At a share of 1 it is over.
    """
    if change.share is None or change.moved_at is None or now < change.moved_at + GROW_EVERY:
        return None
    grown = ShapingChange(**change.model_dump())
    return _at_share(grown, limits, min(change.share + GROWTH, 1.0), now)


def _at_share(change: ShapingChange, limits: Limits, share: float, now: datetime) -> ShapingChange:
    change.share, change.moved_at = share, now
    if limits.rate is not None:
        change.rate_count, change.rate_per_ms = limits.rate.count * share, limits.rate.per_ms
    if limits.connections is not None:
        change.connections = max(1, int(limits.connections * share))
    return change


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a gate is to admit. ``set_limits`` False: its limits are somebody else's, and stay.

    ``owned``: the shaping has limits for it. Else its limits are only lifted.
    """

    gate: Gate
    set_limits: bool
    owned: bool = False


def wanted(
    name: str, limits: Limits | None, changes: Iterable[ShapingChange], now: datetime, *, owned: bool = False
) -> Wanted:
    """What a gate is to admit now: its limits, each lowered by the changes that hold. ``limits`` None: none are set.

    ``owned``: the shaping had set its limits, so that they are lifted where it has none any more.

    A pause is only ever wanted, never lifted: it ends by itself, and somebody else may want one too.
    """
    rate = gate_rate(limits.rate, None) if limits is not None else None
    connections = limits.connections if limits is not None else None
    until_ms: int | None = None
    slowed = False
    for change in changes:
        slowed = slowed or not change.suspended
        if over(change, now):
            continue
        if change.suspended:
            ends_ms = FOREVER_MS if change.ends_at is None else int(change.ends_at.timestamp() * 1000)
            until_ms = max(until_ms or 0, ends_ms)
            continue
        if change.rate_count is not None and change.rate_per_ms is not None:
            given = smooth_rate(change.rate_count, change.rate_per_ms)
            rate = given if rate is None or given.count / given.per_ms < rate.count / rate.per_ms else rate
        if change.connections is not None:
            connections = min(connections or change.connections, change.connections)
    gate = Gate(name=name, rate=rate, concurrency=connections, paused_until_ms=until_ms)
    holds = limits is not None or slowed
    return Wanted(gate=gate, set_limits=holds or owned, owned=holds)


def over(change: ShapingChange, now: datetime) -> bool:
    """Whether an open change has nothing left to hold back."""
    return (change.ends_at is not None and change.ends_at <= now) or (change.share is not None and change.share >= 1)


def differs(state: Gate, want: Wanted) -> bool:
    """Whether the queue has to be told."""
    pause = (want.gate.paused_until_ms or 0) > (state.paused_until_ms or 0)
    limits = state.concurrency != want.gate.concurrency or not _alike(state.rate, want.gate.rate)
    return pause or (want.set_limits and limits)


def _alike(one: Rate | None, other: Rate | None) -> bool:
    if one is None or other is None:
        return one is other
    # The queue keeps numbers as text, not each of them to the last bit.
    return abs(one.count / one.per_ms - other.count / other.per_ms) < 1e-9 and one.burst == other.burst

"""Merges the contributions of several sources to gates, and compares them with the queue's gates. Pure functions.

Each limit of a gate is merged separately: the strictest contributed value applies. A gate is marked with the names of
its sources, as its owner, so that a limit is removed when its source no longer contributes it. An operator set a limit
without such a mark.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from math import isclose
from typing import Any, Final

from msgspec import Struct

from postroad.gates.name import GateKind, kind_of
from postroad.queue import Gate, GateState, Quota, Rate


class GateLimit(StrEnum):
    """The limits of a gate. The value is the name of the field."""

    RATE = "rate"
    CONCURRENCY = "concurrency"
    QUOTA = "quota"


ALL_LIMITS: Final = frozenset(GateLimit)

_OWN_KINDS: Final = {GateKind.HOLD: "dns", GateKind.WARMUP: "warmup"}
"""Kinds of gates that only one source sets, so that they need no mark. The previous version wrote no mark there."""


class SourceTraits(Struct, frozen=True, kw_only=True):
    """Name of a source of limits, and what it may change.

    ``name``: mark of the gates that it limits. ``limits``: the kinds of limits that it contributes. ``pauses``: whether
    it also ends pauses that it contributed. ``withdraws``: whether limits that it no longer contributes are removed
    now; False: they stay until a run in which it is True. ``locks``: whether its changes are applied under the lock, by
    one process at a time.
    """

    name: str
    limits: frozenset[GateLimit] = frozenset()
    pauses: bool = False
    withdraws: bool = True
    locks: bool = False


class Contribution(Struct, frozen=True, kw_only=True):
    """The limits that one source contributes to one gate. None: no such limit.

    ``decides``: limits that are set to the merged value, whatever the gate has. Other limits are only set if the gate
    has none, so that a value set by an operator is kept.
    """

    source: str
    gate: str
    rate: Rate | None = None
    concurrency: int | None = None
    quota: Quota | None = None
    paused_until_ms: int | None = None
    decides: frozenset[GateLimit] = frozenset()

    @property
    def limits(self) -> frozenset[GateLimit]:
        """The kinds of limits that it contains."""
        return frozenset(limit for limit in GateLimit if getattr(self, limit) is not None)


class GateChange(Struct, frozen=True, kw_only=True):
    """The change that a gate needs.

    ``limits``: arguments of `Queue.update_gate`. ``pause_until_ms``: new end of its pause, Unix time in ms; 0: resume
    it; None: keep its pause. ``sources``: all that contribute to it, or did. ``restores``: limits are
    missing that were not removed, as after a loss of the queue. ``paces``: only the time over which the same count is
    spread changes.
    """

    gate: str
    limits: dict[str, Any]
    pause_until_ms: int | None
    sources: frozenset[str]
    restores: bool = False
    paces: bool = False


def plan_changes(
    states: Mapping[str, GateState], contributions: Iterable[Contribution], sources: Sequence[SourceTraits]
) -> list[GateChange]:
    """Return the changes that the gates of a queue need.

    Args:
        states: All gates of the queue, by name.
        contributions: The contributions of all sources, in any order.
        sources: The sources. Limits that are marked with another name are kept.
    """
    by_gate: dict[str, list[Contribution]] = defaultdict(list)
    for contribution in contributions:
        by_gate[contribution.gate].append(contribution)
    known = {source.name: source for source in sources}
    plans = (_Plan(name, states.get(name), by_gate[name], known) for name in sorted(states.keys() | by_gate.keys()))
    return [change for plan in plans if (change := plan.change()) is not None]


def strictest(limit: GateLimit, values: Iterable[Any]) -> Any:
    """Return the value of a limit that admits the least.

    Args:
        limit: The kind of limit.
        values: Its values. Of rates the lowest is returned, with the smallest burst of all. Of quotas that with the
            fewest jobs left.

    Returns:
        The value. None: there are no values.
    """
    values = list(values)
    if not values:
        return None
    match limit:
        case GateLimit.RATE:
            lowest = min(values, key=lambda rate: (rate.count / rate.per_ms, rate.per_ms))
            return Rate(count=lowest.count, per_ms=lowest.per_ms, burst=min(rate.burst for rate in values))
        case GateLimit.CONCURRENCY:
            return min(values)
        case GateLimit.QUOTA:
            return min(values, key=lambda quota: (quota.left, -quota.until_ms))


class _Plan:
    """The plan for one gate: its contributions, the sources whose limits it has, and those whose limits are removed."""

    def __init__(
        self,
        name: str,
        state: GateState | None,
        contributions: Sequence[Contribution],
        known: Mapping[str, SourceTraits],
    ) -> None:
        self._gate = state.gate if state is not None else Gate(name=name)
        self._owner = state.owner if state is not None else ""
        self._contributions = contributions
        self._known = known
        kind = kind_of(name)
        self._implied = {_OWN_KINDS[kind]} if kind in _OWN_KINDS else set()
        self._owners = {mark for mark in self._owner.split(",") if mark} | self._implied
        absent = self._owners - {contribution.source for contribution in contributions}
        self._withdrawn = {mark for mark in absent if mark in known and known[mark].withdraws}
        self._staying = absent - self._withdrawn

    def change(self) -> GateChange | None:
        """Return the change of the gate. None: it needs no change."""
        decided = {limit for limit in GateLimit if self._is_decided(limit)}
        limits = {limit.value: value for limit in GateLimit if (value := self._new(limit, decided)) is not _KEPT}
        changed = frozenset(GateLimit(limit) for limit in limits)
        paces = changed == {GateLimit.RATE} and _same_count(self._gate.rate, limits["rate"])
        owner = self._new_owner(changed)
        marks = any(wanted.decides or self._is_pause(wanted) for wanted in self._contributions)
        if owner != self._owner and (limits or self._withdrawn or marks):
            limits["owner"] = owner
        pause = self._new_pause()
        if not limits and pause is None:
            return None
        return GateChange(
            gate=self._gate.name,
            limits=limits,
            pause_until_ms=pause,
            sources=frozenset(self._owners | {wanted.source for wanted in self._contributions}),
            restores=any(limit not in decided and limits[limit] is not None for limit in changed),
            paces=paces and pause is None,
        )

    def _is_decided(self, limit: GateLimit) -> bool:
        withdrawn = any(limit in self._known[mark].limits for mark in self._withdrawn)
        return withdrawn or any(limit in wanted.decides for wanted in self._contributions)

    def _is_pause(self, wanted: Contribution) -> bool:
        return wanted.paused_until_ms is not None and self._known[wanted.source].pauses

    def _new(self, limit: GateLimit, decided: set[GateLimit]) -> Any:
        current = getattr(self._gate, limit)
        if limit not in decided and current is not None:
            return _KEPT
        values = [value for wanted in self._contributions if (value := getattr(wanted, limit)) is not None]
        if current is not None and any(self._may_set(mark, limit) for mark in self._staying):
            values.append(current)
        value = strictest(limit, values)
        return _KEPT if _same(current, value) else value

    def _may_set(self, mark: str, limit: GateLimit) -> bool:
        return mark not in self._known or limit in self._known[mark].limits

    def _new_owner(self, changed: frozenset[GateLimit]) -> str:
        marks = set(self._staying)
        for wanted in self._contributions:
            # An operator may have set a limit that is not decided, unless it was marked before or is set now.
            is_own = bool(wanted.decides or wanted.source in self._owners or changed & wanted.limits)
            if (wanted.limits and is_own) or self._is_pause(wanted):
                marks.add(wanted.source)
        return ",".join(sorted(marks - self._implied))

    def _new_pause(self) -> int | None:
        current = self._gate.paused_until_ms or 0
        until_ms = max((wanted.paused_until_ms or 0 for wanted in self._contributions), default=0)
        if until_ms > current:
            return until_ms
        # A pause of another source, or of an operator, ends by itself or by a command.
        ends = current > until_ms and any(self._known[mark].pauses for mark in self._withdrawn)
        return until_ms if ends else None


_KEPT: Final = object()


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Rate) and isinstance(other, Rate):
        # The queue stores rates as decimal numbers.
        return isclose(one.count / one.per_ms, other.count / other.per_ms) and one.burst == other.burst
    return bool(one == other)


def _same_count(one: Rate | None, other: Rate | None) -> bool:
    return one is not None and other is not None and isclose(one.count, other.count)

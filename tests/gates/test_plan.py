"""What several sources contribute to a gate is merged to the strictest, whatever the order; the rest is left alone."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.gates.plan import (
    ALL_LIMITS,
    Contribution,
    GateChange,
    GateLimit,
    SourceTraits,
    plan_changes,
    strictest,
)
from postroad.queue import FOREVER_MS, Gate, GateState, Quota, Rate

RATE, CONCURRENCY, QUOTA = GateLimit
SETTINGS = SourceTraits(name="settings", limits=frozenset({RATE, CONCURRENCY}), withdraws=False)
STARTING = msgspec.structs.replace(SETTINGS, withdraws=True)
SHAPING = SourceTraits(name="shaping", limits=frozenset({RATE, CONCURRENCY}), locks=True)
WARMUP = SourceTraits(name="warmup", limits=frozenset({RATE, QUOTA}))
DNS = SourceTraits(name="dns", pauses=True)
ALL = [SETTINGS, SHAPING, WARMUP, DNS]

FAST, SLOW = Rate(count=100, per_ms=1000, burst=5), Rate(count=1, per_ms=1000, burst=2)
DAY = Quota(left=50, until_ms=86_400_000, size=50)

rates = st.builds(Rate, count=st.integers(1, 9), per_ms=st.sampled_from([1000, 60_000]), burst=st.integers(1, 4))
quotas = st.builds(Quota, left=st.integers(0, 9), until_ms=st.integers(1, 9))


@st.composite
def contributions(draw: st.DrawFn) -> list[Contribution]:
    """What any of the sources contribute to one gate, each what it may."""
    found = []
    for source in draw(st.lists(st.sampled_from(ALL), unique=True)):
        values: dict[str, Any] = {}
        for limit, strategy in ((RATE, rates), (CONCURRENCY, st.integers(0, 9)), (QUOTA, quotas)):
            if limit in source.limits:
                values[limit] = draw(st.none() | strategy)
        pause = draw(st.none() | st.sampled_from([5, FOREVER_MS])) if source in (SHAPING, DNS) else None
        decides = frozenset() if source is SETTINGS else source.limits
        found.append(
            Contribution(source=source.name, gate="g", paused_until_ms=pause, decides=frozenset(decides), **values)
        )
    return found


def state(gate: Gate, owner: str = "") -> GateState:
    return GateState(gate=gate, in_flight=0, parked_lanes=0, capacity=None, next_check_ms=None, owner=owner)


def applied(change: GateChange, before: GateState) -> GateState:
    """Return the gate after a change, as the queue applies it."""
    limits = dict(change.limits)
    owner = limits.pop("owner", before.owner)
    pause = before.gate.paused_until_ms if change.pause_until_ms is None else change.pause_until_ms or None
    return state(msgspec.structs.replace(before.gate, paused_until_ms=pause, **limits), owner)


def planned(before: GateState, wanted: list[Contribution], sources: list[SourceTraits]) -> GateState:
    changes = plan_changes({before.gate.name: before}, wanted, sources)
    assert len(changes) <= 1
    return applied(changes[0], before) if changes else before


@given(contributions(), st.randoms())
def test_the_order_of_contributions_makes_no_difference(wanted: list[Contribution], rng: Any) -> None:
    shuffled = rng.sample(wanted, len(wanted))
    new = state(Gate(name="g"))
    assert planned(new, wanted, ALL) == planned(new, shuffled, ALL)


@given(contributions(), contributions())
def test_a_second_plan_changes_nothing(first: list[Contribution], then: list[Contribution]) -> None:
    gate = planned(planned(state(Gate(name="g")), first, ALL), then, ALL)
    assert plan_changes({"g": gate}, then, ALL) == []


@given(contributions(), contributions())
def test_no_gate_admits_more_than_a_deciding_source(first: list[Contribution], then: list[Contribution]) -> None:
    gate = planned(planned(state(Gate(name="g")), first, ALL), then, ALL).gate
    for each in then:
        assert (gate.paused_until_ms or 0) >= (each.paused_until_ms or 0)
        for limit in each.limits & each.decides:
            assert strictest(limit, [getattr(gate, limit), getattr(each, limit)]) == getattr(gate, limit)


@given(contributions())
def test_a_limit_no_longer_contributed_is_removed(wanted: list[Contribution]) -> None:
    sources = [STARTING, SHAPING, WARMUP, DNS]
    left = planned(planned(state(Gate(name="g")), wanted, sources), [], sources)
    # A pause of shaping ends by itself, so its removal does not end the pause of another source.
    ends = not any(each.paused_until_ms for each in wanted) or any(
        each.source == "dns" and each.paused_until_ms for each in wanted
    )
    assert (left.gate.rate, left.gate.concurrency, left.gate.quota, left.owner) == (None, None, None, "")
    assert left.gate.paused_until_ms is None or not ends


@given(contributions())
def test_limits_of_absent_sources_are_kept(wanted: list[Contribution]) -> None:
    gate = planned(state(Gate(name="g")), wanted, ALL)
    assert planned(gate, [], [SourceTraits(name="other", limits=ALL_LIMITS)]) == gate


def test_sources_applied_one_by_one_in_any_order_agree() -> None:
    wanted = [
        (STARTING, Contribution(source="settings", gate="g", rate=FAST, concurrency=3, decides=ALL_LIMITS)),
        (SHAPING, Contribution(source="shaping", gate="g", rate=SLOW, concurrency=5, decides=SHAPING.limits)),
        (WARMUP, Contribution(source="warmup", gate="g", rate=FAST, quota=DAY, decides=WARMUP.limits)),
        (DNS, Contribution(source="dns", gate="g", paused_until_ms=FOREVER_MS)),
    ]
    gate = Gate(name="g", rate=SLOW, concurrency=3, quota=DAY, paused_until_ms=FOREVER_MS)
    for order in permutations(wanted):
        now = state(Gate(name="g"))
        for source, contribution in order:
            now = planned(now, [contribution], [source])
        assert now == state(gate, "dns,settings,shaping,warmup")


def test_an_undecided_limit_is_only_set_if_missing() -> None:
    wanted = Contribution(source="settings", gate="g", rate=SLOW)
    of_operator = state(Gate(name="g", rate=FAST))
    assert planned(of_operator, [wanted], ALL) == of_operator
    [change] = plan_changes({}, [wanted], ALL)
    assert (change.limits, change.restores) == ({"rate": SLOW, "owner": "settings"}, True)


def test_a_limit_of_an_operator_stays_when_a_hold_ends() -> None:
    held = state(Gate(name="g", rate=FAST, paused_until_ms=FOREVER_MS), "dns")
    wanted = Contribution(source="settings", gate="g", rate=SLOW)
    assert planned(held, [wanted], ALL) == state(Gate(name="g", rate=FAST))


def test_the_limit_of_the_settings_returns_after_a_stricter_one() -> None:
    settings = Contribution(source="settings", gate="g", rate=FAST)
    shaping = Contribution(source="shaping", gate="g", rate=SLOW, decides=SHAPING.limits)
    slowed = planned(state(Gate(name="g", rate=FAST), "settings"), [settings, shaping], ALL)
    assert slowed == state(Gate(name="g", rate=Rate(count=1, per_ms=1000, burst=2)), "settings,shaping")
    assert planned(slowed, [settings], ALL) == state(Gate(name="g", rate=FAST), "settings")


@pytest.mark.parametrize(
    ("name", "gate", "removed"),
    [
        ("warmup:google:example.com", Gate(name="warmup:google:example.com", rate=SLOW, quota=DAY), True),
        ("hold:a@example.com", Gate(name="hold:a@example.com", paused_until_ms=FOREVER_MS), True),
        ("sender:a@example.com", Gate(name="sender:a@example.com", rate=SLOW, paused_until_ms=FOREVER_MS), False),
    ],
)
def test_gates_of_the_previous_version_belong_to_their_kind(name: str, gate: Gate, removed: bool) -> None:
    left = planned(state(gate), [], ALL)
    assert left == state(Gate(name=name)) if removed else left == state(gate)


def test_a_new_pace_for_the_hour_is_not_a_correction() -> None:
    def change(before: Gate, rate: Rate, left: int = 50) -> GateChange:
        quota = msgspec.structs.replace(DAY, left=left)
        wanted = Contribution(source="warmup", gate="g", rate=rate, quota=quota, decides=WARMUP.limits)
        [found] = plan_changes({"g": state(before, "warmup")}, [wanted], ALL)
        return found

    hour = Rate(count=50, per_ms=40_000_000)
    gate = Gate(name="g", rate=Rate(count=50, per_ms=43_000_000), quota=DAY)
    assert change(gate, hour).paces
    assert not change(gate, Rate(count=30, per_ms=40_000_000)).paces
    assert not change(gate, hour, left=20).paces
    assert not change(Gate(name="g", quota=DAY), hour).paces

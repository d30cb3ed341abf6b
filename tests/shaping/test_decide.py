"""Which change a reply causes, and what a gate then admits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.gates.name import Receiver
from postroad.gates.plan import Contribution, GateChange, plan_changes
from postroad.queue import FOREVER_MS, Gate, GateState, Rate
from postroad.settings import RateSetting
from postroad.shaping.config import read_shaping
from postroad.shaping.decide import (
    DECREASE_DELAY,
    INCREASE_INTERVAL,
    MIN_SHARE,
    SHAPED,
    SHAPING,
    change_by_rule,
    contribution,
    decrease,
    increase,
    is_expired,
)
from postroad.shaping.gate_source import ShapingLimits
from postroad.shaping.limits import LimitScope, ReceiverLimits
from postroad.store.shaping import ShapingChange

NOW = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
SCOPE = LimitScope(sender="news@example.com", receiver=Receiver("google"))
LIMITS = ReceiverLimits(connections=10, rate=RateSetting(count=100, per_ms=1000))
RULES = read_shaping(None).rule


def change(**fields: object) -> ShapingChange:
    values: dict[str, object] = {"gate": SCOPE.gate, "rule": "r", "sender": SCOPE.sender, "reply": "421", "at": NOW}
    return ShapingChange(**{**values, "ends_at": NOW + HOUR, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "acts_at", "sets", "minutes"),
    [
        ("yahoo-deferral", 1, "suspended", 120),
        ("comcast-rate", 1, "suspended", 5),
        ("google-unusual-rate", 2, (10.0, 60_000, None), 30),
        ("microsoft-rate-limited", 3, "suspended", 30),
        ("busy", 1, (1.0, 60_000, 1), 90),
        ("refused-by-many", 10, "suspended", 60),
    ],
)
def test_each_rule_acts_at_its_count_and_for_its_duration(name: str, acts_at: int, sets: object, minutes: int) -> None:
    for times in range(1, acts_at):
        assert change_by_rule(name, RULES[name], SCOPE, "421 x", times=times, now=NOW) is None
    made = change_by_rule(name, RULES[name], SCOPE, "421 x", times=acts_at, now=NOW)
    assert made is not None
    assert made.ends_at == NOW + timedelta(minutes=minutes)
    assert ("suspended" if made.suspended else (made.rate_count, made.rate_per_ms, made.connections)) == sets
    assert (made.gate, made.rule, made.reply) == ("provider:google:news@example.com", name, "421 x")


def test_the_strictest_limit_and_the_longest_pause_apply() -> None:
    slow = change(rate_count=1.0, rate_per_ms=60_000, connections=3)
    slower_ = change(rule="s", rate_count=2.0, rate_per_ms=60_000, connections=1)
    ended = change(rule="e", rate_count=0.1, rate_per_ms=60_000, ends_at=NOW)
    pause, longer = change(rule="p", suspended=True), change(rule="q", suspended=True, ends_at=NOW + 2 * HOUR)
    assert contribution("g", LIMITS, [slow, slower_, ended, pause, longer], NOW) == Contribution(
        source=SHAPING,
        gate="g",
        rate=Rate(count=1, per_ms=60_000),
        concurrency=1,
        paused_until_ms=int((NOW + 2 * HOUR).timestamp() * 1000),
        decides=SHAPED,
    )


def test_a_gate_without_limits_or_changes_is_not_set() -> None:
    assert contribution("g", None, [], NOW) is None
    forever = contribution("g", None, [change(suspended=True, ends_at=None)], NOW)
    assert forever == Contribution(source=SHAPING, gate="g", paused_until_ms=FOREVER_MS)
    # An expired change removes its limit.
    freed = contribution("g", None, [change(connections=1, ends_at=NOW)], NOW)
    assert freed == Contribution(source=SHAPING, gate="g", decides=SHAPED)
    limited = contribution("g", LIMITS, [], NOW)
    rate = Rate(count=100, per_ms=1000, burst=5)
    assert limited == Contribution(source=SHAPING, gate="g", rate=rate, concurrency=10, decides=SHAPED)


def test_a_longer_pause_stays() -> None:
    def plan(gate: Gate, *changes: ShapingChange) -> list[GateChange]:
        wanted = contribution("g", None, changes, NOW)
        state = GateState(gate=gate, in_flight=0, parked_lanes=0, capacity=None, next_check_ms=None)
        return plan_changes({"g": state}, [wanted] if wanted else [], [ShapingLimits.traits])

    paused = change(suspended=True)
    assert [each.pause_until_ms for each in plan(Gate(name="g"), paused)] == [int((NOW + HOUR).timestamp() * 1000)]
    assert plan(Gate(name="g", paused_until_ms=FOREVER_MS), paused) == []
    assert plan(Gate(name="g", paused_until_ms=5, concurrency=2)) == []


def test_one_burst_of_deferrals_halves_the_rate_once() -> None:
    first = decrease(SCOPE, LIMITS, "421 slow down", last=None, now=NOW)
    assert first is not None
    assert (first.share, first.rate_count, first.connections) == (0.5, 50.0, 5)
    assert decrease(SCOPE, LIMITS, "421", last=first, now=NOW + DECREASE_DELAY / 2) is None
    second = decrease(SCOPE, LIMITS, "421", last=first, now=NOW + DECREASE_DELAY)
    assert second is not None
    assert (second.share, second.connections) == (0.25, 2)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 600)), max_size=80))
def test_the_rate_stays_between_its_minimum_and_the_limits(steps: list[tuple[bool, int]]) -> None:
    now, last = NOW, None
    for accepted, seconds in steps:
        now += timedelta(seconds=seconds)
        if last is not None and accepted:
            last = increase(last, LIMITS, now) or last
        elif not accepted:
            last = decrease(SCOPE, LIMITS, "421", last=last, now=now) or last
        if last is not None:
            assert last.share is not None
            assert MIN_SHARE <= last.share <= 1
            assert last.connections is not None
            assert 1 <= last.connections <= 10
            assert last.rate_count == 100 * last.share
            if is_expired(last, now):
                last = None


def test_the_rate_grows_to_the_limits_while_mail_is_accepted() -> None:
    pace = decrease(SCOPE, LIMITS, "421", last=None, now=NOW)
    assert pace is not None
    now, steps = NOW, 0
    while not is_expired(pace, now):
        assert increase(pace, LIMITS, now + INCREASE_INTERVAL / 2) is None
        now += INCREASE_INTERVAL
        grown = increase(pace, LIMITS, now)
        assert grown is not None
        pace, steps = grown, steps + 1
    assert steps == 8

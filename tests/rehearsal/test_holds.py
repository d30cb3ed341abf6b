"""What gates held, as the queue shows them."""

from __future__ import annotations

import pytest

from postroad.queue import FOREVER_MS, Gate, GateState, Quota, Rate
from postroad.rehearsal.holds import Hold, Holds, why_closed


def state(gate: Gate, *, parked: int = 1, room: int | None = 0, in_flight: int = 0) -> GateState:
    return GateState(gate=gate, in_flight=in_flight, parked_lanes=parked, capacity=room, next_check_ms=None)


def test_time_counts_for_a_closed_gate_for_which_a_lane_waits() -> None:
    holds = Holds(1_000)
    closed, empty, open_ = (Gate(name=name, rate=Rate(count=30, per_ms=3_600_000)) for name in ("a", "b", "c"))
    holds.add([state(closed), state(empty, parked=0), state(open_, room=4)], 4_000)
    holds.add([state(closed)], 5_000)
    holds.add([], 9_000)
    assert holds.summed() == (Hold(gate="a", why="rate 30 in 3600 s, 1 at once", seconds=4.0),)


def test_a_limit_that_changed_on_the_way_has_a_row_of_its_own() -> None:
    holds = Holds(0)
    holds.add([state(Gate(name="provider:google:ada", rate=Rate(count=100, per_ms=1000)))], 1_000)
    holds.add([state(Gate(name="provider:google:ada", rate=Rate(count=10, per_ms=60_000)))], 61_000)
    assert [(hold.why, hold.seconds) for hold in holds.summed()] == [
        ("rate 10 in 60 s, 1 at once", 60.0),
        ("rate 100 in 1 s, 1 at once", 1.0),
    ]


@pytest.mark.parametrize(
    ("gate", "in_flight", "why"),
    [
        (Gate(name="g", paused_until_ms=FOREVER_MS), 0, "paused until it is resumed"),
        (Gate(name="g", paused_until_ms=2_000, rate=Rate(count=1, per_ms=1)), 0, "paused for a while"),
        (Gate(name="g", paused_until_ms=500, concurrency=5), 5, "5 at once"),
        (Gate(name="g", quota=Quota(left=0, until_ms=2_000)), 0, "quota used up"),
        (
            Gate(name="g", quota=Quota(left=0, until_ms=500), rate=Rate(count=1, per_ms=2_000)),
            0,
            "rate 1 in 2 s, 1 at once",
        ),
    ],
)
def test_the_limit_that_is_met_is_named(gate: Gate, in_flight: int, why: str) -> None:
    assert why_closed(state(gate, in_flight=in_flight), 1_000) == why

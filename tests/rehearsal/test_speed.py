"""How fast the clock may run: pure, from sample to sample."""

from __future__ import annotations

import math
from dataclasses import replace

from postroad.rehearsal.speed import MAX_BUSY_SPEED, ClockRun, SpeedController, SpeedSample

IDLE = SpeedSample(now_ms=0, scheduled=0, in_flight=0, ready_lanes=0, unrecorded=0, next_ms=None)
SLOTS = 20


class Watcher:
    """Takes samples, each a while after the last."""

    def __init__(self, max_speed: float = 10_000) -> None:
        self.speed = SpeedController(max_speed, SLOTS, 0)
        self.now_ms = 0

    def sample(self, times: int = 1, *, every_ms: int = 10, **seen: int) -> ClockRun:
        run = ClockRun(0, 0)
        for _ in range(times):
            self.now_ms += every_ms
            run = self.speed.next(replace(IDLE, now_ms=self.now_ms, **seen))
        return run


def test_with_nothing_to_do_it_runs_as_fast_as_it_was_asked_to() -> None:
    assert Watcher().sample() == ClockRun(10_000, math.inf)


def test_it_runs_no_further_than_to_what_is_due_next() -> None:
    assert Watcher().sample(scheduled=3, next_ms=86_400_000) == ClockRun(10_000, 86_400_000)


def test_until_the_worker_has_asked_for_what_is_due_it_does_not_run_on() -> None:
    watcher = Watcher()
    assert watcher.sample(scheduled=3).speed <= 10
    assert watcher.sample(scheduled=3, next_ms=20).speed <= 10
    assert watcher.speed.lag_ms == 0
    watcher.sample(scheduled=3, next_ms=20, every_ms=500)
    assert watcher.speed.lag_ms == 500


def test_while_messages_are_on_their_way_it_finds_the_speed_that_the_machine_delivers_at() -> None:
    watcher = Watcher()
    assert watcher.sample(200, in_flight=3, ready_lanes=1) == ClockRun(MAX_BUSY_SPEED, math.inf)
    slower = watcher.sample(3, in_flight=SLOTS, ready_lanes=1).speed
    assert slower == MAX_BUSY_SPEED / 8
    assert watcher.sample(50, in_flight=SLOTS, ready_lanes=1).speed == 1.0
    assert watcher.sample(5, in_flight=3, ready_lanes=1).speed > 2.0


def test_full_slots_with_nothing_else_to_send_are_no_crowd() -> None:
    watcher = Watcher()
    watcher.sample(10, in_flight=SLOTS)
    assert (watcher.speed.full_ms, watcher.speed.lag_ms) == (0, 0)


def test_what_the_machine_holds_up_is_lag_only_where_the_clock_runs_faster_than_the_world() -> None:
    watcher = Watcher()
    watcher.sample(5, in_flight=SLOTS, ready_lanes=1, every_ms=100)
    lag_ms = watcher.speed.lag_ms
    assert 0 < lag_ms <= 500
    watcher.sample(100, in_flight=SLOTS, ready_lanes=1)
    assert watcher.speed.lag_ms == lag_ms, "at the speed of the world it would be late in earnest"
    assert watcher.speed.full_ms == 1_500


def test_events_that_wait_to_be_recorded_slow_it_down() -> None:
    assert Watcher().sample(unrecorded=1).speed <= 10
    assert Watcher().sample(10, unrecorded=5_000).speed == 1.0


def test_a_rehearsal_slower_than_the_world_stays_so() -> None:
    watcher = Watcher(max_speed=0.5)
    assert watcher.sample().speed == 0.5
    assert watcher.sample(20, in_flight=SLOTS, ready_lanes=1).speed == 0.5

"""The accelerated clock, driven by a fake clock as its real time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from postroad.clock import ScaledClock

START = datetime(2027, 3, 1, 9, 0, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)


class RealTime:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def test_it_begins_at_its_start_and_runs_faster_by_its_factor() -> None:
    real = RealTime()
    clock = ScaledClock(START, 100, real_s=real)
    assert clock.now() == START
    real.now_s += 0.5
    assert clock.now_ms() == START_MS + 50_000
    assert clock.now() == datetime(2027, 3, 1, 9, 0, 50, tzinfo=UTC)


def test_another_speed_applies_from_the_present_time_on() -> None:
    real = RealTime()
    clock = ScaledClock(START, 100, real_s=real)
    real.now_s += 1
    clock.set_speed(2)
    real.now_s += 1
    assert clock.now_ms() == START_MS + 102_000


def test_it_stops_at_a_time_until_its_speed_is_set() -> None:
    real = RealTime()
    clock = ScaledClock(START, 1, real_s=real)
    clock.set_speed(1000, START_MS + 5_000)
    real.now_s += 60
    assert clock.now_ms() == START_MS + 5_000
    clock.set_speed(10)
    assert clock.now_ms() == START_MS + 5_000
    real.now_s += 1
    assert clock.now_ms() == START_MS + 15_000


def test_a_limit_that_has_passed_never_turns_it_back() -> None:
    real = RealTime()
    clock = ScaledClock(START, 1, real_s=real)
    real.now_s += 10
    clock.set_speed(1, START_MS)
    real.now_s += 10
    assert clock.now_ms() == START_MS + 10_000


def test_what_is_done_while_it_is_held_takes_no_time() -> None:
    real = RealTime()
    clock = ScaledClock(START, 10, real_s=real)
    with clock.paused():
        real.now_s += 100
        clock.set_speed(20)
        with clock.paused():
            real.now_s += 100
        assert clock.now_ms() == START_MS
    assert clock.now_ms() == START_MS
    real.now_s += 1
    assert clock.now_ms() == START_MS + 20_000


async def test_a_sleeper_wakes_at_its_instant_whatever_the_speed_became() -> None:
    clock = ScaledClock(START, 0.001)
    sleeping = asyncio.create_task(clock.sleep(3600))
    await asyncio.sleep(0)
    clock.set_speed(1_000_000)
    async with asyncio.timeout(10):
        await sleeping
    assert clock.now_ms() >= START_MS + 3_600_000


async def test_a_sleeper_waits_while_it_is_held() -> None:
    clock = ScaledClock(START, 1_000_000)
    with clock.paused():
        sleeping = asyncio.create_task(clock.sleep(60))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not sleeping.done()
    async with asyncio.timeout(10):
        await sleeping

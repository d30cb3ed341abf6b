"""The simulation: what gates admit, how lanes share them, what follows, and when nothing can move."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from math import inf
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.campaign.calendar import Window
from postroad.forecast.following import NextEmail
from postroad.forecast.gates import RateGate, SimulatedGate, WarmupGate
from postroad.forecast.simulate import STEP_S, WINDOW, Arrival, LaneKey, SimulatedRun, Simulation
from postroad.queue import Quota, Rate
from postroad.settings import WarmupSettings
from postroad.warmup.identity import WarmingIdentity
from postroad.warmup.plan import plan_for

MONDAY = datetime(2026, 11, 30, 9, tzinfo=UTC)
NOW = MONDAY.timestamp()
HOUR = 3600.0
ADA, GOOGLE, YAHOO = "ada@sender.example", "google", "yahoo"


def lane(provider: str = GOOGLE, *, sender: str = ADA, zone: str = "UTC", campaign: bool = True) -> LaneKey:
    return LaneKey(sender, provider, provider, zone, campaign)


def hourly(name: str, count: float) -> RateGate:
    return RateGate(name, rate=Rate(count=count, per_ms=3_600_000, burst=1))


def run(
    arrivals: Sequence[Arrival],
    gates: Callable[[LaneKey], Sequence[SimulatedGate]],
    *,
    steps: int = 1,
    wait_s: float = 0.0,
    window: Window | None = None,
    now: float = NOW,
) -> SimulatedRun:
    return Simulation(
        arrivals,
        gates,
        follow=lambda step, sent, due, zone: [NextEmail(sent + wait_s, step + 1)] if step + 1 < steps else [],
        window=window,
        own=ADA,
        take_over=lambda due, waiting: [due],
    ).run(now)


def total(found: SimulatedRun) -> float:
    return sum(found.hours.values())


def test_a_rate_says_how_long_it_takes() -> None:
    gate = hourly("sender", 60)
    found = run([Arrival(NOW, lane(), 0, 150)], lambda _: [gate])
    assert found.ended == pytest.approx(NOW + 2.5 * HOUR, abs=STEP_S)
    assert [messages for (_, _, _), messages in sorted(found.hours.items())] == pytest.approx([60, 60, 30], abs=5)
    [(hold, held)] = [(hold, held) for hold, held in found.held.items()]
    assert hold == ("sender", "rate 60 in 3600 s")
    assert held / HOUR == pytest.approx(150 * 2.5 / 2, rel=0.1)


def test_lanes_share_a_gate_evenly_and_what_one_does_not_need_goes_to_the_others() -> None:
    shared, slow = hourly("sender", 120), hourly("slow", 20)
    arrivals = [
        Arrival(NOW, lane(GOOGLE), 0, 400),
        Arrival(NOW, lane(YAHOO), 0, 400),
        Arrival(NOW, lane("gmx"), 0, 400),
    ]
    found = run(arrivals, lambda key: [slow, shared] if key.provider == "gmx" else [shared])
    first = {provider: n for (hour, _, provider), n in found.hours.items() if hour == NOW}
    assert first == pytest.approx({GOOGLE: 50, YAHOO: 50, "gmx": 20}, rel=0.01)
    assert found.ended == pytest.approx(NOW + 400 / 20 * HOUR, abs=STEP_S)


def test_a_next_step_follows_each_message_after_its_wait() -> None:
    gate = hourly("sender", 60)
    found = run([Arrival(NOW, lane(), 0, 60)], lambda _: [gate], steps=2, wait_s=6 * HOUR)
    assert found.ended == pytest.approx(NOW + 7 * HOUR, abs=3 * STEP_S)
    assert {step: messages for step, (_, _, messages) in found.steps.items()} == pytest.approx({0: 60, 1: 60})


def test_the_hours_of_a_campaign_hold_over_a_weekend_in_each_zone() -> None:
    window = Window(start=time(9), end=time(17), days=frozenset(range(5)))
    friday = datetime(2026, 12, 4, 16, 30, tzinfo=UTC).timestamp()
    gate = hourly("sender", 60)
    found = run([Arrival(friday, lane(), 0, 60)], lambda _: [gate], window=window, now=friday)
    assert found.ended == pytest.approx(datetime(2026, 12, 7, 9, 30, tzinfo=UTC).timestamp(), abs=2 * STEP_S)
    assert max(found.held, key=lambda hold: found.held[hold]).cause == WINDOW
    far = run(
        [Arrival(friday, lane(zone="America/New_York"), 0, 60)],
        lambda _: [hourly("sender", 60)],
        window=window,
        now=friday,
    )
    assert far.ended == pytest.approx(friday + HOUR, abs=2 * STEP_S)


@pytest.mark.parametrize(
    ("gate", "ends_hours", "limit"),
    [
        (RateGate("g", paused_until=NOW + 5 * HOUR), 5.0, "paused until 2026-11-30 14:00 UTC"),
        (RateGate("g", quota=Quota(left=0, until_ms=int((NOW + 3 * HOUR) * 1000), size=1)), 3.0, "quota used up"),
        (RateGate("g", paused_until=inf), None, "paused until it is resumed"),
    ],
    ids=["pause", "quota", "for-ever"],
)
def test_what_is_closed_holds_until_it_opens(gate: RateGate, ends_hours: float | None, limit: str) -> None:
    found = run([Arrival(NOW, lane(), 0, 10)], lambda _: [gate])
    assert [hold.limit for hold in found.held] == [limit]
    if ends_hours is None:
        assert found.ended is None
        assert found.waiting == 10
    else:
        assert found.ended == pytest.approx(NOW + ends_hours * HOUR, abs=STEP_S)


def test_other_campaigns_take_their_share_and_are_not_counted() -> None:
    gate = hourly("sender", 60)
    found = run(
        [Arrival(NOW, lane(), 0, 60), Arrival(NOW, lane(campaign=False), 0, 60)],
        lambda _: [gate],
    )
    assert found.ended == pytest.approx(NOW + 2 * HOUR, abs=2 * STEP_S)
    assert total(found) == pytest.approx(60)


def identity(**values: object) -> WarmingIdentity:
    warmup = WarmupSettings.model_validate({"opens": "09:00", "closes": "21:00", **values})
    return WarmingIdentity(name=ADA, senders=(ADA,), warmup=warmup, zone=ZoneInfo("UTC"))


def test_the_caps_of_a_warmup_grow_as_its_plan_does() -> None:
    warming = identity(preset="curve")
    gate = WarmupGate("warmup", GOOGLE, [warming], [[]], now=NOW, used=0)
    found = run([Arrival(NOW, lane(), 0, 1_000)], lambda _: [gate])
    by_day: dict[str, float] = {}
    for (hour, _, _), messages in found.hours.items():
        day = f"{datetime.fromtimestamp(hour, UTC):%j}"
        by_day[day] = by_day.get(day, 0.0) + messages
    plan = plan_for(warming.warmup, GOOGLE)
    caps: list[int] = []
    while sum(caps) < 1_000:
        caps.append(plan.on_day(len(caps)))
    *full, last = by_day.values()
    assert full == pytest.approx(caps[:-1], abs=0.01)
    assert last == pytest.approx(1_000 - sum(caps[:-1]), abs=0.01)


def test_a_cap_that_is_not_used_up_does_not_grow() -> None:
    gate = WarmupGate("warmup", GOOGLE, [identity(preset="table", table=[5, 10])], [[]], now=NOW, used=0)
    later = NOW + 24 * HOUR
    run([Arrival(NOW, lane(), 0, 3)], lambda _: [gate])
    assert gate.capacity(later, 24 * HOUR) == pytest.approx(5)


MESSAGES = st.floats(0.5, 500)
LANES = st.builds(lane, st.sampled_from([GOOGLE, YAHOO, "gmx"]), zone=st.sampled_from(["UTC", "Asia/Tokyo"]))
ARRIVALS = st.lists(st.builds(Arrival, st.floats(NOW, NOW + 1e5), LANES, st.just(0), MESSAGES), min_size=1, max_size=12)


@settings(deadline=None)
@given(ARRIVALS, st.dictionaries(st.sampled_from([GOOGLE, YAHOO, "gmx", "all"]), st.integers(20, 5_000)), st.booleans())
def test_nothing_is_lost_and_no_gate_admits_more_than_its_rate(
    arrivals: list[Arrival], rates: Mapping[str, int], weekdays: bool
) -> None:
    gates = {name: hourly(name, count) for name, count in rates.items()}
    window = Window(start=time(9), end=time(17), days=frozenset(range(5))) if weekdays else None
    found = run(arrivals, lambda key: [gates[n] for n in (key.provider, "all") if n in gates], steps=2, window=window)
    wanted = sum(arrival.messages for arrival in arrivals)
    assert total(found) == pytest.approx(2 * wanted, rel=1e-3)
    assert found.ended is not None
    for name, count in rates.items():
        by_hour: dict[float, float] = {}
        for (hour, _, provider), messages in found.hours.items():
            if name in ("all", provider):
                by_hour[hour] = by_hour.get(hour, 0.0) + messages
        # A step may reach into the next hour.
        assert all(messages <= count * (1 + STEP_S / HOUR) + 1e-3 for messages in by_hour.values())


def test_a_long_forecast_is_bounded() -> None:
    gate = hourly("sender", 0.001)
    found = run([Arrival(NOW, lane(), 0, 1_000)], lambda _: [gate])
    assert found.ended is None
    assert timedelta(seconds=sum(found.held.values())) > timedelta(days=1_000)

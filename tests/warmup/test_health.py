"""Health gates: which outcomes are healthy, and which pause a sender."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.warmup.health import ONE_SIDED_90, Counts, WarmupHealth, assess, has_enough_data, wilson_lower

SHARES = ("bounced", "complained", "deferred", "blocked")


def of_10_000(**events: int) -> Counts:
    """Ten thousand attempts, so that shares are exact."""
    lost = sum(count for what, count in events.items() if what != "complained")
    return Counts(attempts=10_000, accepted=10_000 - lost, **events)


@pytest.mark.parametrize(
    ("what", "healthy", "hold", "slow", "pause"),
    [
        ("bounced", 190, 300, 600, 1_000),
        ("complained", 7, 9, 20, 60),
        ("deferred", 400, 1_000, 2_000, 4_000),
        ("blocked", 40, 100, 300, 800),
    ],
)
def test_each_gate_has_its_steps(what: str, healthy: int, hold: int, slow: int, pause: int) -> None:
    for events, health in (
        (healthy, WarmupHealth.HEALTHY),
        (hold, WarmupHealth.HOLD),
        (slow, WarmupHealth.SLOW),
        (pause, WarmupHealth.PAUSE),
    ):
        assessment = assess(of_10_000(**{what: events}))
        assert assessment.health is health, events
        assert bool(assessment.reason) is (health is not WarmupHealth.HEALTHY)


def test_one_complaint_in_39_messages_does_not_pause() -> None:
    counts = Counts(attempts=39, accepted=39, complained=1)
    assert not has_enough_data(counts, 50)
    assert assess(counts).health is WarmupHealth.SLOW


def test_two_events_never_pause_however_large_their_share() -> None:
    assert assess(Counts(attempts=100, accepted=98, complained=2)).health is WarmupHealth.SLOW
    assert assess(Counts(attempts=100, accepted=97, complained=3)).health is WarmupHealth.PAUSE


def test_a_share_that_may_be_chance_slows_and_does_not_pause() -> None:
    # 9 of 100 is above 8 %, but one such sample in ten has a true share of 6 %.
    assert assess(Counts(attempts=100, accepted=91, bounced=9)).health is WarmupHealth.SLOW
    assert assess(Counts(attempts=1_000, accepted=900, bounced=100)).health is WarmupHealth.PAUSE


@pytest.mark.parametrize(
    ("rate", "health", "says"),
    [
        (0.0007, WarmupHealth.HEALTHY, ""),
        (0.0009, WarmupHealth.HOLD, "0.09% (0.18 of 200)"),
        (0.002, WarmupHealth.SLOW, "0.20% (0.40 of 200)"),
        (0.004, WarmupHealth.SLOW, "0.40% (0.80 of 200)"),  # Fewer than three events never pause.
        (0.05, WarmupHealth.PAUSE, "5.00% (10 of 200)"),
    ],
)
def test_a_reported_rate_of_a_small_volume_is_used_as_given(rate: float, health: WarmupHealth, says: str) -> None:
    assessment = assess(Counts(attempts=200, accepted=200), rate * 200)
    assert assessment.health is health
    assert says in assessment.reason


def test_a_reported_rate_counts_only_if_it_is_worse() -> None:
    own = assess(Counts(attempts=1_000, accepted=1_000, complained=3))
    assert assess(Counts(attempts=1_000, accepted=1_000, complained=3), 0.003 * 1_000) == own
    assert "provider" not in own.reason


def test_the_worst_gate_decides_and_is_named() -> None:
    assessment = assess(of_10_000(bounced=300, deferred=4_000))
    assert assessment.health is WarmupHealth.PAUSE
    assert "deferrals are 40.00% (4,000 of 10,000)" in assessment.reason


@pytest.mark.parametrize(("attempts", "cap", "enough"), [(99, 50, False), (100, 200, True), (100, 202, False)])
def test_a_hundred_or_half_a_cap_is_enough_to_judge_by(attempts: int, cap: int, enough: bool) -> None:
    assert has_enough_data(Counts(attempts=attempts), cap) is enough


@given(of=st.integers(1, 10**6), share=st.floats(0.001, 1))
def test_the_bound_solves_wilsons_equation(of: int, share: float) -> None:
    events = max(round(of * share), 1)
    low = wilson_lower(events, of)
    seen = events / of
    assert 0 <= low < seen
    # The bound is the share p for which the sample lies just so many standard deviations off.
    assert seen - low == pytest.approx(ONE_SIDED_90 * math.sqrt(low * (1 - low) / of), rel=1e-6, abs=1e-12)


COUNTS = st.builds(
    lambda accepted, complained, bounced, deferred, blocked: Counts(
        attempts=accepted + bounced + deferred + blocked,
        accepted=accepted,
        complained=min(complained, accepted),
        bounced=bounced,
        deferred=deferred,
        blocked=blocked,
    ),
    *[st.integers(0, 2_000)] * 5,
)


@given(counts=COUNTS, what=st.sampled_from(SHARES), worse=st.integers(1, 50))
def test_worse_outcomes_never_improve_the_assessment(counts: Counts, what: str, worse: int) -> None:
    """Some accepted messages bounce, are deferred or blocked, or cause complaints instead."""
    moved = min(worse, counts.accepted)
    values = {name: getattr(counts, name) for name in ("attempts", "accepted", *SHARES)}
    values[what] += moved if what != "complained" else min(moved, counts.accepted - counts.complained)
    if what in ("bounced", "blocked"):
        values["accepted"] -= moved
        values["complained"] = min(values["complained"], values["accepted"])
    gates = {"bounced": ("bounced",), "blocked": ("blocked",), "complained": ("complained",), "deferred": ("deferred",)}
    if what == "deferred":
        values["attempts"] += moved
        values["deferred"] = counts.deferred + moved
    only = {name: values[name] for name in ("attempts", "accepted", *gates[what])}
    before = {name: getattr(counts, name) for name in ("attempts", "accepted", *gates[what])}
    if what != "deferred":
        # Deferrals are part of the attempts, and no answers.
        only["deferred"] = before["deferred"] = 0
        only["attempts"] -= counts.deferred
        before["attempts"] -= counts.deferred
    assert assess(Counts(**only)).health >= assess(Counts(**before)).health

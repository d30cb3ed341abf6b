"""Health gates: what is healthy, and what it takes to be paused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.warmup.health import ONE_SIDED_90, Counts, WarmupHealth, judge, judged, wilson_lower

SHARES = ("bounced", "complained", "deferred", "blocked")


def of_10_000(**events: int) -> Counts:
    """Ten thousand attempts, so that a share is what it seems."""
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
        judgement = judge(of_10_000(**{what: events}))
        assert judgement.health is health, events
        assert bool(judgement.reason) is (health is not WarmupHealth.HEALTHY)


def test_one_complaint_in_39_mails_pauses_nobody() -> None:
    counts = Counts(attempts=39, accepted=39, complained=1)
    assert not judged(counts, 50)
    assert judge(counts).health is WarmupHealth.SLOW


def test_two_events_never_pause_however_large_their_share() -> None:
    assert judge(Counts(attempts=100, accepted=98, complained=2)).health is WarmupHealth.SLOW
    assert judge(Counts(attempts=100, accepted=97, complained=3)).health is WarmupHealth.PAUSE


def test_a_share_that_may_be_chance_slows_and_does_not_pause() -> None:
    # 9 of 100 is above 8 %; but one time in ten such a sample comes of 6 %.
    assert judge(Counts(attempts=100, accepted=91, bounced=9)).health is WarmupHealth.SLOW
    assert judge(Counts(attempts=1_000, accepted=900, bounced=100)).health is WarmupHealth.PAUSE


@pytest.mark.parametrize(
    ("rate", "health", "says"),
    [
        (0.0007, WarmupHealth.HEALTHY, ""),
        (0.0009, WarmupHealth.HOLD, "0.09% (0.18 of 200)"),
        (0.002, WarmupHealth.SLOW, "0.20% (0.40 of 200)"),
        (0.004, WarmupHealth.SLOW, "0.40% (0.80 of 200)"),  # Less than three events pause nobody.
        (0.05, WarmupHealth.PAUSE, "5.00% (10 of 200)"),
    ],
)
def test_a_rate_that_is_reported_of_little_mail_counts_as_what_it_is(
    rate: float, health: WarmupHealth, says: str
) -> None:
    judgement = judge(Counts(attempts=200, accepted=200), rate * 200)
    assert judgement.health is health
    assert says in judgement.reason


def test_a_rate_that_is_reported_counts_only_where_it_is_worse() -> None:
    own = judge(Counts(attempts=1_000, accepted=1_000, complained=3))
    assert judge(Counts(attempts=1_000, accepted=1_000, complained=3), 0.003 * 1_000) == own
    assert "provider" not in own.reason


def test_the_worst_gate_decides_and_is_named() -> None:
    judgement = judge(of_10_000(bounced=300, deferred=4_000))
    assert judgement.health is WarmupHealth.PAUSE
    assert "deferrals are 40.00% (4,000 of 10,000)" in judgement.reason


@pytest.mark.parametrize(("attempts", "cap", "enough"), [(99, 50, False), (100, 200, True), (100, 202, False)])
def test_a_hundred_or_half_a_cap_is_enough_to_judge_by(attempts: int, cap: int, enough: bool) -> None:
    assert judged(Counts(attempts=attempts), cap) is enough


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
def test_what_is_worse_is_judged_no_better(counts: Counts, what: str, worse: int) -> None:
    """Some of what was accepted bounces, is deferred, is blocked or complained of instead."""
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
    assert judge(Counts(**only)).health >= judge(Counts(**before)).health

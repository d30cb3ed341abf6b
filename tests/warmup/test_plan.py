"""Plans: the caps that warmups come to when all goes well."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.settings import Preset, WarmupSettings
from postroad.warmup.plan import Plan, plan_for


def caps(provider: str, days: int, **settings: object) -> list[int]:
    return list(islice(plan_for(WarmupSettings.model_validate(settings), provider).caps(), days))


@pytest.mark.parametrize(("day", "cap"), [(1, 50), (6, 1_252), (10, 10_900), (15, 74_800), (20, 261_000)])
def test_the_curve_is_that_of_the_design(day: int, cap: int) -> None:
    # C ← C · (1 + 1 / (1 + √(C / 20,000))), in whole messages
    assert caps("yahoo", day)[-1] == pytest.approx(cap, rel=0.01)


def test_google_is_written_to_more_carefully() -> None:
    google, yahoo = caps("google", 20), caps("yahoo", 20)
    assert google[0] == yahoo[0] == 50
    assert all(slow < fast for slow, fast in zip(google[1:], yahoo[1:], strict=True))
    assert all(after <= 1.5 * before for before, after in pairwise(google))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"preset": "sendgrid"}, [50, 100, 500, 1_000, 5_000, 10_000, 20_000]),
        ({"preset": "sparkpost", "ceiling": 5_000}, [200, 500, 1_000, 2_000, 5_000, 5_000, 5_000]),
        ({"preset": "linear", "ceiling": 12}, [10, 11, 12, 12, 12, 12, 12]),
        ({"preset": "linear", "first": 38}, [38, 39, 40, 40, 40, 40, 40]),
        ({"preset": "table", "table": [20, 40, 100]}, [20, 40, 100, 100, 100, 100, 100]),
        ({"preset": "curve", "first": 1, "ceiling": 5}, [1, 2, 4, 5, 5, 5, 5]),
        ({"preset": "curve", "first": 500, "ceiling": 300}, [300] * 7),
    ],
)
def test_presets(settings: dict[str, object], expected: list[int]) -> None:
    assert caps("yahoo", 7, **settings) == expected


PLANS = st.one_of(
    st.builds(Plan, first=st.integers(1, 500), ceiling=st.integers(500, 10**9), growth=st.sampled_from([1.5, 2.0])),
    st.builds(Plan, first=st.integers(1, 500), ceiling=st.integers(500, 10**9), per_day=st.integers(1, 50)),
    st.builds(
        Plan,
        first=st.integers(1, 500),
        ceiling=st.integers(500, 10**9),
        table=st.lists(st.integers(1, 10**6), min_size=1, max_size=9, unique=True).map(
            lambda caps: tuple(sorted(caps))
        ),
    ),
)


@given(plan=PLANS, small=st.integers(1, 10**7), more=st.integers(0, 10**7))
def test_a_larger_cap_never_leads_to_a_smaller_one(plan: Plan, small: int, more: int) -> None:
    assert plan.next_cap(small) <= plan.next_cap(small + more)


@given(plan=PLANS)
def test_a_plan_grows_until_its_ceiling(plan: Plan) -> None:
    shown = list(islice(plan.caps(), 60))
    assert all(before < after or after == plan.ceiling for before, after in pairwise(shown))
    assert plan.on_day(59) == shown[-1] <= plan.ceiling


def test_every_preset_has_a_plan() -> None:
    for preset in Preset:
        table = (10, 20) if preset is Preset.TABLE else ()
        assert plan_for(WarmupSettings(preset=preset, table=table), "other").first >= 10

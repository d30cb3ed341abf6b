"""A draw is exact, complete and proportional. A faulty rollout in a file is named."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.campaign.rollout import Stratum, draw, share_totals
from postroad.errors import ConfigError
from tests.campaign.project import CAMPAIGN, CampaignProject

SIZES = st.dictionaries(
    st.builds(Stratum, st.sampled_from(["a", "b", "c", "d"]), st.sampled_from(["google", "microsoft", "other"])),
    st.integers(1, 60),
    min_size=1,
    max_size=12,
)
SHARES = st.lists(st.integers(1, 9_999), min_size=1, max_size=5, unique=True).map(
    lambda found: [*sorted(found), 10_000]
)


def _strata(sizes: Mapping[Stratum, int]) -> dict[Stratum, list[int]]:
    numbers = itertools.count(1)
    return {name: [next(numbers) for _ in range(size)] for name, size in sizes.items()}


@given(sizes=SIZES, points=SHARES, seed=st.integers(0, 2**63))
def test_a_draw_is_exact_complete_and_proportional(
    sizes: Mapping[Stratum, int], points: Sequence[int], seed: int
) -> None:
    strata = _strata(sizes)
    drawn = draw(strata, points, seed)
    assert drawn.keys() == {id_ for members in strata.values() for id_ in members}
    total = len(drawn)
    for number, (share, wanted) in enumerate(zip(points, share_totals(total, points), strict=True), start=1):
        assert sum(found <= number for found in drawn.values()) == wanted, "each share has exactly its total"
        for members in strata.values():
            proportion = len(members) * share / 10_000
            got = sum(drawn[id_] <= number for id_ in members)
            assert proportion - 2 < got < proportion + 2
    assert draw({name: members[::-1] for name, members in reversed(strata.items())}, points, seed) == drawn


def test_a_draw_takes_people_of_all_ages_and_others_for_another_campaign() -> None:
    strata = {Stratum("fair", "google"): list(range(1, 10_001))}
    one, other = ({id_ for id_, share in draw(strata, [1_000, 10_000], seed).items() if share == 1} for seed in (1, 2))
    assert len(one) == len(other) == 1_000
    assert 60 < sum(id_ <= 1_000 for id_ in one) < 140, "of the oldest tenth about a tenth"
    assert len(one & other) < 200


def test_a_million_people_of_many_lists_are_drawn_in_seconds() -> None:
    numbers = iter(range(200_000))
    strata = {Stratum(f"list {n}", "google"): list(itertools.islice(numbers, 500)) for n in range(400)}
    drawn = Counter(draw(strata, [100, 1_000, 10_000], 7).values())
    assert drawn == {1: 2_000, 2: 18_000, 3: 180_000}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rollout: [1%, 10%]\n", "the last share must be 100%"),
        ("rollout: [10%, 1%, 100%]\n", "each share must be larger"),
        ("rollout: [1%, 1%, 100%]\n", "each share must be larger"),
        ("rollout: [100%]\n", "2 or more entries"),
        ("rollout: [1, 100]\n", "it is not a percentage"),
        ("rollout: [0%, 100%]\n", "between 0.01% and 100%"),
        ("rollout: [0.001%, 100%]\n", "it is not a percentage"),
        ("rollout: [1%, 101%]\n", "between 0.01% and 100%"),
        ("rollout: {shares: [1%, 100%], after: 0s}\n", "greater than 0"),
        ("rollout: {shares: [1%, 100%], then: 1h}\n", "then"),
        ("entry: joined\nrollout: [1%, 100%]\n", "only for entry: launch"),
    ],
)
def test_a_faulty_rollout_is_named(project: CampaignProject, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        project.apply(CAMPAIGN + text)
    assert says in str(caught.value)
    assert "campaign.yaml, line " in str(caught.value)


def test_a_journey_that_begins_otherwise_is_refused(project: CampaignProject) -> None:
    text = CAMPAIGN.replace("steps:\n", "goal: \"event('paid')\"\nrollout: [1%, 100%]\nsteps:\n  - wait: 1d\n")
    with pytest.raises(ConfigError, match="the journey must begin with an email"):
        project.apply(text)

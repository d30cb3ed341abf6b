"""The comparison of accounts, and the plan of faults."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice, pairwise
from random import Random

import pytest

from postroad.queue import EventKind, JobState
from tests.chaos import delivery_run, queue_run
from tests.chaos.accounts import EXPOSED_MS, Accounts, compare_accounts
from tests.chaos.clients import Moment
from tests.chaos.plan import ChaosFault, crashes, faults
from tests.chaos.sink import Act
from tests.chaos.steps import Fate, Step

DONE, CANCELLED, DEAD, RETRY = EventKind.DONE, EventKind.CANCELLED, EventKind.DEAD, EventKind.RETRY
REMEMBERED, UNCERTAIN = JobState.REMEMBERED, JobState.UNCERTAIN
ACCEPTED_MS = 10_000


def reckoned(
    state: JobState | None, kinds: tuple[EventKind, ...], acts: int, unsafe_at_ms: tuple[int, ...] = ()
) -> Accounts:
    return compare_accounts(
        accepted_at_ms={"1": ACCEPTED_MS},
        states={"1": state},
        moments={"1": {f"{n}": Moment(f"{n}", kind, ACCEPTED_MS + 1) for n, kind in enumerate(kinds)}},
        acts=[Act("1", n, 1, ACCEPTED_MS + 1) for n in range(acts)],
        unsafe_at_ms=unsafe_at_ms,
    )


@pytest.mark.parametrize(
    ("state", "kinds", "acts", "word"),
    [
        (REMEMBERED, (RETRY, DONE), 1, "done"),
        (REMEMBERED, (CANCELLED,), 0, "cancelled"),
        (JobState.DEAD, (RETRY, DEAD), 0, "dead"),
        (UNCERTAIN, (EventKind.UNCERTAIN,), 0, "uncertain"),
        (UNCERTAIN, (EventKind.UNCERTAIN,), 1, "uncertain"),
    ],
)
def test_jobs_that_ended_as_guaranteed_are_counted(
    state: JobState, kinds: tuple[EventKind, ...], acts: int, word: str
) -> None:
    accounts = reckoned(state, kinds, acts)
    assert accounts.ok
    assert accounts.states == {word: 1}


@pytest.mark.parametrize(
    ("state", "kinds", "acts", "found"),
    [
        (None, (), 0, "lost"),
        (None, (), 1, "lost"),
        (REMEMBERED, (), 1, "lost"),
        (REMEMBERED, (DONE,), 0, "lost"),
        (REMEMBERED, (DONE,), 2, "twice"),
        (UNCERTAIN, (EventKind.UNCERTAIN,), 2, "twice"),
        (REMEMBERED, (CANCELLED,), 1, "contradicted"),
        (REMEMBERED, (DONE, CANCELLED), 1, "contradicted"),
        (JobState.DEAD, (DEAD,), 1, "contradicted"),
        (JobState.DEAD, (DONE,), 1, "contradicted"),
    ],
)
def test_violations_of_the_guarantees_are_found(
    state: JobState | None, kinds: tuple[EventKind, ...], acts: int, found: str
) -> None:
    accounts = reckoned(state, kinds, acts)
    assert not accounts.ok
    lists: Mapping[str, list[str]] = {
        "lost": accounts.lost,
        "twice": accounts.twice,
        "contradicted": accounts.contradicted,
    }
    assert {name: ids for name, ids in lists.items() if ids} == {found: ["1"]}


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.SCHEDULED, JobState.IN_FLIGHT])
def test_jobs_that_healthy_workers_left_are_a_failure(state: JobState) -> None:
    assert not reckoned(state, (), 0).ok


def test_losses_of_everysec_are_counted_separately() -> None:
    before, long_after = ACCEPTED_MS - 1, ACCEPTED_MS + EXPOSED_MS + 2
    assert reckoned(None, (), 0, (before, long_after)).lost == ["1"]
    near = reckoned(None, (), 0, (ACCEPTED_MS + EXPOSED_MS,))
    assert (near.lost, near.exposed, near.ok) == ([], {"lost": 1}, True)


@pytest.mark.parametrize("weights", [queue_run.WEIGHTS, delivery_run.WEIGHTS])
def test_a_seed_determines_faults_in_proportion_to_their_weight(weights: dict[ChaosFault, int]) -> None:
    planned = faults(Random(3), weights, seconds=1_000, every_s=0.5)
    assert planned == faults(Random(3), weights, seconds=1_000, every_s=0.5)
    assert planned != faults(Random(4), weights, seconds=1_000, every_s=0.5)
    first_round = [each.fault for each in planned[: sum(weights.values())]]
    assert {fault: first_round.count(fault) for fault in weights} == weights
    assert all(a.at_s < b.at_s < 1_000 for a, b in pairwise(planned))


def test_every_step_is_used_before_one_is_repeated() -> None:
    fates = list(islice(crashes(Random(1)), len(Step)))
    assert {crash.step for crash in fates} == set(Step)
    assert {crash.fate for crash in fates} == {Fate.KILL}

"""The faults of a run and their times, derived from a seed so that a run can be repeated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from tests.chaos.steps import Fate, PlannedCrash, Step

MAX_PASSES = 12
"""Maximum number of times that a worker passes the step of its crash."""


class ChaosFault(StrEnum):
    """A fault that is injected from outside."""

    KILL_WORKER = "worker killed at random"
    FREEZE_WORKER = "worker frozen beyond its lease"
    STOP_WORKER = "worker stopped by SIGTERM"
    DROP_REPLIES = "replies dropped"
    DELAY_REQUESTS = "requests delivered late"
    KILL_CLIENTS = "connections killed by the server"
    FLUSH_SCRIPTS = "scripts flushed"
    FREEZE_SERVER = "server frozen"
    KILL_SERVER = "server killed"
    REWRITE_LOG = "append-only file rewritten"
    CUT_POWER = "server killed, its last second not on disk"
    EMPTY_SERVER = "server emptied, queue rebuilt"
    KILL_RECORDER = "recorder killed"
    RESTART_PROVIDER = "provider restarted"
    LOCK_DATABASE = "database locked"


@dataclass(frozen=True, kw_only=True)
class PlannedFault:
    """A fault, its time (seconds from the start), its target and its duration."""

    fault: ChaosFault
    at_s: float
    target: int
    last_s: float


def faults(rng: Random, weights: Mapping[ChaosFault, int], *, seconds: float, every_s: float) -> list[PlannedFault]:
    """Return faults for a run of this length, one per ``every_s``. In every round each occurs ``weight`` times."""
    planned: list[PlannedFault] = []
    round_: list[ChaosFault] = []
    at_s = every_s
    while at_s < seconds:
        if not round_:
            round_ = [fault for fault, weight in weights.items() for _ in range(weight)]
            rng.shuffle(round_)
        planned.append(PlannedFault(fault=round_.pop(), at_s=at_s, target=rng.randrange(1_000), last_s=rng.random()))
        at_s += every_s * rng.uniform(0.5, 1.5)
    return planned


def crashes(rng: Random, steps: Sequence[Step] = tuple(Step)) -> Iterator[PlannedCrash]:
    """Yield crashes of workers in the order of their start: every step kills, then half of them freeze."""
    while True:
        for fate, share in ((Fate.KILL, len(steps)), (Fate.FREEZE, len(steps) // 2)):
            for step in rng.sample(steps, share):
                yield PlannedCrash(step=step, nth=rng.randint(1, MAX_PASSES), fate=fate)

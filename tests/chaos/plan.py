"""What is done to the parties, and when: decided beforehand, from a seed, so that it can be done again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from tests.chaos.steps import Doom, Fate, Step

MAX_PASSES = 12
"""Maximum number of times that a worker passes the step of its doom."""


class Blow(StrEnum):
    """One thing that is done from outside."""

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
class Planned:
    """A blow, when it falls (seconds from the start), on which of several targets, and how long it lasts."""

    blow: Blow
    at_s: float
    target: int
    last_s: float


def blows(rng: Random, weights: Mapping[Blow, int], *, seconds: float, every_s: float) -> list[Planned]:
    """Blows for a run of this length, one about ``every_s``; in every round of the deck each falls ``weight`` times."""
    planned: list[Planned] = []
    deck: list[Blow] = []
    at_s = every_s
    while at_s < seconds:
        if not deck:
            deck = [blow for blow, weight in weights.items() for _ in range(weight)]
            rng.shuffle(deck)
        planned.append(Planned(blow=deck.pop(), at_s=at_s, target=rng.randrange(1_000), last_s=rng.random()))
        at_s += every_s * rng.uniform(0.5, 1.5)
    return planned


def dooms(rng: Random, steps: Sequence[Step] = tuple(Step)) -> Iterator[Doom]:
    """Fates of the workers in the order of their start, without end: every step kills, then half of them freeze."""
    while True:
        for fate, share in ((Fate.KILL, len(steps)), (Fate.FREEZE, len(steps) // 2)):
            for step in rng.sample(steps, share):
                yield Doom(step=step, nth=rng.randint(1, MAX_PASSES), fate=fate)

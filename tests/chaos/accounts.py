"""Outcome of every accepted job, and whether its act happened once. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from postroad.queue import EventKind, JobState
from tests.chaos.clients import ENDED, Moment
from tests.chaos.sink import Act

EXPOSED_MS = 2_500
"""Under `appendfsync everysec` a server replies up to two seconds before it writes, while the disk is busy."""


class Wrong(StrEnum):
    LOST = "lost"
    TWICE = "sent twice"
    CONTRADICTED = "contradicted"


@dataclass(kw_only=True)
class Accounts:
    """Counts of jobs, and the ids of those that violate a guarantee."""

    jobs: int = 0
    acts: int = 0
    states: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    contradicted: list[str] = field(default_factory=list)
    """The act happened although the queue records that it did not, or the job has two outcomes."""
    exposed: Counter[str] = field(default_factory=Counter)
    """Number of violations within the time that `appendfsync everysec` may lose."""

    @property
    def ok(self) -> bool:
        live = sum(self.states[state] for state in (JobState.QUEUED, JobState.SCHEDULED, JobState.IN_FLIGHT))
        return not (self.lost or self.twice or self.contradicted or live)


def compare_accounts(
    *,
    accepted_at_ms: Mapping[str, int],
    states: Mapping[str, JobState | None],
    moments: Mapping[str, Mapping[str, Moment]],
    acts: Sequence[Act],
    unsafe_at_ms: Sequence[int] = (),
) -> Accounts:
    """Compare accepted jobs, states in the queue, events and acts.

    ``unsafe_at_ms``: times at which a server died that had not synced its last writes.
    """
    acted: dict[str, list[Act]] = defaultdict(list)
    for act in acts:
        acted[act.id].append(act)
    accounts = Accounts(jobs=len(accepted_at_ms), acts=len(acts))
    for id_, at_ms in accepted_at_ms.items():
        kinds = [moment.kind for moment in moments.get(id_, {}).values()]
        ends = [kind for kind in kinds if kind in ENDED]
        state = states.get(id_)
        wrong = _wrong(state, ends, len(acted[id_]))
        if wrong is None:
            accounts.states[_word(state, ends)] += 1
            continue
        when = [at_ms, *(act.at_ms for act in acted[id_]), *(m.at_ms for m in moments.get(id_, {}).values())]
        if any(0 <= died - at <= EXPOSED_MS for died in unsafe_at_ms for at in when):
            accounts.exposed[wrong] += 1
            continue
        match wrong:
            case Wrong.LOST:
                accounts.lost.append(id_)
            case Wrong.TWICE:
                accounts.twice.append(id_)
            case Wrong.CONTRADICTED:
                accounts.contradicted.append(id_)
            case other:
                assert_never(other)
    return accounts


def _wrong(state: JobState | None, ends: Sequence[EventKind], acts: int) -> Wrong | None:
    if acts > 1:
        return Wrong.TWICE
    if state is None or (state is JobState.REMEMBERED and not ends):
        return Wrong.LOST
    if ends == [EventKind.DONE] and not acts:
        return Wrong.LOST
    over = state is JobState.REMEMBERED
    may_have_acted = state is JobState.UNCERTAIN or ends == [EventKind.DONE]
    if len(ends) != over or (acts and not may_have_acted):
        return Wrong.CONTRADICTED
    return None


def _word(state: JobState | None, ends: Sequence[EventKind]) -> str:
    return ends[0] if ends else str(state)

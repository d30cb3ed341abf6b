"""Checks cohorts by the outcomes in the ledger, and pauses those that fail. The decision is in `sprt`, which is pure.

A pause is one row. `postroad.delivery.admit` looks at it for every batch that is about to leave, so it holds at once
for what is on the queue already, and no gate or lane is needed for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import sqlalchemy as sa

from postroad.clock import Clock
from postroad.delivery.cohort_key import cohort_of
from postroad.delivery.job import job_id
from postroad.delivery.outcome import HARD_CAUSES
from postroad.dns.providers import provider_of
from postroad.errors import StateError, UnavailableError
from postroad.queue import Queue
from postroad.senders.sprt import CohortFinding, DayCount, judge
from postroad.settings import CohortBreakerSettings, EvidenceSettings, Settings
from postroad.store import cohort as store
from postroad.store.cohort import Cohort, CohortEvidence, CohortPause, Tally
from postroad.store.engine import read, write

log = logging.getLogger(__name__)

CHUNK = 1_000
LATE_COMPLAINTS = timedelta(minutes=10)
"""How far back complaints are looked for again: one may be committed after the look that it came before."""
SHARE = 20
"""A look that took a second is followed by this many seconds without one, on a ledger that large."""


@dataclass(frozen=True, kw_only=True)
class CohortStanding:
    """What came of one cohort, in touches. ``first``: the first day on which any of it is due."""

    cohort: Cohort
    first: date
    tried: int
    hard: int
    complained: int
    findings: Mapping[CohortEvidence, CohortFinding]
    paused: bool

    @property
    def guilty_of(self) -> CohortEvidence | None:
        return next((evidence for evidence, finding in self.findings.items() if finding is CohortFinding.GUILTY), None)


def test_of(settings: CohortBreakerSettings, evidence: CohortEvidence) -> EvidenceSettings:
    return settings.hard_bounces if evidence is CohortEvidence.HARD_BOUNCES else settings.complaints


def standings(connection: sa.Connection, step_id: int, settings: Settings) -> list[CohortStanding]:
    """How each cohort of a step stands. Of one whose pause was lifted counts what was first tried after that."""
    paused = store.open_pauses(connection)
    counted = _by_cohort(step_id, _tallies(connection, step_id, settings, None))
    for cohort, lifted_at in store.last_lifted(connection, step_id).items():
        newer = _by_cohort(step_id, _tallies(connection, step_id, settings, lifted_at))
        if cohort in counted:
            counted[cohort] = newer.get(cohort, [])
    found = [_standing(cohort, of, settings.cohort_breaker, cohort in paused) for cohort, of in counted.items() if of]
    return sorted(found, key=lambda one: one.cohort)


def _tallies(connection: sa.Connection, step_id: int, settings: Settings, since: datetime | None) -> list[Tally]:
    return store.tallies(
        connection,
        step_id,
        source_field=settings.cohort_breaker.source_field,
        hard_causes=HARD_CAUSES,
        act_on_unsigned=settings.bounce.act_on_unsigned,
        since=since,
    )


def _by_cohort(step_id: int, tallies: Iterable[Tally]) -> dict[Cohort, list[Tally]]:
    found: dict[Cohort, list[Tally]] = defaultdict(list)
    for tally in tallies:
        found[Cohort(step_id, tally.source, provider_of(tally.domain, tally.provider))].append(tally)
    return found


def _standing(
    cohort: Cohort, tallies: Sequence[Tally], settings: CohortBreakerSettings, paused: bool
) -> CohortStanding:
    first = min(tally.day for tally in tallies)
    findings = {
        evidence: judge(test_of(settings, evidence), _by_day(tallies, evidence), first) for evidence in CohortEvidence
    }
    return CohortStanding(
        cohort=cohort,
        first=first,
        tried=sum(tally.tried for tally in tallies),
        hard=sum(tally.hard for tally in tallies),
        complained=sum(tally.complained for tally in tallies),
        findings=findings,
        paused=paused,
    )


def _by_day(tallies: Sequence[Tally], evidence: CohortEvidence) -> list[DayCount]:
    tried: Counter[date] = Counter()
    bad: Counter[date] = Counter()
    for tally in tallies:
        tried[tally.day] += tally.tried
        bad[tally.day] += tally.hard if evidence is CohortEvidence.HARD_BOUNCES else tally.complained
    return [DayCount(day, n, bad[day]) for day, n in tried.items()]


def reason(standing: CohortStanding, evidence: CohortEvidence, settings: CohortBreakerSettings) -> str:
    """Why a cohort is paused, for a person."""
    test = test_of(settings, evidence)
    bad, what = standing.complained, "complaints"
    if evidence is CohortEvidence.HARD_BOUNCES:
        bad, what = standing.hard, "hard bounces"
    share = bad / standing.tried if standing.tried else 0.0
    return (
        f"{bad} {what} of {standing.tried} messages ({share:.2%}): more like {test.guilty:.1%} than like "
        f"{test.healthy:.1%}; a healthy list is paused so with a probability of {test.false_alarm:g} at the most"
    )


def look(engine: sa.Engine, settings: Settings, steps: Iterable[int], now: datetime) -> list[CohortPause]:
    """Judge the cohorts of these steps and pause the guilty. Returns the new pauses. Doing so again is harmless."""
    guilty: list[CohortPause] = []
    for step_id in sorted(steps):
        with read(engine) as connection:
            found = standings(connection, step_id, settings)
        for standing in found:
            evidence = standing.guilty_of
            if evidence is not None and not standing.paused:
                why = reason(standing, evidence, settings.cohort_breaker)
                guilty.append(CohortPause(**standing.cohort._asdict(), evidence=evidence, reason=why, at=now))
    if not guilty or not settings.cohort_breaker.pause:
        return []
    with write(engine) as connection:
        return [pause for pause in guilty if store.add_pause(connection, pause)]


async def lift(
    engine: sa.Engine, queue: Queue, pause_id: int, *, settings: Settings, by: str, why: str, now: datetime
) -> CohortPause:
    """Let a paused cohort go on, and keep who said so and why. What waits may go at once. Raises StateError."""

    def lifted() -> CohortPause | None:
        with write(engine) as connection:
            return store.lift_pause(connection, pause_id, by=by, why=why, now=now)

    pause = await asyncio.to_thread(lifted)
    if pause is None:
        raise StateError(f"no pause {pause_id} is open", remedy="`postroad cohort list` shows those that are.")
    # Its jobs were put off; should this fail midway, the rest goes when its time comes.
    for ids in await asyncio.to_thread(_waiting, engine, pause.cohort, settings.cohort_breaker.source_field, now):
        await queue.reschedule([job_id(id_) for id_ in ids], int(now.timestamp() * 1000))
    return pause


def _waiting(engine: sa.Engine, cohort: Cohort, source_field: str, now: datetime) -> list[list[int]]:
    with read(engine) as connection:
        found = (
            store.cohort_keys(connection, ids, source_field=source_field)
            for ids in store.due_queued(connection, cohort.step_id, now, CHUNK)
        )
        return [[touch.touch_id for touch in touches if cohort_of(touch) == cohort] for touches in found]


def held(connection: sa.Connection, source_field: str, now: datetime) -> Counter[Cohort]:
    """How many touches of each paused cohort wait on the queue that might have gone by now."""
    paused = store.open_pauses(connection)
    found = Counter(dict.fromkeys(paused, 0))
    for step_id in sorted({cohort.step_id for cohort in paused}):
        for ids in store.due_queued(connection, step_id, now, CHUNK):
            cohorts = map(cohort_of, store.cohort_keys(connection, ids, source_field=source_field))
            found.update(cohort for cohort in cohorts if cohort in paused)
    return found


class CohortBreaker:
    """Looks for as long as the recorder runs: whenever something new speaks against a list, and not otherwise."""

    def __init__(self, *, engine: sa.Engine, settings: Settings, clock: Clock) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._last_event: int | None = None
        self._looked_at = clock.now()

    def turn(self) -> list[CohortPause]:
        """Look at what is new since the last turn; the first looks at everything. Raises UnavailableError."""
        now = self._clock.now()
        with read(self._engine) as connection:
            since = self._looked_at - LATE_COMPLAINTS
            news = store.steps_with_new_evidence(connection, after_event=self._last_event, since=since)
        paused = look(self._engine, self._settings, news.steps, now)
        # Only now: what fails before is looked at again.
        self._last_event, self._looked_at = news.last_event, now
        for pause in paused:
            log.warning("paused %s at %s (step %d): %s", pause.source, pause.provider, pause.step_id, pause.reason)
        return paused

    async def keep(self) -> None:
        """Look again and again, until cancelled."""
        failing = False
        while True:
            began_ms = self._clock.now_ms()
            try:
                await asyncio.to_thread(self.turn)
                failing = False
            except Exception as error:
                # Whatever it is: without this, no list would be paused any more.
                fault = None if isinstance(error, UnavailableError) else error
                if not failing:
                    log.warning("the cohort breaker waits: %s", error, exc_info=fault)
                failing = True
            took_ms = self._clock.now_ms() - began_ms
            await self._clock.sleep(max(self._settings.cohort_breaker.look_ms, SHARE * took_ms) / 1000)

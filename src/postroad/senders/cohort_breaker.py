"""Pauses cohorts whose outcomes in the ledger indicate a bad list. The statistical test is in `sprt`.

A pause is one row. `postroad.delivery.admit` reads it for every batch before sending, so it applies at once to jobs
that are queued already. It needs no gate or lane.
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
from postroad.senders.sprt import CohortFinding, DayCount, assess
from postroad.settings import CohortBreakerSettings, EvidenceSettings, Settings
from postroad.store import cohort as store
from postroad.store.cohort import Cohort, CohortEvidence, CohortPause, Tally
from postroad.store.engine import read, write

log = logging.getLogger(__name__)

CHUNK = 1_000
LATE_COMPLAINTS = timedelta(minutes=10)
"""Complaints of so long before the last run are read again: a transaction may commit after a run that it precedes."""
REST_FACTOR = 20
"""The pause after a run is at least this multiple of its duration, so that a large ledger is read less often."""


@dataclass(frozen=True, kw_only=True)
class CohortStatus:
    """Outcomes of one cohort, in touches. ``first``: the first day on which a touch of it is due.

    ``tried``: touches with an attempt. ``hard``: those with a hard bounce. ``complained``: those with a complaint.
    """

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


def evidence_settings(settings: CohortBreakerSettings, evidence: CohortEvidence) -> EvidenceSettings:
    """Return the settings of the test for one kind of evidence."""
    return settings.hard_bounces if evidence is CohortEvidence.HARD_BOUNCES else settings.complaints


def cohort_statuses(connection: sa.Connection, step_id: int, settings: Settings) -> list[CohortStatus]:
    """Return the status of each cohort of a step.

    For a cohort whose pause was lifted, only touches count whose first attempt was after that.
    """
    paused = store.open_pauses(connection)
    counted = _by_cohort(step_id, _tallies(connection, step_id, settings, None))
    for cohort, lifted_at in store.last_lifted(connection, step_id).items():
        newer = _by_cohort(step_id, _tallies(connection, step_id, settings, lifted_at))
        if cohort in counted:
            counted[cohort] = newer.get(cohort, [])
    statuses = [
        _status(cohort, tallies, settings.cohort_breaker, cohort in paused)
        for cohort, tallies in counted.items()
        if tallies
    ]
    return sorted(statuses, key=lambda status: status.cohort)


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
    by_cohort: dict[Cohort, list[Tally]] = defaultdict(list)
    for tally in tallies:
        by_cohort[Cohort(step_id, tally.source, provider_of(tally.domain, tally.provider))].append(tally)
    return by_cohort


def _status(cohort: Cohort, tallies: Sequence[Tally], settings: CohortBreakerSettings, paused: bool) -> CohortStatus:
    first = min(tally.day for tally in tallies)
    findings = {
        evidence: assess(evidence_settings(settings, evidence), _by_day(tallies, evidence), first)
        for evidence in CohortEvidence
    }
    return CohortStatus(
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


def reason(status: CohortStatus, evidence: CohortEvidence, settings: CohortBreakerSettings) -> str:
    """Return the reason of a pause as text."""
    test = evidence_settings(settings, evidence)
    bad, kind = status.complained, "complaints"
    if evidence is CohortEvidence.HARD_BOUNCES:
        bad, kind = status.hard, "hard bounces"
    share = bad / status.tried if status.tried else 0.0
    return (
        f"{bad} {kind} of {status.tried} messages ({share:.2%}): more like {test.guilty:.1%} than like "
        f"{test.healthy:.1%}; a healthy list is paused with a probability of at most {test.false_alarm:g}"
    )


def evaluate(engine: sa.Engine, settings: Settings, steps: Iterable[int], now: datetime) -> list[CohortPause]:
    """Test the cohorts of these steps and pause those that fail. Idempotent.

    Args:
        engine: The ledger's database.
        settings: All settings.
        steps: Ids of the steps.
        now: The time.

    Returns:
        The new pauses.

    Raises:
        UnavailableError: The database is unavailable.
    """
    guilty: list[CohortPause] = []
    for step_id in sorted(steps):
        with read(engine) as connection:
            statuses = cohort_statuses(connection, step_id, settings)
        for status in statuses:
            evidence = status.guilty_of
            if evidence is not None and not status.paused:
                why = reason(status, evidence, settings.cohort_breaker)
                guilty.append(CohortPause(**status.cohort._asdict(), evidence=evidence, reason=why, at=now))
    if not guilty or not settings.cohort_breaker.pause:
        return []
    with write(engine) as connection:
        return [pause for pause in guilty if store.add_pause(connection, pause)]


async def lift(
    engine: sa.Engine, queue: Queue, pause_id: int, *, settings: Settings, by: str, why: str, now: datetime
) -> CohortPause:
    """Lift the pause of a cohort. Its waiting jobs become due at once.

    Args:
        engine: The ledger's database.
        queue: The queue of its jobs.
        pause_id: Id of the pause.
        settings: All settings.
        by: Who lifts it; stored with the pause.
        why: The reason; stored with the pause.
        now: The time.

    Returns:
        The pause.

    Raises:
        StateError: No such pause is open.
        UnavailableError: The database or the queue is unavailable.
    """

    def write_lift() -> CohortPause | None:
        with write(engine) as connection:
            return store.lift_pause(connection, pause_id, by=by, why=why, now=now)

    pause = await asyncio.to_thread(write_lift)
    if pause is None:
        raise StateError(f"no pause {pause_id} is open", remedy="`postroad cohort list` shows those that are.")
    # Its jobs were delayed. If this fails halfway, the others run when their delay ends.
    for ids in await asyncio.to_thread(_waiting, engine, pause.cohort, settings.cohort_breaker.source_field, now):
        await queue.reschedule([job_id(id_) for id_ in ids], int(now.timestamp() * 1000))
    return pause


def _waiting(engine: sa.Engine, cohort: Cohort, source_field: str, now: datetime) -> list[list[int]]:
    with read(engine) as connection:
        chunks = (
            store.cohort_keys(connection, ids, source_field=source_field)
            for ids in store.due_queued(connection, cohort.step_id, now, CHUNK)
        )
        return [[touch.touch_id for touch in touches if cohort_of(touch) == cohort] for touches in chunks]


def count_held(connection: sa.Connection, source_field: str, now: datetime) -> Counter[Cohort]:
    """Return the number of due touches of each paused cohort that wait on the queue."""
    paused = store.open_pauses(connection)
    counts = Counter(dict.fromkeys(paused, 0))
    for step_id in sorted({cohort.step_id for cohort in paused}):
        for ids in store.due_queued(connection, step_id, now, CHUNK):
            cohorts = map(cohort_of, store.cohort_keys(connection, ids, source_field=source_field))
            counts.update(cohort for cohort in cohorts if cohort in paused)
    return counts


class CohortBreaker:
    """Evaluates the cohorts of steps with new bounces or complaints, for as long as the recorder runs."""

    def __init__(self, *, engine: sa.Engine, settings: Settings, clock: Clock) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._last_event: int | None = None
        self._evaluated_at = clock.now()

    def run_once(self) -> list[CohortPause]:
        """Evaluate the cohorts with new evidence since the last run. The first run evaluates all.

        Returns:
            The new pauses.

        Raises:
            UnavailableError: The database is unavailable.
        """
        now = self._clock.now()
        with read(self._engine) as connection:
            since = self._evaluated_at - LATE_COMPLAINTS
            new = store.steps_with_new_evidence(connection, after_event=self._last_event, since=since)
        paused = evaluate(self._engine, self._settings, new.steps, now)
        # Set last, so that the next run repeats one that fails.
        self._last_event, self._evaluated_at = new.last_event, now
        for pause in paused:
            log.warning("paused %s at %s (step %d): %s", pause.source, pause.provider, pause.step_id, pause.reason)
        return paused

    async def run_forever(self) -> None:
        """Evaluate cohorts at intervals, until cancelled."""
        failing = False
        while True:
            began_ms = self._clock.now_ms()
            try:
                await asyncio.to_thread(self.run_once)
                failing = False
            except Exception as error:
                # Any error: without this loop no list would be paused any more.
                fault = None if isinstance(error, UnavailableError) else error
                if not failing:
                    log.warning("the cohort breaker waits: %s", error, exc_info=fault)
                failing = True
            took_ms = self._clock.now_ms() - began_ms
            await self._clock.sleep(max(self._settings.cohort_breaker.look_ms, REST_FACTOR * took_ms) / 1000)

"""Admits claimed jobs to the wire: one statement moves their touches to ``sending`` in the ledger.

The queue cannot cause a second delivery by forgetting or repeating a job, because only the ledger admits a touch. A
suppression, a pause, a cancellation or a frequency cap holds from its commit. See docs/adr/0004 and 0044. The sending
hours of the campaign are checked as well. A rejected job returns what its claim took from the gates, and counts as no
attempt.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, assert_never
from zoneinfo import ZoneInfo

import msgspec
import sqlalchemy as sa
from sqlmodel import col

from postroad.campaign.calendar import Window
from postroad.campaign.holidays import HolidayCalendar
from postroad.clock import Clock
from postroad.delivery.admission_cause import AdmissionCause
from postroad.delivery.cohort_key import cohort_of
from postroad.delivery.exit_check import ClaimedStep, ExitCheck
from postroad.delivery.frequency import frequency_verdicts
from postroad.delivery.job import touch_of
from postroad.delivery.result import DeliveryResult, cancel_with, encode_result
from postroad.mail.address_hash import AddressHashes
from postroad.queue import Cancel, ClaimedJob, Defer, Uncertain, Verdict
from postroad.settings.types import RateSetting
from postroad.store.campaign import Campaign, CampaignState, Step
from postroad.store.cohort import cohort_keys, open_pauses
from postroad.store.engine import write
from postroad.store.frequency import FrequencyRule
from postroad.store.ledger import TouchState
from postroad.store.suppression import rekey
from postroad.store.touches.sending import Claim, RejectedClaim, admit, rejected_claims, unqueue

PAUSED_DELAY_MS = 60_000
"""Retry delay for a job whose campaign was paused after it passed the gate."""

COHORT_DELAY_MS = 900_000
"""Retry delay for a job of a paused cohort. Lifting the pause releases it at once."""


class _Waiting(NamedTuple):
    batch: Sequence[ClaimedJob]
    verdicts: asyncio.Future[Mapping[str, Verdict]]


class Admission:
    """Admits claimed batches. Batches that arrive during a transaction share the next one.

    A transaction costs as much as some forty jobs in it, and a busy worker claims a few jobs at a time.
    """

    def __init__(
        self,
        engine: sa.Engine,
        clock: Clock,
        hash_of: AddressHashes | None = None,
        source_field: str = "source",
        frequency: Mapping[str, RateSetting] | None = None,
        calendar: HolidayCalendar | None = None,
    ) -> None:
        """Set up the admission.

        Args:
            engine: The database of the ledger.
            clock: Tells the time.
            hash_of: Hashes an address. A suppression stored by the hash of an older key is stored by the hash of the
                first key from then on. None: suppressions that are stored as hashes are not found.
            source_field: Merge field that names the list source of a recipient, as ``cohort_breaker.source_field``.
            frequency: Frequency caps by class, as the setting ``frequency``.
            calendar: The days without mail, for campaigns with holidays. None: public holidays alone.
        """
        self._engine = engine
        self._clock = clock
        self._hash_of = hash_of
        self._source_field = source_field
        self._caps = frequency or {}
        self._calendar = calendar or HolidayCalendar()
        self._windows: dict[int, tuple[Window | None, ZoneInfo]] = {}
        self._exits = ExitCheck()
        self._waiting: deque[_Waiting] = deque()
        self._admitting: asyncio.Task[None] | None = None

    async def __call__(self, batch: Sequence[ClaimedJob]) -> Mapping[str, Verdict]:
        """Return a verdict for each job that is not admitted. Raises UnavailableError: then no job is admitted."""
        verdicts: asyncio.Future[Mapping[str, Verdict]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(batch, verdicts))
        if self._admitting is None:
            self._admitting = asyncio.create_task(self._admit_waiting())
        return await verdicts

    async def _admit_waiting(self) -> None:
        try:
            while self._waiting:
                await self._admit_batches(self._next_batches())
        finally:
            self._admitting = None

    def _next_batches(self) -> list[_Waiting]:
        """Return waiting batches without a repeated job: the ledger must get the first of two claims first."""
        together: list[_Waiting] = []
        seen: set[str] = set()
        while self._waiting and seen.isdisjoint(ids := {job.id for job in self._waiting[0].batch}):
            together.append(self._waiting.popleft())
            seen |= ids
        return together

    async def _admit_batches(self, together: Sequence[_Waiting]) -> None:
        try:
            refused = await asyncio.to_thread(self._admit, [job for waiting in together for job in waiting.batch])
        except Exception as error:
            for waiting in together:
                if not waiting.verdicts.done():  # cancelled: its worker releases the jobs
                    waiting.verdicts.set_exception(error)
            return
        for waiting in together:
            if not waiting.verdicts.done():
                waiting.verdicts.set_result({job.id: refused[job.id] for job in waiting.batch if job.id in refused})

    def _admit(self, batch: Sequence[ClaimedJob]) -> dict[str, Verdict]:
        schedules = {job.id: _parse_schedule(job) for job in batch}
        with write(self._engine) as connection:
            closed = self._outside_window(connection, schedules)
            closed |= self._in_paused_cohort(connection, [job for job in batch if job.id not in closed])
            closed |= self._leaving(connection, [job for job in batch if job.id not in closed], schedules)
            by_touch = {touch_of(job.id): job for job in batch if job.id not in closed}
            self._rekey(
                connection,
                [schedule.address for schedule in schedules.values() if schedule is not None and schedule.address],
            )
            hashes = self._hashes({id_: schedules[job.id] for id_, job in by_touch.items()})
            claims = {id_: _claim(job, schedules[job.id], hashes.get(id_)) for id_, job in by_touch.items()}
            rule = FrequencyRule(caps=self._caps, now=self._clock.now())
            rest = claims.keys() - admit(connection, list(claims.values()), rule)
            why = rejected_claims(connection, list(rest), hashes) if rest else {}
            over = _unqueue_stale(connection, why, claims)
            over |= frequency_verdicts(connection, why, claims, by_touch, rule)
        return closed | {
            by_touch[touch_id].id: over.get(touch_id) or self._verdict(why.get(touch_id), claims[touch_id].sender_id)
            for touch_id in rest
        }

    def _rekey(self, connection: sa.Connection, addresses: Sequence[str]) -> None:
        """Replace hashes of older keys: only the admission has the address of every job, which a new hash needs."""
        if self._hash_of is not None:
            pairs = {old: self._hash_of(address) for address in addresses for old in self._hash_of.older(address)}
            rekey(connection, pairs)

    def _hashes(self, schedules: Mapping[int, JobSchedule | None]) -> dict[int, str | None]:
        """Return the hash of the address of each touch, from its job."""
        if self._hash_of is None:
            return {}
        return {
            id_: self._hash_of(schedule.address)
            for id_, schedule in schedules.items()
            if schedule is not None and schedule.address
        }

    def _outside_window(
        self, connection: sa.Connection, schedules: Mapping[str, JobSchedule | None]
    ) -> dict[str, Verdict]:
        """Defer jobs outside their campaign's hours, or on its holidays, until its next hours begin."""
        now = self._clock.now()
        opens: dict[tuple[int, str, str], tuple[datetime, AdmissionCause]] = {}
        closed: dict[str, Verdict] = {}
        for job_id, schedule in schedules.items():
            if schedule is None:
                continue
            window, zone = self._window(connection, schedule.step_id)
            if window is None:
                continue
            region = window.region(schedule.place, schedule.zone, zone.key)
            key = schedule.step_id, schedule.zone, region
            if key not in opens:
                own_zone = ZoneInfo(schedule.zone) if schedule.zone else zone
                holiday = window.is_holiday(now, own_zone, region)
                cause = AdmissionCause.HOLIDAY if holiday else AdmissionCause.OUTSIDE_HOURS
                opens[key] = window.opens(now, own_zone, region), cause
            at, cause = opens[key]
            if at > now:
                closed[job_id] = Defer(at_ms=int(at.timestamp() * 1000), cause=cause, untried=True)
        return closed

    def _in_paused_cohort(self, connection: sa.Connection, batch: Sequence[ClaimedJob]) -> dict[str, Verdict]:
        """Defer jobs of paused cohorts."""
        paused = open_pauses(connection)
        if not paused:
            return {}
        by_touch = {touch_of(job.id): job for job in batch}
        at_ms = self._clock.now_ms() + COHORT_DELAY_MS
        held: dict[str, Verdict] = {}
        for touch in cohort_keys(connection, list(by_touch), source_field=self._source_field):
            evidence = paused.get(cohort_of(touch))
            if evidence is not None:
                cause = f"{AdmissionCause.COHORT_PAUSED}: {evidence.replace('_', ' ')}"
                held[by_touch[touch.touch_id].id] = Defer(at_ms=at_ms, cause=cause, untried=True)
        return held

    def _leaving(
        self, connection: sa.Connection, batch: Sequence[ClaimedJob], schedules: Mapping[str, JobSchedule | None]
    ) -> dict[str, Verdict]:
        """Cancel jobs whose recipients match the exit condition of their campaign."""
        claimed = {
            touch_of(job.id): ClaimedStep(schedule.step_id, frozenset(job.closed))
            for job in batch
            if (schedule := schedules[job.id]) is not None
        }
        causes = self._exits.leaving(connection, claimed, self._clock.now())
        ids = {touch_of(job.id): job.id for job in batch}
        return {ids[touch_id]: cancel_with(TouchState.CANCELLED, cause) for touch_id, cause in causes.items()}

    def _window(self, connection: sa.Connection, step_id: int) -> tuple[Window | None, ZoneInfo]:
        """Return the hours and the time zone of a step's campaign, cached: they never change after the launch."""
        if step_id not in self._windows:
            row = connection.execute(
                sa.select(col(Campaign.sending_window), col(Campaign.time_zone))
                .join(Step, col(Step.campaign_id) == col(Campaign.id))
                .where(col(Step.id) == step_id)
            ).one_or_none()
            window, zone = (Window.from_row(row[0], self._calendar), row[1]) if row is not None else (None, "UTC")
            self._windows[step_id] = window, ZoneInfo(zone)
        return self._windows[step_id]

    def _verdict(self, row: RejectedClaim | None, sender_id: int) -> Verdict:
        if row is None:
            return Cancel(cause=AdmissionCause.NOT_IN_LEDGER)
        state = TouchState(row.state)
        if state is TouchState.SENDING or state is TouchState.UNKNOWN:
            return Uncertain(
                cause=AdmissionCause.CLAIMED_BEFORE,
                note=encode_result(DeliveryResult(state=TouchState.UNKNOWN, cause="queue lost its claim")),
            )
        if state.ended:
            return Cancel(cause=f"{AdmissionCause.ENDED} {state}")
        if row.suppressed:
            return cancel_with(TouchState.SUPPRESSED, AdmissionCause.SUPPRESSED)
        if row.recalled:
            return cancel_with(TouchState.CANCELLED, AdmissionCause.STEP_RECALLED)
        match CampaignState(row.campaign_state):
            case CampaignState.PAUSED | CampaignState.DRAFT:
                return Defer(delay_ms=PAUSED_DELAY_MS, cause=AdmissionCause.CAMPAIGN_PAUSED, untried=True)
            case CampaignState.CANCELLED | CampaignState.FINISHED:
                return cancel_with(TouchState.CANCELLED, AdmissionCause.CAMPAIGN_CANCELLED)
            case CampaignState.RUNNING if row.sender_id != sender_id:
                # A rebuild of the queue creates its job for the other sender.
                return cancel_with(TouchState.QUEUED, AdmissionCause.OTHER_SENDER)
            case CampaignState.RUNNING:
                # It changed between the two statements. The next claim decides.
                return Defer(delay_ms=1_000, cause=AdmissionCause.LEDGER_MOVED, untried=True)
            case other:
                assert_never(other)


def _unqueue_stale(
    connection: sa.Connection, rejected: Mapping[int, RejectedClaim], claims: Mapping[int, Claim]
) -> dict[int, Verdict]:
    """Plan touches again whose jobs have an earlier version of their step. Returns the verdicts of these jobs."""
    stale = [id_ for id_, row in rejected.items() if row.version != claims[id_].version and not row.recalled]
    moved = unqueue(connection, stale) if stale else set()
    return {id_: cancel_with(TouchState.QUEUED, AdmissionCause.OTHER_VERSION) for id_ in moved}


class JobSchedule(msgspec.Struct, frozen=True, tag="send.v1"):
    """The fields of a job that decide whether and when it may be sent."""

    step_id: int
    address: str = ""
    zone: str = ""
    place: str = ""
    sender_id: int = 0
    version: int = 1


_decode_schedule = msgspec.msgpack.Decoder(JobSchedule).decode


def _parse_schedule(job: ClaimedJob) -> JobSchedule | None:
    try:
        return _decode_schedule(job.payload)
    except msgspec.DecodeError:
        return None  # The handler reports the error.


def _claim(job: ClaimedJob, schedule: JobSchedule | None, hashed: str | None) -> Claim:
    touch_id = touch_of(job.id)
    if schedule is None:
        return Claim(touch_id, job.token, job.closed, hashed)
    return Claim(touch_id, job.token, job.closed, hashed, schedule.sender_id, schedule.address, schedule.version)

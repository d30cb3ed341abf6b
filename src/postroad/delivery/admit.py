"""The last look before the wire: one statement moves a claimed batch to ``sending`` in the ledger, or says why not.

What the queue forgets or repeats cannot send a touch twice, because only the ledger lets one on the wire; and a
suppression, a pause or a cancellation holds from the moment it is written. See docs/adr/0004. A campaign's hours
are looked at as well. What is refused gives back what its claim took from the gates, and uses no attempt.
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
from postroad.clock import Clock
from postroad.delivery.cohort_key import cohort_of
from postroad.delivery.job import touch_of
from postroad.delivery.result import DeliveryResult, encode_result
from postroad.mail.address_hash import AddressHashes
from postroad.queue import Cancel, ClaimedJob, Defer, Uncertain, Verdict
from postroad.store.campaign import Campaign, CampaignState, Step
from postroad.store.cohort import open_pauses, whose
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.suppression import rekey
from postroad.store.touches.sending import Claim, RejectedClaim, admit, rejected_claims

PAUSED_DELAY_MS = 60_000
"""A job of a paused campaign that slips past its gate is looked at again after this."""

COHORT_DELAY_MS = 900_000
"""A job of a paused cohort is looked at again after this. Whoever lifts the pause lets it go at once."""


class _Waiting(NamedTuple):
    batch: Sequence[ClaimedJob]
    verdicts: asyncio.Future[Mapping[str, Verdict]]


class Admission:
    """Admits claimed batches to the wire, those together that came while an earlier one was at the database.

    A transaction costs as much as some forty jobs in it, and a busy worker claims a few jobs at a time.
    """

    def __init__(
        self,
        engine: sa.Engine,
        clock: Clock,
        hash_of: AddressHashes | None = None,
        source_field: str = "source",
    ) -> None:
        """``hash_of``: hashes an address. None: suppressions that are kept as hashes are not looked for.

        Those that are kept by the hash of an older key are kept by that of the first from then on.

        ``source_field``: merge field that names the list a recipient is from, as in cohort_breaker.source_field.
        """
        self._engine = engine
        self._clock = clock
        self._hash_of = hash_of
        self._source_field = source_field
        self._windows: dict[int, tuple[Window | None, ZoneInfo]] = {}
        self._waiting: deque[_Waiting] = deque()
        self._admitting: asyncio.Task[None] | None = None

    async def __call__(self, batch: Sequence[ClaimedJob]) -> Mapping[str, Verdict]:
        """Return a verdict for each job that may not be sent. Raises UnavailableError: none may."""
        verdicts: asyncio.Future[Mapping[str, Verdict]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(batch, verdicts))
        if self._admitting is None:
            self._admitting = asyncio.create_task(self._admit_waiting())
        return await verdicts

    async def _admit_waiting(self) -> None:
        try:
            while self._waiting:
                await self._admit_together(self._next_together())
        finally:
            self._admitting = None

    def _next_together(self) -> list[_Waiting]:
        """Those that wait, but no job twice: of two claims of one job, the ledger must see the earlier one first."""
        together: list[_Waiting] = []
        seen: set[str] = set()
        while self._waiting and seen.isdisjoint(ids := {job.id for job in self._waiting[0].batch}):
            together.append(self._waiting.popleft())
            seen |= ids
        return together

    async def _admit_together(self, together: Sequence[_Waiting]) -> None:
        try:
            refused = await asyncio.to_thread(self._admit, [job for waiting in together for job in waiting.batch])
        except Exception as error:
            for waiting in together:
                if not waiting.verdicts.done():  # cancelled: its worker gives the jobs back
                    waiting.verdicts.set_exception(error)
            return
        for waiting in together:
            if not waiting.verdicts.done():
                waiting.verdicts.set_result({job.id: refused[job.id] for job in waiting.batch if job.id in refused})

    def _admit(self, batch: Sequence[ClaimedJob]) -> dict[str, Verdict]:
        whens = {job.id: _read_when(job) for job in batch}
        with write(self._engine) as connection:
            closed = self._closed(connection, whens)
            closed |= self._held(connection, [job for job in batch if job.id not in closed])
            by_touch = {touch_of(job.id): job for job in batch if job.id not in closed}
            self._rekey(connection, [when.address for when in whens.values() if when is not None and when.address])
            hashes = self._hashes({id_: whens[job.id] for id_, job in by_touch.items()})
            senders = {id_: when.sender_id for id_, job in by_touch.items() if (when := whens[job.id]) is not None}
            claims = [
                Claim(id_, job.token, job.closed, hashes.get(id_), senders.get(id_, 0)) for id_, job in by_touch.items()
            ]
            admitted = admit(connection, claims)
            rest = by_touch.keys() - admitted
            why = rejected_claims(connection, list(rest), hashes) if rest else {}
        return closed | {
            by_touch[touch_id].id: self._verdict(why.get(touch_id), senders.get(touch_id, 0)) for touch_id in rest
        }

    def _rekey(self, connection: sa.Connection, addresses: Sequence[str]) -> None:
        """Only the last look has every address at hand, and no key can turn one hash into another."""
        if self._hash_of is not None:
            pairs = {old: self._hash_of(address) for address in addresses for old in self._hash_of.older(address)}
            rekey(connection, pairs)

    def _hashes(self, whens: Mapping[int, _When | None]) -> dict[int, str | None]:
        """Hash of the address of each touch, as its job names it."""
        if self._hash_of is None:
            return {}
        return {id_: self._hash_of(when.address) for id_, when in whens.items() if when is not None and when.address}

    def _closed(self, connection: sa.Connection, whens: Mapping[str, _When | None]) -> dict[str, Verdict]:
        """Put off what is outside its campaign's hours, by its recipient's clock, until they begin."""
        now = self._clock.now()
        opens: dict[tuple[int, str], datetime] = {}
        closed: dict[str, Verdict] = {}
        for job_id, when in whens.items():
            if when is None:
                continue
            window, zone = self._window(connection, when.step_id)
            if window is None:
                continue
            key = when.step_id, when.zone
            if key not in opens:
                opens[key] = window.opens(now, ZoneInfo(when.zone) if when.zone else zone)
            if opens[key] > now:
                at_ms = int(opens[key].timestamp() * 1000)
                closed[job_id] = Defer(at_ms=at_ms, cause="outside the campaign's hours", untried=True)
        return closed

    def _held(self, connection: sa.Connection, batch: Sequence[ClaimedJob]) -> dict[str, Verdict]:
        """Put off what is of a paused cohort."""
        paused = open_pauses(connection)
        if not paused:
            return {}
        by_touch = {touch_of(job.id): job for job in batch}
        at_ms = self._clock.now_ms() + COHORT_DELAY_MS
        held: dict[str, Verdict] = {}
        for touch in whose(connection, list(by_touch), source_field=self._source_field):
            evidence = paused.get(cohort_of(touch))
            if evidence is not None:
                cause = f"cohort paused: {evidence.replace('_', ' ')}"
                held[by_touch[touch.touch_id].id] = Defer(at_ms=at_ms, cause=cause, untried=True)
        return held

    def _window(self, connection: sa.Connection, step_id: int) -> tuple[Window | None, ZoneInfo]:
        """The hours of a step's campaign and its zone, read once: they cannot change after its launch."""
        if step_id not in self._windows:
            row = connection.execute(
                sa.select(col(Campaign.sending_window), col(Campaign.time_zone))
                .join(Step, col(Step.campaign_id) == col(Campaign.id))
                .where(col(Step.id) == step_id)
            ).one_or_none()
            window, zone = (Window.from_row(row[0]), row[1]) if row is not None else (None, "UTC")
            self._windows[step_id] = window, ZoneInfo(zone)
        return self._windows[step_id]

    def _verdict(self, row: RejectedClaim | None, sender_id: int) -> Verdict:
        if row is None:
            return Cancel(cause="not in the ledger")
        state = TouchState(row.state)
        if state is TouchState.SENDING or state is TouchState.UNKNOWN:
            return Uncertain(
                cause="claimed before, and nobody knows what became of it",
                note=encode_result(DeliveryResult(state=TouchState.UNKNOWN, cause="queue lost its claim")),
            )
        if state.ended:
            return Cancel(cause=f"already {state}")
        if row.suppressed:
            return _cancel(TouchState.SUPPRESSED, "suppressed")
        match CampaignState(row.campaign_state):
            case CampaignState.PAUSED | CampaignState.DRAFT:
                return Defer(delay_ms=PAUSED_DELAY_MS, cause="campaign paused", untried=True)
            case CampaignState.CANCELLED | CampaignState.FINISHED:
                return _cancel(TouchState.CANCELLED, "campaign cancelled")
            case CampaignState.RUNNING if row.sender_id != sender_id:
                # Its job is made again for that one when the queue is mended.
                return _cancel(TouchState.QUEUED, "another sender sends it")
            case CampaignState.RUNNING:
                # It moved between the two statements' readings of it; the next claim finds out.
                return Defer(delay_ms=1_000, cause="the ledger moved", untried=True)
            case other:
                assert_never(other)


class _When(msgspec.Struct, frozen=True, tag="send.v1"):
    """Of a job that sends: what decides whether and when it may."""

    step_id: int
    address: str = ""
    zone: str = ""
    sender_id: int = 0


_decode_when = msgspec.msgpack.Decoder(_When).decode


def _read_when(job: ClaimedJob) -> _When | None:
    try:
        return _decode_when(job.payload)
    except msgspec.DecodeError:
        return None  # Whoever handles it says what is wrong with it.


def _cancel(state: TouchState, cause: str) -> Cancel:
    return Cancel(cause=cause, note=encode_result(DeliveryResult(state=state, cause=cause)))

"""Inspection of one job: where it is, what holds it, and what happened to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple, assert_never

import msgspec
from msgspec import Struct, field

from postroad.queue.blocking import BlockingGate, blocking_gates, opening_ms, utc_text
from postroad.queue.events import Event, events_of, events_of_history
from postroad.queue.gates import GateState, StoredGate
from postroad.queue.scripts import Scripts
from postroad.queue.types import JobClass, JobState, Lane


class JobDetails(Struct, frozen=True, kw_only=True):
    """State and history of one id at ``now_ms`` of the queue's clock.

    ``state`` None: the queue has no such job. ``at_ms``: time when it is due, when its lease ends, or since when it is
    uncertain, dead or ended. ``since_ms``: since when it could be claimed. ``ahead``: jobs before it in its lane; None:
    more than a million. ``lane_depth``: jobs of its lane. ``parked_on``: gate at which its lane is parked.
    ``cancelled_for``: cause for which its group was cancelled; the job ends when it returns to its lane. ``history``:
    newest first.
    """

    id: str
    now_ms: int
    state: JobState | None
    lane: Lane | None
    gates: list[GateState]
    attempts: int
    claims: int
    at_ms: int | None
    since_ms: int
    expires_ms: int
    ahead: int | None
    lane_depth: int
    parked_on: str | None
    paused_since_ms: int | None
    cancelled_for: str | None
    worker: str | None
    marked: bool
    cause: str | None
    error: str | None
    payload: bytes
    history: list[Event]

    @property
    def jobs_ahead(self) -> int:
        """Number of jobs before it in its lane; of more than a million, the number of jobs of the lane."""
        return self.lane_depth if self.ahead is None else self.ahead

    def blocking_gates(self) -> list[BlockingGate]:
        """Return the gates of its lane that admit no job now."""
        return blocking_gates(self.gates, self.jobs_ahead, self.now_ms)


class _Definition(Struct, frozen=True, array_like=True):
    name: str
    # An empty Lua table is an empty array in msgpack, and so is a tuple.
    gates: tuple[str, ...]
    job_class: JobClass
    weight: float
    group: str


class _Found(Struct, frozen=True):
    now_ms: float
    state: str
    lane: _Definition | None = None
    gates: list[StoredGate] = field(default_factory=list)
    attempts: int = 0
    closed: int = 0
    at_ms: float | None = None
    since_ms: float = 0
    expires_ms: float = 0
    ahead: int | None = None
    lane_depth: int = 0
    parked_on: str | None = None
    paused_since_ms: float | None = None
    cancelled_for: str | None = None
    worker: str | None = None
    marked: bool = False
    cause: str | None = None
    error: str | None = None


def _history(id: str, entries: Iterable[list[bytes]], blocks: list[bytes], rows: list[bytes]) -> list[Event]:  # noqa: A002
    """Return the events of one id, newest first."""
    streamed = [events_of(dict(zip(fields[::2], fields[1::2], strict=True))) for fields in entries]
    # The end of a job is in the stream and in the history.
    found = {event.uid: event for event in chain(events_of_history(blocks, rows), *streamed) if event.id == id}
    return sorted(found.values(), key=lambda event: (event.at_ms, event.token), reverse=True)


def read_details(id: str, reply: list[Any]) -> JobDetails:  # noqa: A002 - the field's word
    """Decode the reply of the script ``find``."""
    head, payload, entries, blocks, rows = reply
    found = msgspec.msgpack.decode(head, type=_Found)
    return JobDetails(
        id=id,
        now_ms=int(found.now_ms),
        state=JobState(found.state) if found.state else None,
        lane=Lane(**msgspec.structs.asdict(found.lane)) if found.lane else None,
        gates=[gate.state() for gate in found.gates],
        attempts=found.attempts,
        claims=found.closed,
        at_ms=None if found.at_ms is None else int(found.at_ms),
        since_ms=int(found.since_ms),
        expires_ms=int(found.expires_ms),
        ahead=found.ahead,
        lane_depth=found.lane_depth,
        parked_on=found.parked_on,
        paused_since_ms=None if found.paused_since_ms is None else int(found.paused_since_ms),
        cancelled_for=found.cancelled_for,
        worker=found.worker,
        marked=found.marked,
        cause=found.cause,
        error=found.error,
        payload=payload,
        history=_history(id, entries, blocks, rows),
    )


class Explanation(Struct, frozen=True, kw_only=True):
    """Why a job is where it is. ``held_by``: ``gate …`` or ``group …``; None: it is not held.

    ``since_ms``: since when it is in this state. ``not_before_ms``: earliest time of a claim; None: not known.
    ``words``: sentences, the most important one first.
    """

    id: str
    state: JobState | None
    lane: str | None
    ahead: int | None
    held_by: str | None
    since_ms: int | None
    not_before_ms: int | None
    words: list[str]


class _StateText(NamedTuple):
    """The part of an `Explanation` that depends on the state of the job."""

    words: list[str]
    since_ms: int | None = None
    held_by: str | None = None
    not_before_ms: int | None = None


def explain(job: JobDetails) -> Explanation:
    """Return where a job is, what holds it and when it can be claimed.

    Args:
        job: Its details, from `Queue.find`.
    """
    text = _text_of(job)
    words = list(text.words)
    if job.cancelled_for is not None:
        words.append(f"Its group was cancelled ({job.cancelled_for}): it ends when it returns to its lane.")
    if job.expires_ms:
        words.append(f"It expires at {utc_text(job.expires_ms)}.")
    return Explanation(
        id=job.id,
        state=job.state,
        lane=job.lane.name if job.lane else None,
        ahead=job.ahead,
        held_by=text.held_by,
        since_ms=text.since_ms,
        not_before_ms=text.not_before_ms,
        words=words,
    )


def _text_of(job: JobDetails) -> _StateText:
    match job.state:
        case None:
            unknown = "The queue does not know this id: it never had it, or forgot it after it ended."
            return _StateText([_ended(job) or unknown], job.history[0].at_ms if job.history else None)
        case JobState.REMEMBERED:
            return _StateText([_ended(job) or "It has ended, longer ago than the history reaches."], job.at_ms)
        case JobState.SCHEDULED:
            return _StateText(_scheduled(job), not_before_ms=job.at_ms)
        case JobState.QUEUED:
            return _queued(job)
        case JobState.IN_FLIGHT:
            return _StateText([_in_flight(job)])
        case JobState.UNCERTAIN:
            begun = f"worker {job.worker} had begun the act and its outcome is not known"
            return _StateText(
                [f"Uncertain since {utc_text(job.at_ms)}: {begun}. It is held until it is resolved."], job.at_ms
            )
        case JobState.DEAD:
            error = f" ({job.error})" if job.error else ""
            attempts = _times(job.attempts, "attempt")
            return _StateText(
                [f"A dead letter since {utc_text(job.at_ms)}, after {attempts}: {job.cause}{error}."], job.at_ms
            )
        case other:
            assert_never(other)


def _ended(job: JobDetails) -> str | None:
    if not job.history:
        return None
    last = job.history[0]
    why = f": {last.cause}" if last.cause else ""
    error = f" ({last.error})" if last.error else ""
    return f"It ended as {last.kind} at {utc_text(last.at_ms)}, attempt {last.attempt}{why}{error}."


def _scheduled(job: JobDetails) -> list[str]:
    assert job.lane  # noqa: S101 - a live job has a lane
    words = [f"Scheduled: due at {utc_text(job.at_ms)}. Then it goes to the end of lane {job.lane.name}."]
    if job.history and job.claims:
        last = job.history[0]
        words.append(f"It was put off at {utc_text(last.at_ms)} after attempt {last.attempt}: {last.cause}.")
    return words


def _in_flight(job: JobDetails) -> str:
    act = "has begun the act" if job.marked else "has not begun the act"
    until = utc_text(job.at_ms)
    return f"In flight: worker {job.worker} holds it until {until}, attempt {job.attempts + 1}, and {act}."


def _queued(job: JobDetails) -> _StateText:
    assert job.lane  # noqa: S101 - a live job has a lane
    if job.cancelled_for is not None:
        return _StateText(
            [f"Queued in lane {job.lane.name}, which is being cancelled."], job.since_ms, f"group {job.lane.group}"
        )
    since = utc_text(job.since_ms)
    words = [f"Queued in lane {job.lane.name}, {_position(job.ahead)} It could have gone since {since}."]
    ahead = job.jobs_ahead
    openings = [opening_ms(gate, ahead, job.now_ms) for gate in job.gates]
    not_before_ms = None if None in openings else max((at for at in openings if at is not None), default=job.now_ms)
    if job.paused_since_ms is not None:
        words.insert(
            0, f"Held: group {job.lane.group} is paused since {utc_text(job.paused_since_ms)}, until it is resumed."
        )
        return _StateText(words, job.since_ms, f"group {job.lane.group}")
    shut = job.blocking_gates()
    words[:0] = [f"Held by gate {gate.name}: {gate.why}." for gate in shut]
    if not shut:
        words.append("No gate holds its lane: it goes when the lane's turn comes among those of its class.")
    if not_before_ms is not None and not_before_ms > job.now_ms:
        words.append(f"It cannot go before {utc_text(not_before_ms)}, and later if other lanes use the same gates.")
    return _StateText(words, job.since_ms, f"gate {shut[0].name}" if shut else None, not_before_ms)


def _position(ahead: int | None) -> str:
    match ahead:
        case None:
            return "after more than a million other jobs."
        case 0:
            return "first in line."
        case _:
            return f"after {_times(ahead, 'other job')}."


def _times(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


class InspectOperations:
    """The methods of `Queue` that inspect jobs. All raise UnavailableError if the server does not reply."""

    _scripts: Scripts

    async def states(self, ids: Sequence[str]) -> list[JobState | None]:
        """Return the state of each id. None: the queue does not know it.

        Args:
            ids: Ids of jobs.

        Raises:
            UnavailableError: The server does not reply.
        """
        replies = await self._scripts.states(msgspec.msgpack.encode(ids))
        return [JobState(state.decode()) if state else None for state in replies]

    async def find(self, id: str) -> JobDetails:  # noqa: A002 - the field's word
        """Return state and history of one id. The history is bounded, see `Retention`.

        Args:
            id: Id of the job.

        Raises:
            UnavailableError: The server does not reply.
        """
        return read_details(id, await self._scripts.find(id))

    async def explain(self, id: str) -> Explanation:  # noqa: A002 - the field's word
        """Return where a job is, what holds it and when it can be claimed.

        Args:
            id: Id of the job.

        Raises:
            UnavailableError: The server does not reply.
        """
        return explain(await self.find(id))

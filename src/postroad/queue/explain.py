"""Why a job is where it is, and when it may go, in words. No input, no output."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import assert_never

from msgspec import Struct

from postroad.queue.find import JobDetails
from postroad.queue.gates import FOREVER_MS, GateState, Rate
from postroad.queue.jobs import JobState


class Explanation(Struct, frozen=True, kw_only=True):
    """``held_by``: what keeps the job, ``gate …`` or ``group …``; None when nothing does.

    ``since_ms``: since when it is as it is. ``not_before_ms``: it cannot go earlier, though others may go first;
    None when no instant is known. ``words``: sentences, the most important one first.
    """

    id: str
    state: JobState | None
    lane: str | None
    ahead: int | None
    held_by: str | None
    since_ms: int | None
    not_before_ms: int | None
    words: list[str]


def explain(job: JobDetails) -> Explanation:
    held_by: str | None = None
    since_ms = job.at_ms
    not_before_ms: int | None = None
    match job.state:
        case None:
            words = [_ended(job) or "The queue does not know this id: it never had it, or forgot it after it ended."]
            since_ms = job.history[0].at_ms if job.history else None
        case JobState.REMEMBERED:
            words = [_ended(job) or "It has ended, longer ago than the history reaches."]
        case JobState.SCHEDULED:
            words, not_before_ms, since_ms = _scheduled(job), job.at_ms, None
        case JobState.QUEUED:
            held_by, not_before_ms, words = _queued(job)
            since_ms = job.since_ms
        case JobState.IN_FLIGHT:
            words, since_ms = [_in_flight(job)], None
        case JobState.UNCERTAIN:
            begun = f"worker {job.worker} had begun the act and its outcome is not known"
            words = [f"Uncertain since {_at(job.at_ms)}: {begun}. It is held until somebody resolves it."]
        case JobState.DEAD:
            said = f" ({job.error})" if job.error else ""
            words = [
                f"A dead letter since {_at(job.at_ms)}, after {_times(job.attempts, 'attempt')}: {job.cause}{said}."
            ]
        case other:
            assert_never(other)
    if job.cancelled_for is not None:
        words.append(f"Its group was cancelled ({job.cancelled_for}): it ends when it comes back.")
    if job.expires_ms:
        words.append(f"It expires at {_at(job.expires_ms)}.")
    return Explanation(
        id=job.id,
        state=job.state,
        lane=job.lane.name if job.lane else None,
        ahead=job.ahead,
        held_by=held_by,
        since_ms=since_ms,
        not_before_ms=not_before_ms,
        words=words,
    )


def _ended(job: JobDetails) -> str | None:
    if not job.history:
        return None
    last = job.history[0]
    why = f": {last.cause}" if last.cause else ""
    said = f" ({last.error})" if last.error else ""
    return f"It ended as {last.kind} at {_at(last.at_ms)}, attempt {last.attempt}{why}{said}."


def _scheduled(job: JobDetails) -> list[str]:
    assert job.lane  # noqa: S101 - what lives has a lane
    words = [f"Scheduled: due at {_at(job.at_ms)}. Then it goes to the end of lane {job.lane.name}."]
    if job.history and job.claims:
        last = job.history[0]
        words.append(f"It was put off at {_at(last.at_ms)} after attempt {last.attempt}: {last.cause}.")
    return words


def _in_flight(job: JobDetails) -> str:
    act = "has begun the act" if job.marked else "has not begun the act"
    return f"In flight: worker {job.worker} holds it until {_at(job.at_ms)}, attempt {job.attempts + 1}, and {act}."


def _queued(job: JobDetails) -> tuple[str | None, int | None, list[str]]:
    """What holds it, the instant before which it cannot go, and words."""
    assert job.lane  # noqa: S101 - what lives has a lane
    if job.cancelled_for is not None:
        return f"group {job.lane.group}", None, [f"Queued in lane {job.lane.name}, which is being cancelled."]
    if job.ahead is None:
        place = "Queued in lane {}, beyond a million others."
    else:
        place = "Queued in lane {}, " + ("first in line." if job.ahead == 0 else f"behind {job.ahead:,} others.")
    words = [place.format(job.lane.name) + f" It could have gone since {_at(job.since_ms)}."]
    ahead = job.lane_depth if job.ahead is None else job.ahead
    openings = [_opening_ms(gate, ahead, job.now_ms) for gate in job.gates]
    not_before_ms = None if None in openings else max((at for at in openings if at is not None), default=job.now_ms)
    if job.paused_since_ms is not None:
        words.insert(
            0, f"Held: group {job.lane.group} is paused since {_at(job.paused_since_ms)}, until it is resumed."
        )
        return f"group {job.lane.group}", None, words
    shut = [gate for gate in job.gates if gate.capacity == 0]
    for gate in shut:
        words.insert(shut.index(gate), f"Held by gate {gate.gate.name}: {_why(gate, job.now_ms)}.")
    if not shut:
        words.append("No gate holds its lane: it goes when the lane's turn comes among those of its class.")
    if not_before_ms is not None and not_before_ms > job.now_ms:
        words.append(f"It cannot go before {_at(not_before_ms)}, and later if other lanes use the same gates.")
    return f"gate {shut[0].gate.name}" if shut else None, not_before_ms, words


def _why(state: GateState, now_ms: int) -> str:
    """Why a gate admits nothing now."""
    gate = state.gate
    if gate.paused_until_ms is not None and gate.paused_until_ms > now_ms:
        since = f"since {_at(state.paused_since_ms)}, " if state.paused_since_ms else ""
        ends = "until it is resumed" if gate.paused_until_ms >= FOREVER_MS else f"until {_at(gate.paused_until_ms)}"
        return f"it is paused {since}{ends}"
    if gate.concurrency is not None and state.in_flight >= gate.concurrency:
        return f"{state.in_flight} in flight of {gate.concurrency} at once; it opens when one of them ends"
    if gate.quota is not None and now_ms < gate.quota.until_ms and gate.quota.left <= 0:
        return f"its quota is used up until {_at(gate.quota.until_ms)}"
    assert gate.rate  # noqa: S101 - nothing else can shut a gate
    return f"its rate is {rate_in_words(gate.rate)}; the next one goes at {_at(_opening_ms(state, 0, now_ms))}"


def _opening_ms(state: GateState, ahead: int, now_ms: int) -> int | None:
    """Earliest instant at which a gate lets through the job behind this many. None: when somebody says so."""
    gate = state.gate
    at_ms = float(now_ms)
    if gate.paused_until_ms is not None and gate.paused_until_ms > now_ms:
        if gate.paused_until_ms >= FOREVER_MS:
            return None
        at_ms = gate.paused_until_ms
    if gate.concurrency is not None and state.in_flight >= gate.concurrency:
        return None
    if gate.quota is not None and now_ms < gate.quota.until_ms and gate.quota.left <= ahead:
        at_ms = max(at_ms, gate.quota.until_ms)
    if gate.rate is not None and state.tat_ms is not None:
        interval_ms = gate.rate.per_ms / gate.rate.count
        at_ms = max(at_ms, max(state.tat_ms, now_ms) + (ahead - gate.rate.burst + 1) * interval_ms)
    return int(-(-at_ms // 1))


def rate_in_words(rate: Rate) -> str:
    """As in `30 in 3600 s, 1 at once`."""
    return f"{rate.count:g} in {rate.per_ms / 1000:g} s, {rate.burst} at once"


def _at(ms: int | None) -> str:
    if ms is None:
        return "an unknown instant"
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _times(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"

"""Explains why a message is in its state and when it may be sent, from the ledger and the queue together."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import datetime

import msgspec
from msgspec import Struct

from postroad.app.context import AppContext, Role
from postroad.delivery.job import job_id
from postroad.explain.cause import CAUSES, STATES, DelayCause
from postroad.explain.facts import TouchFacts, WarmupCap, load_facts
from postroad.explain.hold import Situation, TouchHold, from_ms, utc
from postroad.explain.holds import find_holds
from postroad.queue import Explanation, GateState, JobState, Queue
from postroad.queue import explain as explain_job
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from postroad.store.touch_lookup import FoundTouch
from postroad.touch_search import queue_of_touch

_ENDING = (
    DelayCause.SUPPRESSED,
    DelayCause.CAMPAIGN_ENDED,
    DelayCause.CAMPAIGN_DRAFT,
    DelayCause.CAMPAIGN_PAUSED,
)
"""Causes for which the admission rejects a job, whatever the queue says."""
_FREQUENCY = (DelayCause.FREQUENCY_SKIP, DelayCause.FREQUENCY_CLASS, DelayCause.FREQUENCY)


class TouchExplanation(Struct, frozen=True, kw_only=True):
    """Explanation of a touch's state.

    ``held_by``: what delays it, such as ``gate …``, ``hours``, ``cohort``; None if nothing does. ``not_before_ms``:
    earliest time of sending; None if no time is known. ``words``: sentences, the most important one first. ``holds``:
    everything that holds it.
    """

    id: str
    address: str
    campaign: str
    step: str
    queue: str
    touch_state: TouchState
    state: JobState | None
    lane: str | None
    ahead: int | None
    held_by: str | None
    since_ms: int | None
    not_before_ms: int | None
    words: list[str]
    holds: list[TouchHold] = []


async def explain_touch(context: AppContext, touch: FoundTouch) -> TouchExplanation:
    """Explain the state of one touch. Raise UnavailableError if the database or the queue is unreachable."""
    facts = await asyncio.to_thread(_load_facts, context, touch)
    queue = await context.queue(queue_of_touch(touch))
    situation = await look_up(queue, touch, facts, worker_alive=await has_worker(queue))
    assert situation.job is not None  # noqa: S101 - the queue answered
    explanation = explain_job(situation.job)
    holds = find_holds(situation)
    if touch.state.ended or touch.state in (TouchState.WITHHELD, TouchState.AWAITING, TouchState.PLANNED):
        words, held_by, not_before = _explain_by_ledger(touch, facts, explanation, holds)
    else:
        words, held_by, not_before = _explain_by_queue(situation, explanation, holds)
    return TouchExplanation(
        id=job_id(touch.id),
        address=touch.address,
        campaign=touch.campaign,
        step=touch.step,
        queue=queue.name,
        touch_state=touch.state,
        state=explanation.state,
        lane=explanation.lane,
        ahead=explanation.ahead,
        held_by=held_by,
        since_ms=_ms(touch.settled_at) if touch.settled_at is not None else explanation.since_ms,
        not_before_ms=not_before,
        words=words,
        holds=holds,
    )


async def has_worker(queue: Queue) -> bool:
    """Return whether a worker of a queue is alive. Raise UnavailableError if the server does not reply."""
    return any(process.alive and process.role == Role.WORKER for process in await queue.processes())


async def look_up(queue: Queue, touch: FoundTouch, facts: TouchFacts, *, worker_alive: bool) -> Situation:
    """Return what the ledger and the queue have of a touch. Raise UnavailableError if the server does not reply."""
    job = await queue.find(job_id(touch.id))
    now = from_ms(job.now_ms)
    job = msgspec.structs.replace(job, gates=[_with_opening_time(gate, facts.shared.caps, now) for gate in job.gates])
    not_before_ms = explain_job(job).not_before_ms
    return Situation(touch, facts, now, queue.name, job, not_before_ms, worker_alive)


def state_in_words(touch: FoundTouch) -> list[str]:
    """Return what the state of a touch means, and what to do about it."""
    reply = f": {touch.reply}" if touch.reply else ""
    values = {
        "at": "" if touch.settled_at is None else f" at {utc(touch.settled_at)}",
        "due": utc(touch.due_at),
        "reply": reply,
        "touch": touch.id,
    }
    words = [text.format(**values) for text in STATES[touch.state] if text]
    if touch.recalled_at is not None:
        words.append(f"Its step was recalled at {utc(touch.recalled_at)}: from then on it is sent to no recipient.")
    return words


def _load_facts(context: AppContext, touch: FoundTouch) -> TouchFacts:
    with read(context.engine) as connection:
        return load_facts(connection, context, [touch])[touch.id]


def _explain_by_ledger(
    touch: FoundTouch, facts: TouchFacts, explanation: Explanation, holds: Collection[TouchHold]
) -> tuple[list[str], str | None, int | None]:
    """Explain a touch that is not in the queue yet, or has ended."""
    words = state_in_words(touch)
    if touch.state is TouchState.AWAITING:
        held = _words_of(holds, _ENDING)
        until = touch.decides_at or touch.due_at
        waits = _words_of(holds, (DelayCause.DECISION,))
        return [*held, *waits, *words], "campaign" if held else "variants", _ms(max(until, touch.due_at))
    if touch.state is TouchState.WITHHELD:
        held = _words_of(holds, _ENDING)
        return [*held, *_words_of(holds, (DelayCause.ROLLOUT,)), *words], "campaign" if held else "rollout", None
    if touch.state is TouchState.PLANNED:
        held = _words_of(holds, _ENDING)
        words += _words_of(holds, _FREQUENCY)
        return [*held, *words], "campaign" if held else None, _ms(touch.leaves_at)
    if facts.suppression is not None:
        suppression = facts.suppression
        reason = f"{suppression.reason.replace('_', ' ')} ({suppression.source})"
        words.append(f"{suppression.address} is suppressed since {utc(suppression.created_at)}: {reason}.")
    if explanation.state not in (None, JobState.REMEMBERED, JobState.DEAD, JobState.UNCERTAIN):
        words.append(f"The queue still has a job of it: {explanation.words[0]}")
    return words, None, None


def _explain_by_queue(
    situation: Situation, explanation: Explanation, holds: Collection[TouchHold]
) -> tuple[list[str], str | None, int | None]:
    """Explain a touch that is in the queue, or should be."""
    words, held_by, not_before = list(explanation.words), explanation.held_by, explanation.not_before_ms
    lost = [hold for hold in holds if hold.cause is DelayCause.NO_JOB]
    if lost:
        words = [lost[0].words, lost[0].remedy]
    if explanation.state not in (JobState.QUEUED, JobState.SCHEDULED):
        return words, held_by, not_before
    causes = {hold.cause: hold for hold in holds}
    words += [hold.detail for hold in holds if hold.detail]
    words += _words_of(holds, (DelayCause.DEFERRAL, DelayCause.NO_WORKER))
    ending = _words_of(holds, _ENDING)
    first = _words_of(holds, (*_FREQUENCY, DelayCause.WINDOW, DelayCause.HOLIDAY, DelayCause.COHORT_PAUSED))
    window = causes.get(DelayCause.WINDOW) or causes.get(DelayCause.HOLIDAY)
    if window is not None:
        held_by = held_by or "hours"
        not_before = None if not_before is None or window.until is None else max(not_before, _ms(window.until))
    if DelayCause.COHORT_PAUSED in causes:
        held_by, not_before = "cohort", None
    over_cap = causes.get(DelayCause.FREQUENCY) or causes.get(DelayCause.FREQUENCY_CLASS)
    if over_cap is not None:
        held_by = held_by or "frequency"
        not_before = None if not_before is None or over_cap.until is None else max(not_before, _ms(over_cap.until))
    if ending and held_by is None:
        held_by = "suppression" if DelayCause.SUPPRESSED in causes else "campaign"
    return [*ending, *first, *words], held_by, None if ending else not_before


def _words_of(holds: Collection[TouchHold], causes: Collection[DelayCause]) -> list[str]:
    """Return the sentences of some causes, in the order of `DelayCause`."""
    order = list(CAUSES)
    chosen = sorted((hold for hold in holds if hold.cause in causes), key=lambda hold: order.index(hold.cause))
    return [hold.words for hold in chosen]


def _with_opening_time(state: GateState, caps: Mapping[str, WarmupCap], now: datetime) -> GateState:
    """Replace the expiry of a warmup's quota by the time at which mail may leave again.

    The quota itself expires later, so that the gate is never unlimited before the next cap is set: see `cap_quota`.

    Returns:
        The gate.
    """
    cap = caps.get(state.gate.name)
    if cap is None or state.gate.quota is None:
        return state
    quota = msgspec.structs.replace(state.gate.quota, until_ms=_ms(cap.next_opening(now)))
    return msgspec.structs.replace(state, gate=msgspec.structs.replace(state.gate, quota=quota))


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)

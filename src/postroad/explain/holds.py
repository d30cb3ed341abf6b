"""Finds everything that holds a touch now: one finder for each kind of cause, in the table `FINDERS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final

from postroad.delivery.admission_cause import AdmissionCause
from postroad.explain.cause import CAMPAIGN_CAUSES, DelayCause
from postroad.explain.gate_holds import find_gates
from postroad.explain.hold import Situation, TouchHold, from_ms, new_hold, utc
from postroad.explain.hours import TouchHours
from postroad.queue import EventKind, JobState
from postroad.store.ledger import IN_PROGRESS, LIVE, UNSENT, WAITING, TouchState


def find_holds(situation: Situation) -> list[TouchHold]:
    """Return everything that holds a touch now: the holds without a known end first, then the one that ends last."""
    holds = [hold for find in FINDERS for hold in find(situation)]
    others = [hold for hold in holds if hold.cause is not DelayCause.RECHECK]
    # What held it back is usually still there, and says more.
    return sorted(others or holds, key=lambda hold: (hold.until is not None, -_seconds(hold.until)))


def _seconds(at: datetime | None) -> float:
    return 0.0 if at is None else at.timestamp()


def _suppression(situation: Situation) -> Iterator[TouchHold]:
    found = situation.facts.suppression
    if found is not None and situation.touch.state in UNSENT:
        yield new_hold(
            situation,
            DelayCause.SUPPRESSED,
            since=found.created_at,
            address=found.address,
            reason=found.reason.replace("_", " "),
            source=found.source,
        )


def _campaign(situation: Situation) -> Iterator[TouchHold]:
    touch, job = situation.touch, situation.job
    if touch.state not in UNSENT:
        return
    cause = CAMPAIGN_CAUSES[touch.campaign_state]
    if cause is not None:
        by, since = touch.paused_by or "an operator", touch.paused_at
        yield new_hold(situation, cause, since=since, by=by, state=touch.campaign_state)
    elif job is not None and job.paused_since_ms is not None:
        since = from_ms(job.paused_since_ms)
        yield new_hold(situation, DelayCause.CAMPAIGN_PAUSED, since=since, by="its queue, and not in the ledger")


def _rollout(situation: Situation) -> Iterator[TouchHold]:
    touch, shares = situation.touch, situation.facts.rollout
    own = next((share for share in shares if share.number == touch.share), None)
    if touch.state is not TouchState.WITHHELD or own is None:
        return
    coming = next((share for share in shares if share.opened_at is None), own)
    if own.opened_at is not None:
        reason = "This share is let go, and the next pass plans its messages"
    elif coming.held_why is None:
        reason = f"The next pass decides on share {coming.number}"
    else:
        reason = f"Share {coming.number} is not let go: {coming.held_why.rstrip('.')}"
    yield new_hold(
        situation,
        DelayCause.ROLLOUT,
        since=coming.held_since,
        share=own.number,
        shares=len(shares),
        percent=own.percent,
        reason=reason,
    )


def _cohort(situation: Situation) -> Iterator[TouchHold]:
    pause = situation.facts.cohort_pause
    if pause is not None and situation.touch.state in WAITING:
        evidence = pause.evidence.replace("_", " ")
        yield new_hold(
            situation, DelayCause.COHORT_PAUSED, since=pause.at, evidence=evidence, reason=pause.reason.rstrip(".")
        )


def _variants(situation: Situation) -> Iterator[TouchHold]:
    touch = situation.touch
    if touch.state is TouchState.AWAITING:
        until = max(touch.decides_at or touch.due_at, touch.due_at)
        yield new_hold(situation, DelayCause.DECISION, since=min(touch.due_at, situation.now), until=until)


def _exit(situation: Situation) -> Iterator[TouchHold]:
    if situation.facts.exit is not None:
        reason = situation.facts.exit.partition(": ")[2]
        yield new_hold(situation, DelayCause.EXIT, campaign=situation.touch.campaign, reason=reason)


def _frequency(situation: Situation) -> Iterator[TouchHold]:
    over = situation.facts.frequency
    if over is None:
        return
    if over.cap is None:
        yield new_hold(situation, DelayCause.FREQUENCY_CLASS, name=over.frequency_class)
    elif over.skip:
        yield new_hold(situation, DelayCause.FREQUENCY_SKIP, reason=over.cause)
    else:
        end = "the delivery of a message that is being sent is known" if over.until is None else utc(over.until)
        yield new_hold(situation, DelayCause.FREQUENCY, until=over.until, reason=over.cause, end=end)


def _schedule(situation: Situation) -> Iterator[TouchHold]:
    """Find the time before which it is not tried: of its step, of a deferral, or of an operator."""
    touch, job = situation.touch, situation.job
    if touch.state is TouchState.WITHHELD:
        return  # Its time is set when it is released.
    if touch.state is TouchState.PLANNED or (job is None and touch.state in WAITING):
        until = max(touch.leaves_at, touch.next_at or touch.leaves_at)
    elif job is not None and job.state is JobState.SCHEDULED and touch.state in LIVE:
        until = from_ms(job.at_ms)
    else:
        return
    if until <= situation.now:
        return
    if until <= touch.leaves_at and touch.first_due_at is not None and touch.share is None:
        yield new_hold(situation, DelayCause.RECHECK, until=until, reason=touch.reply or "a frequency cap")
    elif until <= touch.leaves_at:
        yield new_hold(situation, DelayCause.SCHEDULE, until=until)
    else:
        yield _put_off(situation, until)


def _put_off(situation: Situation, until: datetime) -> TouchHold:
    last = situation.facts.events[-1] if situation.facts.events else None
    newest = situation.job.history[0] if situation.job is not None and situation.job.history else None
    if newest is not None and newest.kind in (EventKind.DEFER, EventKind.RETRY):
        since, admission = from_ms(newest.at_ms), AdmissionCause.of(newest.cause)
        if admission is not None:
            return new_hold(situation, DelayCause.RECHECK, since=since, until=until, reason=newest.cause)
        if last is None or last.at < since:  # The recorder has not written it yet.
            reason = _with_reply(newest.cause, newest.error)
            return new_hold(
                situation, DelayCause.DEFERRAL, since=since, until=until, attempt=newest.attempt, reason=reason
            )
    if last is not None and last.state is TouchState.DEFERRED and situation.touch.state is TouchState.DEFERRED:
        reason = _with_reply(last.cause, last.reply)
        return new_hold(situation, DelayCause.DEFERRAL, since=last.at, until=until, attempt=last.attempt, reason=reason)
    if situation.touch.next_at is not None:
        return new_hold(situation, DelayCause.POSTPONED, until=until)
    if situation.job is not None and situation.job.claims:
        return new_hold(situation, DelayCause.RECHECK, until=until, reason="the queue no longer has its cause")
    return new_hold(situation, DelayCause.SCHEDULE, until=until)


def _with_reply(cause: str | None, reply: str | None) -> str:
    return f"{cause or 'no cause is recorded'} ({reply})" if reply else cause or "no cause is recorded"


def _window(situation: Situation) -> Iterator[TouchHold]:
    touch = situation.touch
    hours = TouchHours.of(touch, situation.facts.shared.calendar)
    if hours is None or touch.state not in WAITING or not _may_leave_later(situation):
        return
    now = situation.now
    after = max(now, from_ms(situation.not_before_ms or 0), touch.leaves_at)
    then, at_once = hours.opens(after), hours.opens(now)
    if then > after or at_once > now:
        opens = then if then > after else at_once
        closed = list(hours.closed_between(now - timedelta(days=8), now + timedelta(milliseconds=1)))
        since = max(closed[-1][0], touch.due_at) if closed and closed[-1][1] > now >= touch.due_at else None
        local = f"{opens.astimezone(hours.zone):%Y-%m-%d %H:%M}"
        holiday = hours.is_holiday(after if then > after else now)
        cause = DelayCause.HOLIDAY if holiday else DelayCause.WINDOW
        yield new_hold(situation, cause, since=since, until=opens, zone=touch.zone, local=local)


def _may_leave_later(situation: Situation) -> bool:
    job = situation.job
    return job is None or job.state in (None, JobState.QUEUED, JobState.SCHEDULED)


def _job(situation: Situation) -> Iterator[TouchHold]:
    """Find what is wrong with its job, or that it is on the wire."""
    touch, job = situation.touch, situation.job
    if touch.state is TouchState.PLANNED:
        if touch.leaves_at <= situation.now and CAMPAIGN_CAUSES[touch.campaign_state] is None:
            at = situation.facts.shared.advanced_at
            last = f"at {utc(at)}" if at is not None else "never"
            yield new_hold(situation, DelayCause.NOT_ENQUEUED, since=touch.leaves_at, last=last)
    elif job is not None and touch.state in IN_PROGRESS:
        if job.state is None and not job.history:
            yield new_hold(situation, DelayCause.NO_JOB)
        elif job.state in (None, JobState.REMEMBERED, JobState.DEAD):
            ended = job.history[0].at_ms if job.history else job.at_ms
            reason = job.history[0].kind.value if job.history else "dead" if job.state is JobState.DEAD else "done"
            yield new_hold(situation, DelayCause.NOT_RECORDED, since=from_ms(ended) if ended else None, reason=reason)
        elif job.state is JobState.IN_FLIGHT:
            yield new_hold(situation, DelayCause.SENDING, until=from_ms(job.at_ms), attempt=job.attempts + 1)


def _worker(situation: Situation) -> Iterator[TouchHold]:
    job = situation.job
    if situation.worker_alive is False and job is not None and job.state in (JobState.QUEUED, JobState.SCHEDULED):
        yield new_hold(situation, DelayCause.NO_WORKER)


def _decision(situation: Situation) -> Iterator[TouchHold]:
    """Find what waits for a person's decision."""
    touch, job = situation.touch, situation.job
    reason = touch.reply or "no cause is recorded"
    if touch.state is TouchState.UNKNOWN:
        yield new_hold(situation, DelayCause.UNKNOWN, since=touch.settled_at, reason=reason)
    elif touch.state is TouchState.DEAD:
        yield new_hold(situation, DelayCause.DEAD, since=touch.settled_at, reason=reason)
    elif touch.state in LIVE and job is not None and job.state is JobState.UNCERTAIN:
        reason = f"worker {job.worker} disappeared while it sent it"
        yield new_hold(situation, DelayCause.UNKNOWN, since=from_ms(job.at_ms), reason=reason)


Finder = Callable[[Situation], Iterator[TouchHold]]

FINDERS: Final[tuple[Finder, ...]] = (
    _suppression,
    _campaign,
    _variants,
    _exit,
    _rollout,
    _cohort,
    _frequency,
    _schedule,
    _window,
    find_gates,
    _job,
    _worker,
    _decision,
)
"""Each finds the holds of some causes. A new cause needs a finder here, and a row in `CAUSES`."""

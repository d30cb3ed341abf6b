"""Finds when causes held touches in the past, from what the ledger and the queue record.

The ledger does not record rates, quotas, concurrency and free workers. The time that they took is charged to
`DelayCause.TURN`, unless the queue still has the job and its gates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.campaign.calendar import Window
from postroad.campaign.holidays import HolidayCalendar
from postroad.delivery.admission_cause import AdmissionCause
from postroad.delivery.cohort_key import cohort_of
from postroad.explain.cause import ADMISSION_CAUSES, CAMPAIGN_CAUSES, DelayCause, block_cause
from postroad.explain.charge import Charge, DelayInterval, charge
from postroad.explain.facts import gates_of
from postroad.explain.hours import TouchHours
from postroad.gates.name import GateName
from postroad.queue import BlockKind, EventKind, JobDetails, JobState
from postroad.settings.frequency import NORMAL
from postroad.settings.types import RateSetting
from postroad.store.cohort import Cohort, CohortPause, cohort_keys
from postroad.store.dns_report import SenderHold
from postroad.store.ledger import COMPLAINT, LIVE, REPLY, UNSENT, UNSUBSCRIBE, WAITING, TouchState
from postroad.store.operator_pause import OperatorPause, operator_pauses
from postroad.store.rollout import shares_of
from postroad.store.shaping import ShapingChange
from postroad.store.touch_history import (
    CountedMessage,
    TouchEventRow,
    changes_of_sender,
    cohort_pauses_of_steps,
    events_of_touches,
    held_periods,
    messages_under_caps,
)
from postroad.store.touch_lookup import FoundTouch
from postroad.warmup.identity import WarmingIdentity, identities

NOT_ATTEMPTS = (UNSUBSCRIBE, REPLY, COMPLAINT)
"""Causes of events that say nothing about the delivery of their touch."""
FOREVER_MS = 2**62


class TouchPast(NamedTuple):
    """What is recorded of one touch.

    ``changes``: pauses of its gates. ``pauses``: those by operators. ``warmups``: identities that it warms up.
    ``cap``: the frequency cap of its campaign's class, if it has one. ``counted``: when other messages began to count
    against the cap. ``released_at``: when its share of a rollout was let go.
    """

    touch: FoundTouch
    events: Sequence[TouchEventRow]
    cohort_pauses: Sequence[CohortPause]
    holds: Sequence[SenderHold]
    changes: Sequence[ShapingChange]
    warmups: Sequence[WarmingIdentity]
    calendar: HolidayCalendar | None = None
    cap: RateSetting | None = None
    counted: Sequence[datetime] = ()
    released_at: datetime | None = None
    pauses: Sequence[OperatorPause] = ()


def load_pasts(
    connection: sa.Connection, context: AppContext, touches: Sequence[FoundTouch], now: datetime
) -> dict[int, TouchPast]:
    """Return what the ledger records of touches, by their ids."""
    events = _events_of(connection, [touch.id for touch in touches])
    cohort_pauses = _cohort_pauses(connection, context, touches)
    senders = {touch.sender for touch in touches}
    holds = {sender: held_periods(connection, sender) for sender in senders}
    changes = {
        sender: [change for change in changes_of_sender(connection, sender, now) if change.suspended]
        for sender in senders
    }
    caps = {touch.id: _cap_of(context.settings.frequency, touch) for touch in touches}
    counted: defaultdict[int, list[CountedMessage]] = defaultdict(list)
    under_caps = sorted({touch.recipient_id for touch in touches if caps[touch.id] is not None})
    for message in messages_under_caps(connection, under_caps) if under_caps else ():
        counted[message.recipient_id].append(message)
    gates = {touch.id: gates_of(touch, context.shaping) for touch in touches}
    first = min((touch.delayed_since for touch in touches), default=now)
    pauses = operator_pauses(connection, frozenset().union(*gates.values()), first, now)
    released = _release_times(connection, touches)
    warming = identities(context.settings)
    warmups = {sender: [one for one in warming if sender in one.senders] for sender in senders}
    return {
        touch.id: TouchPast(
            touch=touch,
            events=events[touch.id],
            cohort_pauses=cohort_pauses.get(touch.id, ()),
            holds=holds[touch.sender],
            changes=[change for change in changes[touch.sender] if change.gate in gates[touch.id]],
            pauses=[pause for pause in pauses if pause.gate in gates[touch.id]],
            warmups=warmups[touch.sender],
            calendar=context.calendar,
            cap=caps[touch.id],
            counted=[one.settled_at for one in counted[touch.recipient_id] if one.touch_id != touch.id],
            released_at=released.get((touch.campaign_id, touch.share)),
        )
        for touch in touches
    }


def _events_of(connection: sa.Connection, touch_ids: Sequence[int]) -> defaultdict[int, list[TouchEventRow]]:
    events: defaultdict[int, list[TouchEventRow]] = defaultdict(list)
    for event in events_of_touches(connection, touch_ids) if touch_ids else ():
        if event.cause not in NOT_ATTEMPTS:
            events[event.touch_id].append(event)
    return events


def _release_times(
    connection: sa.Connection, touches: Sequence[FoundTouch]
) -> dict[tuple[int, int | None], datetime | None]:
    """Return when shares of rollouts were let go, by campaign and number."""
    campaigns = sorted({touch.campaign_id for touch in touches if touch.share is not None})
    return {
        (campaign_id, share.number): share.opened_at
        for campaign_id in campaigns
        for share in shares_of(connection, campaign_id)
    }


def _cap_of(caps: Mapping[str, RateSetting], touch: FoundTouch) -> RateSetting | None:
    return caps.get(touch.frequency or NORMAL)


def _cohort_pauses(
    connection: sa.Connection, context: AppContext, touches: Sequence[FoundTouch]
) -> Mapping[int, Sequence[CohortPause]]:
    by_cohort: defaultdict[Cohort, list[CohortPause]] = defaultdict(list)
    for pause in cohort_pauses_of_steps(connection, sorted({touch.step_id for touch in touches})):
        by_cohort[pause.cohort].append(pause)
    if not by_cohort:
        return {}
    source_field = context.settings.cohort_breaker.source_field
    keys = cohort_keys(connection, [touch.id for touch in touches], source_field=source_field)
    return {key.touch_id: by_cohort[cohort_of(key)] for key in keys}


def delay_of(past: TouchPast, now: datetime, job: JobDetails | None = None) -> list[Charge]:
    """Return the time from when a touch was due until it was accepted or ended, or until now, by cause.

    Args:
        past: What the ledger records of it.
        now: The time.
        job: Its job, if the queue still has it.
    """
    start_ms, end_ms = to_ms(past.touch.delayed_since), _end_ms(past, now)
    return charge(start_ms, end_ms, find_intervals(past, start_ms, end_ms, job))


def _end_ms(past: TouchPast, now: datetime) -> int:
    accepted = [event.at for event in past.events if event.state is TouchState.ACCEPTED]
    if accepted:
        return to_ms(accepted[0])  # A bounce message may have ended it later.
    touch = past.touch
    return to_ms(now if touch.state in LIVE or touch.settled_at is None else touch.settled_at)


def find_intervals(
    past: TouchPast, start_ms: int, end_ms: int, job: JobDetails | None = None
) -> Iterator[DelayInterval]:
    """Yield when causes held a touch, in any order.

    Args:
        past: What the ledger records of it.
        start_ms: When it was due, in ms since the epoch.
        end_ms: When its delay ended, or the current time.
        job: Its job, if the queue still has it.
    """
    yield from _of_campaign(past.touch)
    yield from _of_decision(past.touch)
    if past.released_at is not None:
        yield _interval(DelayCause.ROLLOUT, "", past.touch.delayed_since, past.released_at)
        yield _interval(DelayCause.SCHEDULE, "", past.released_at, past.touch.due_at)
    yield from _of_events(past.events)
    for pause in past.cohort_pauses:
        yield _interval(DelayCause.COHORT_PAUSED, pause.evidence.replace("_", " "), pause.at, pause.lifted_at)
    for hold in past.holds:
        if hold.held_at is not None:
            yield _interval(DelayCause.SENDER_HOLD, hold.sender, hold.held_at, hold.ended_at)
    for change in past.changes:
        ends = [at for at in (change.restored_at, change.ends_at) if at is not None]
        detail = f"{change.gate} ({change.rule})"
        yield _interval(DelayCause.GATE_PAUSED, detail, change.at, min(ends, default=None))
    for paused in past.pauses:
        if paused.gate == str(GateName.campaign(past.touch.campaign)):
            yield _interval(DelayCause.CAMPAIGN_PAUSED, paused.by, paused.at, paused.ended_at)
        else:
            yield _interval(DelayCause.GATE_PAUSED, f"{paused.gate} (by {paused.by})", paused.at, paused.ended_at)
    if past.cap is not None:
        yield from _of_cap(past.cap, past.counted, f"{past.touch.frequency or NORMAL} ({past.cap})")
    if start_ms < end_ms:
        yield from _of_hours(past, _at(start_ms), _at(end_ms))
    if job is not None and past.touch.state in WAITING:
        yield from _of_job(job, {*(one.gate for one in past.changes), *(one.gate for one in past.pauses)})


def _of_campaign(touch: FoundTouch) -> Iterator[DelayInterval]:
    if touch.launched_at is not None:
        yield _interval(DelayCause.CAMPAIGN_DRAFT, "", touch.due_at, touch.launched_at)
    if touch.state not in UNSENT:
        return
    if touch.paused_at is not None and CAMPAIGN_CAUSES[touch.campaign_state] is DelayCause.CAMPAIGN_PAUSED:
        yield _interval(DelayCause.CAMPAIGN_PAUSED, touch.paused_by or "", touch.paused_at, None)
    if touch.state is TouchState.WITHHELD:
        yield _interval(DelayCause.ROLLOUT, "", touch.due_at, None)
    if touch.state is TouchState.PLANNED:
        yield _interval(DelayCause.NOT_ENQUEUED, "", touch.leaves_at, None)


def _of_decision(touch: FoundTouch) -> Iterator[DelayInterval]:
    if touch.state is TouchState.AWAITING:
        yield _interval(DelayCause.DECISION, touch.step, touch.delayed_since, None)
    elif touch.waited_until is not None:
        yield _interval(DelayCause.DECISION, touch.step, touch.delayed_since, touch.waited_until)


def _of_events(events: Sequence[TouchEventRow]) -> Iterator[DelayInterval]:
    for place, event in enumerate(events):
        following = events[place + 1].at if place + 1 < len(events) else None
        match event.state:
            case TouchState.DEFERRED:
                ends = [at for at in (event.next_at, following) if at is not None]
                cause = (event.cause or "").partition(":")[0].removesuffix(", so far")
                if ends:
                    yield _interval(DelayCause.DEFERRAL, cause, event.at, min(ends))
            case TouchState.UNKNOWN if following is not None:
                yield _interval(DelayCause.UNKNOWN, "", event.at, following)
            case TouchState.DEAD | TouchState.EXPIRED if following is not None:
                yield _interval(DelayCause.DEAD, event.cause or "", event.at, following)
            case _:
                pass  # It ended, or it waits again.


def _of_cap(cap: RateSetting, counted: Sequence[datetime], detail: str) -> Iterator[DelayInterval]:
    """Yield when so many messages were within the span of a frequency cap that no other one could leave."""
    since = [to_ms(at) for at in sorted(counted)]
    for newest, oldest in zip(since[cap.count - 1 :], since, strict=False):
        if newest < oldest + cap.per_ms:
            yield DelayInterval(DelayCause.FREQUENCY, detail, newest, oldest + cap.per_ms)


def _of_hours(past: TouchPast, start: datetime, end: datetime) -> Iterator[DelayInterval]:
    campaign = TouchHours.of(past.touch, past.calendar)
    if campaign is not None:
        for closed in campaign.closed_between(start, end):
            for begin, finish, holiday in campaign.days_in(*closed):
                cause = DelayCause.HOLIDAY if holiday else DelayCause.WINDOW
                yield _interval(cause, past.touch.zone, begin, finish)
    for identity in past.warmups:
        hours = Window(start=identity.warmup.opens, end=identity.warmup.closes, days=frozenset(range(7)))
        for closed in hours.closed_between(start, end, identity.zone):
            yield _interval(DelayCause.WARMUP_HOURS, identity.name, *closed)


def _of_job(job: JobDetails, recorded: Collection[str]) -> Iterator[DelayInterval]:
    """Yield what the queue knows: when the admission held the job back, and which gates hold its lane now.

    ``recorded``: gates whose pauses the ledger has, with their causes. The delays of a campaign are charged to these.
    """
    for event in job.history:
        cause = AdmissionCause.of(event.cause)
        if cause is not None and event.kind is EventKind.DEFER:
            yield DelayInterval(ADMISSION_CAUSES[cause], event.cause, event.at_ms, event.next_ms)
    if job.state is not JobState.QUEUED:
        return
    for gate in job.blocking_gates():
        if gate.kind is BlockKind.PAUSE and gate.name in recorded:
            continue
        since_ms = gate.since_ms if gate.kind is BlockKind.PAUSE else job.since_ms
        yield DelayInterval(block_cause(gate.name, gate.kind), gate.name, since_ms or job.since_ms, FOREVER_MS)


def _interval(cause: DelayCause, detail: str, start: datetime, end: datetime | None) -> DelayInterval:
    return DelayInterval(cause, detail, to_ms(start), FOREVER_MS if end is None else to_ms(end))


def to_ms(at: datetime) -> int:
    """Return a time in whole milliseconds since the epoch."""
    return round(at.timestamp() * 1000)


def _at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)

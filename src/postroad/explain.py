"""Explains why a message is in its state and when it may be sent, from the ledger and the queue together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, assert_never
from zoneinfo import ZoneInfo

import msgspec
import sqlalchemy as sa
from msgspec import Struct

from postroad.app.context import AppContext
from postroad.campaign.calendar import Window
from postroad.delivery.cohort_key import cohort_of
from postroad.delivery.job import job_id
from postroad.gates.name import GateKind, GateName, kind_of
from postroad.queue import Explanation, GateState, JobDetails, JobState
from postroad.queue import explain as explain_job
from postroad.store.campaign import CampaignState
from postroad.store.cohort import CohortEvidence, cohort_keys, open_pauses
from postroad.store.dns_report import open_holds
from postroad.store.engine import read
from postroad.store.frequency import FrequencyHold, FrequencyRule, frequency_holds
from postroad.store.ledger import WAITING, TouchState, delivery_events
from postroad.store.shaping import open_changes
from postroad.store.touch_lookup import FoundSuppression, FoundTouch, suppression_of
from postroad.store.warmup import newest_days
from postroad.touch_search import queue_of_touch
from postroad.warmup.caps import Cap, effective_cap, opens_at, providers
from postroad.warmup.day import day_of, midnight
from postroad.warmup.identity import WarmingIdentity, group_by_senders, identities


class TouchExplanation(Struct, frozen=True, kw_only=True):
    """Explanation of a touch's state.

    ``held_by``: what delays it, such as ``gate …``, ``hours``, ``cohort``; None if nothing does. ``not_before_ms``:
    earliest time of sending; None if no time is known. ``words``: sentences, the most important one first.
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


class _Facts(NamedTuple):
    """Facts of the database that determine what happens to a touch."""

    suppression: FoundSuppression | None
    cohort: CohortEvidence | None
    frequency: FrequencyHold | None
    deferral: str | None
    """A sentence on the last attempt, if it was deferred."""
    holds: dict[str, str]
    """Why a gate is paused, by gate."""
    caps: dict[str, _WarmupCap]
    """Warming identity and its cap of today, by gate."""


class _WarmupCap(NamedTuple):
    identity: WarmingIdentity
    cap: Cap

    def opens(self, now: datetime) -> datetime:
        """Return when working hours and pauses allow mail: ``now``, or a later time."""
        return opens_at(self.identity.warmup, self.identity, self.cap, now)

    def next_opening(self, now: datetime) -> datetime:
        """Return when mail may leave again after today's cap is used up, or before today's working hours."""
        opens = self.opens(now)
        if opens > now:
            return opens
        return self.opens(midnight(day_of(self.identity, now) + timedelta(days=1), self.identity.zone))


async def explain_touch(context: AppContext, touch: FoundTouch) -> TouchExplanation:
    """Explain the state of one touch. Raise UnavailableError if the database or the queue is unreachable."""
    facts = await asyncio.to_thread(_load_facts, context, touch)
    queue = await context.queue(queue_of_touch(touch))
    job = await queue.find(job_id(touch.id))
    now = datetime.fromtimestamp(job.now_ms / 1000, UTC)
    job = msgspec.structs.replace(job, gates=[_with_opening_time(gate, facts.caps, now) for gate in job.gates])
    explanation = explain_job(job)
    if touch.state.ended or touch.state is TouchState.PLANNED:
        words, held_by, not_before = _explain_by_ledger(touch, facts, explanation)
    else:
        words, held_by, not_before = _explain_by_queue(touch, facts, job, explanation, now)
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
    )


def _load_facts(context: AppContext, touch: FoundTouch) -> _Facts:
    with read(context.engine) as connection:
        hashes = (context.hash_of(touch.address), *context.hash_of.older(touch.address))
        candidates = (suppression_of(connection, touch.address, touch.audience_id, hashed) for hashed in hashes)
        suppression = next((candidate for candidate in candidates if candidate is not None), None)
        held = {sender: hold for sender, hold in open_holds(connection).items() if hold.held_at is not None}
        holds = {str(GateName.hold(sender)): hold.reason for sender, hold in held.items()}
        holds |= {
            change.gate: f"{change.rule}: {change.reply}" for change in open_changes(connection) if change.suspended
        }
        return _Facts(
            suppression=suppression,
            cohort=_cohort_pause(connection, touch, context),
            frequency=_frequency_hold(connection, touch, context),
            deferral=_describe_deferral(connection, touch),
            holds=holds,
            caps=_caps(connection, context),
        )


def _describe_deferral(connection: sa.Connection, touch: FoundTouch) -> str | None:
    events = delivery_events(connection, touch.id) if touch.state is TouchState.DEFERRED else []
    for at, state, attempt, cause, reply in events[:1]:
        if state == TouchState.DEFERRED:
            detail = f" ({reply})" if reply else ""
            return f"It was deferred at {_at(at)} after attempt {attempt}: {cause}{detail}."
    return None


def _cohort_pause(connection: sa.Connection, touch: FoundTouch, context: AppContext) -> CohortEvidence | None:
    paused = open_pauses(connection)
    if not paused:
        return None
    [key] = cohort_keys(connection, [touch.id], source_field=context.settings.cohort_breaker.source_field)
    return paused.get(cohort_of(key))


def _frequency_hold(connection: sa.Connection, touch: FoundTouch, context: AppContext) -> FrequencyHold | None:
    if touch.state not in WAITING:
        return None
    rule = FrequencyRule(caps=context.settings.frequency, now=context.clock.now())
    return frequency_holds(connection, [touch.id], rule).get(touch.id)


def _explain_by_ledger(
    touch: FoundTouch, facts: _Facts, explanation: Explanation
) -> tuple[list[str], str | None, int | None]:
    """Explain a touch that is not in the queue yet, or has ended."""
    at = "" if touch.settled_at is None else f" at {_at(touch.settled_at)}"
    reply = f": {touch.reply}" if touch.reply else ""
    match touch.state:
        case TouchState.PLANNED:
            words = [f"Planned: due at {_at(touch.due_at)}{reply}. It is enqueued shortly before."]
            held = _explain_admission(touch, facts)
            return (
                [*held, *words, *_describe_frequency(facts.frequency)],
                "campaign" if held else None,
                _ms(touch.due_at),
            )
        case TouchState.ACCEPTED:
            words = [f"Accepted by the receiver{at}{reply}."]
        case TouchState.BOUNCED:
            words = [f"Bounced{at}{reply}.", "A bounce is not sent again."]
        case TouchState.SUPPRESSED:
            words = [f"Not sent: its recipient is suppressed. It ended{at}."]
        case TouchState.CANCELLED | TouchState.SKIPPED:
            words = [f"{touch.state.capitalize()}{at}{reply}."]
        case TouchState.EXPIRED:
            words = [f"Expired{at}: it was not delivered in time{reply}."]
        case TouchState.DEAD:
            words = [f"Dead{at}{reply}.", f"`postroad queue replay {touch.id}` sends it again."]
        case TouchState.UNKNOWN:
            words = [f"Unknown{at}{reply}. It may have arrived, and is not sent again automatically."]
            words.append(f"`postroad unknown resolve {touch.id} --as accepted`, or `--as not-sent`, settles it.")
        case TouchState.QUEUED | TouchState.SENDING | TouchState.DEFERRED:
            raise AssertionError(touch.state)
        case other:
            assert_never(other)
    if facts.suppression is not None:
        words.append(_suppressed(facts.suppression))
    if explanation.state not in (None, JobState.REMEMBERED, JobState.DEAD, JobState.UNCERTAIN):
        words.append(f"The queue still has a job of it: {explanation.words[0]}")
    return words, None, None


def _explain_by_queue(
    touch: FoundTouch,
    facts: _Facts,
    job: JobDetails,
    explanation: Explanation,
    now: datetime,
) -> tuple[list[str], str | None, int | None]:
    """Explain a touch that is in the queue, or should be."""
    words, held_by, not_before = list(explanation.words), explanation.held_by, explanation.not_before_ms
    if explanation.state is None and not job.history:
        words = [
            f"The ledger has it as {touch.state}, but the queue has no job of it.",
            "`postroad queue rebuild` creates the job; the maintenance flow does so every ten minutes.",
        ]
    if explanation.state not in (JobState.QUEUED, JobState.SCHEDULED):
        return words, held_by, not_before
    words += [_describe_warmup(gate, facts.caps, now) for gate in job.gates if _is_used_up(gate)]
    words += [f"Gate {g.gate.name}: {facts.holds[g.gate.name]}." for g in job.gates if g.gate.name in facts.holds]
    if facts.deferral is not None and touch.state is TouchState.DEFERRED and explanation.state is JobState.SCHEDULED:
        words.append(facts.deferral)
    first = _describe_frequency(facts.frequency)
    opens = _opens(touch, max(not_before or 0, job.now_ms), now)
    if opens is not None:
        first.append(
            f"Outside the campaign's hours in the recipient's time zone ({touch.zone}): they open at "
            f"{opens.astimezone(ZoneInfo(touch.zone)):%Y-%m-%d %H:%M} there, {_at(opens)}."
        )
        held_by = held_by or "hours"
        not_before = None if not_before is None else max(not_before, _ms(opens))
    if facts.cohort is not None:
        evidence = facts.cohort.replace("_", " ")
        first.append(f"Held: its cohort is paused ({evidence}), until the pause is lifted: `postroad cohort list`.")
        held_by, not_before = "cohort", None
    if facts.frequency and not facts.frequency.skip:
        held_by = held_by or "frequency"
        until_ms = facts.frequency.until_ms
        not_before = max(not_before, until_ms) if until_ms and not_before is not None else None
    ending = _explain_admission(touch, facts)
    if ending and held_by is None:
        held_by = "campaign" if facts.suppression is None else "suppression"
    return [*ending, *first, *words], held_by, None if ending else not_before


def _explain_admission(touch: FoundTouch, facts: _Facts) -> list[str]:
    """Return sentences on why admission will hold or end the touch when it is claimed."""
    words = []
    if facts.suppression is not None:
        words.append(f"{_suppressed(facts.suppression)} It ends as suppressed when a worker claims it.")
    match touch.campaign_state:
        case CampaignState.RUNNING:
            pass
        case CampaignState.PAUSED:
            words.append(f"Held: campaign {touch.campaign} is paused, until `postroad campaign resume`.")
        case CampaignState.DRAFT:
            words.append(f"Held: campaign {touch.campaign} is a draft.")
        case CampaignState.CANCELLED | CampaignState.FINISHED:
            words.append(f"Campaign {touch.campaign} is {touch.campaign_state}: it ends as cancelled.")
        case other:
            assert_never(other)
    return words


def _describe_frequency(over: FrequencyHold | None) -> list[str]:
    if over is None:
        return []
    if over.cap is None:
        add = "Add it to [frequency], or change the campaign's file and apply it again."
        return [f"Held: the settings have no frequency class {over.frequency_class}. {add}"]
    if over.skip:
        return [f"It is skipped when a worker claims it: its recipient is {over.cause}."]
    when = "the delivery of a message that is being sent is known" if over.until is None else _at(over.until)
    return [f"Held: its recipient is {over.cause}, until {when}."]


def _suppressed(suppression: FoundSuppression) -> str:
    reason = suppression.reason.replace("_", " ")
    return f"{suppression.address} is suppressed since {_at(suppression.created_at)}: {reason} ({suppression.source})."


def _opens(touch: FoundTouch, after_ms: int, now: datetime) -> datetime | None:
    """Return when the campaign's hours open, if they are closed now or at the earliest time of sending."""
    window = Window.from_row(touch.sending_window)
    if window is None:
        return None
    zone, after = ZoneInfo(touch.zone), datetime.fromtimestamp(after_ms / 1000, UTC)
    at_the_time, at_once = window.opens(after, zone), window.opens(now, zone)
    if at_the_time > after:
        return at_the_time
    return at_once if at_once > now else None


def _caps(connection: sa.Connection, context: AppContext) -> dict[str, _WarmupCap]:
    groups = group_by_senders(identities(context.settings))
    names = [identity.name for group in groups for identity in group]
    newest = {(row.identity, row.provider): row for row in newest_days(connection, names)} if names else {}
    return {
        str(GateName.warmup(provider, group[0].name)): _WarmupCap(group[0], effective_cap(group, provider, newest))
        for group in groups
        for provider in providers()
    }


def _with_opening_time(state: GateState, caps: Mapping[str, _WarmupCap], now: datetime) -> GateState:
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


def _is_used_up(state: GateState) -> bool:
    quota = state.gate.quota
    return quota is not None and quota.left <= 0 and kind_of(state.gate.name) is GateKind.WARMUP


def _describe_warmup(state: GateState, caps: Mapping[str, _WarmupCap], now: datetime) -> str:
    current = caps.get(state.gate.name)
    if current is None:
        return f"Gate {state.gate.name} is of a warmup that the settings no longer have."
    name, zone = current.identity.name, current.identity.zone
    opening = f"{current.next_opening(now).astimezone(zone):%Y-%m-%d %H:%M} in {zone.key}"
    if current.cap.paused_until is not None and current.cap.paused_until > now:
        return f"The warmup of {name} is paused: mail may leave again at {opening}."
    if current.opens(now) > now:
        return f"The warmup of {name} sends only within its hours: they open at {opening}."
    return f"The warmup of {name} has sent its cap of today: the next day's begins at {opening}."


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _at(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

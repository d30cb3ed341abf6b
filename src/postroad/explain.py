"""Why a message is where it is, and when it may go: the ledger and the queue asked together, for commands and pages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, assert_never
from zoneinfo import ZoneInfo

import msgspec
import sqlalchemy as sa
from msgspec import Struct

from postroad.app.context import AppContext
from postroad.campaign.calendar import Window
from postroad.delivery.cohort_key import cohort_of
from postroad.delivery.job import SEND_QUEUE, WARMUP_QUEUE, job_id, parse_touch_id
from postroad.errors import DataError, StateError, UsageError
from postroad.gates.name import GateKind, GateName, kind_of
from postroad.mail.address import normalise_address
from postroad.queue import Explanation, GateState, JobDetails, JobState
from postroad.queue import explain as explain_job
from postroad.store.campaign import CampaignState
from postroad.store.cohort import CohortEvidence, open_pauses, whose
from postroad.store.dns_report import open_holds
from postroad.store.engine import read
from postroad.store.ledger import TouchState, delivery_events
from postroad.store.shaping import open_changes
from postroad.store.touch_lookup import (
    MAX_TOUCHES,
    FoundSuppression,
    FoundTouch,
    suppression_of,
    touch_by_id,
    touches_of_address,
)
from postroad.store.warmup import newest_days
from postroad.warmup.caps import Cap, effective_cap, opens_at, providers
from postroad.warmup.day import day_of, midnight
from postroad.warmup.identity import WarmingIdentity, group_by_senders, identities


class TouchExplanation(Struct, frozen=True, kw_only=True):
    """One touch, and why it is where it is.

    ``held_by``: what keeps it, such as ``gate …``, ``hours``, ``cohort``; None when nothing does. ``not_before_ms``:
    it cannot go earlier; None when no time is known. ``words``: sentences, the most important one first.
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


def normalised(text: str) -> str:
    """Return the address that a person names. Raises UsageError for what is none."""
    try:
        return normalise_address(text)
    except DataError as error:
        raise UsageError(f"{text!r} is not a valid address: {error.message}") from None


def is_address(text: str) -> bool:
    """Tell whether a person names an address, and not an id."""
    return "@" in text


async def touch_ids(
    context: AppContext, words: Sequence[str], queue: str, states: Sequence[TouchState] = tuple(TouchState)
) -> list[str]:
    """Return the ids that a person names: an id stands for itself, an address for its touches in these states.

    Raises UsageError for what is neither, StateError for an address that has no such touch on this queue.
    """
    ids: list[str] = []
    for word in words:
        if not is_address(word):
            ids.append(word)
            continue
        found = [touch for touch in await find_touches(context, word, states=states) if queue_of_touch(touch) == queue]
        if not found:
            allowed = "" if len(states) == len(TouchState) else f" that is {' or '.join(states)}"
            raise StateError(
                f"{word} has no message{allowed} on {queue}",
                remedy=f"`postroad queue explain {word}` shows what there is.",
            )
        ids += [job_id(touch.id) for touch in found]
    return list(dict.fromkeys(ids))


def queue_of_touch(touch: FoundTouch) -> str:
    """Return the name of the queue that a touch goes by."""
    return WARMUP_QUEUE if touch.warmup else SEND_QUEUE


async def find_touches(
    context: AppContext, word: str, *, states: Sequence[TouchState] = tuple(TouchState), limit: int = MAX_TOUCHES
) -> list[FoundTouch]:
    """Return the touch of an id, or the touches of an address, the newest first. Raises UsageError."""

    def look() -> list[FoundTouch]:
        with read(context.engine) as connection:
            if is_address(word):
                return touches_of_address(connection, normalised(word), states=states, limit=limit)
            touch = touch_by_id(connection, parse_touch_id(word))
            return [] if touch is None else [touch]

    return await asyncio.to_thread(look)


class _Facts(NamedTuple):
    """What the database says that a touch's fate follows from."""

    suppression: FoundSuppression | None
    cohort: CohortEvidence | None
    put_off: str | None
    """What the last attempt came to, if it is tried again."""
    holds: dict[str, str]
    """By gate: why a person or a rule paused it."""
    caps: dict[str, _WarmupCap]
    """By gate: the identity that warms up, and what holds for it today."""


class _WarmupCap(NamedTuple):
    identity: WarmingIdentity
    cap: Cap

    def opens(self, now: datetime) -> datetime:
        """Return when its hours or its pause let mail leave; ``now`` if they do."""
        return opens_at(self.identity.warmup, self.identity, self.cap, now)

    def next_opening(self, now: datetime) -> datetime:
        """Return when mail may leave again once today's cap is used up, or before the hours of today."""
        opens = self.opens(now)
        if opens > now:
            return opens
        return self.opens(midnight(day_of(self.identity, now) + timedelta(days=1), self.identity.zone))


async def explain_touch(context: AppContext, touch: FoundTouch) -> TouchExplanation:
    """Explain one touch. Raises UnavailableError."""
    facts = await asyncio.to_thread(_facts, context, touch)
    queue = await context.queue(queue_of_touch(touch))
    job = await queue.find(job_id(touch.id))
    now = datetime.fromtimestamp(job.now_ms / 1000, UTC)
    job = msgspec.structs.replace(job, gates=[_real_end(gate, facts.caps, now) for gate in job.gates])
    said = explain_job(job)
    if touch.state.ended or touch.state is TouchState.PLANNED:
        words, held_by, not_before = _of_ledger(touch, facts, said)
    else:
        words, held_by, not_before = _of_queue(touch, facts, job, said, now)
    return TouchExplanation(
        id=job_id(touch.id),
        address=touch.address,
        campaign=touch.campaign,
        step=touch.step,
        queue=queue.name,
        touch_state=touch.state,
        state=said.state,
        lane=said.lane,
        ahead=said.ahead,
        held_by=held_by,
        since_ms=_ms(touch.settled_at) if touch.settled_at is not None else said.since_ms,
        not_before_ms=not_before,
        words=words,
    )


def _facts(context: AppContext, touch: FoundTouch) -> _Facts:
    with read(context.engine) as connection:
        hashes = (context.hash_of(touch.address), *context.hash_of.older(touch.address))
        found = (suppression_of(connection, touch.address, touch.audience_id, hashed) for hashed in hashes)
        suppression = next((one for one in found if one is not None), None)
        held = {sender: h for sender, h in open_holds(connection).items() if h.held_at is not None}
        holds = {str(GateName.hold(sender)): hold.reason for sender, hold in held.items()}
        holds |= {c.gate: f"{c.rule}: {c.reply}" for c in open_changes(connection) if c.suspended}
        return _Facts(
            suppression=suppression,
            cohort=_cohort_pause(connection, touch, context),
            put_off=_put_off(connection, touch),
            holds=holds,
            caps=_caps(connection, context),
        )


def _put_off(connection: sa.Connection, touch: FoundTouch) -> str | None:
    events = delivery_events(connection, touch.id) if touch.state is TouchState.DEFERRED else []
    for at, state, attempt, cause, reply in events[:1]:
        if state == TouchState.DEFERRED:
            said = f" ({reply})" if reply else ""
            return f"It was put off at {_at(at)} after attempt {attempt}: {cause}{said}."
    return None


def _cohort_pause(connection: sa.Connection, touch: FoundTouch, context: AppContext) -> CohortEvidence | None:
    paused = open_pauses(connection)
    if not paused:
        return None
    [own] = whose(connection, [touch.id], source_field=context.settings.cohort_breaker.source_field)
    return paused.get(cohort_of(own))


def _of_ledger(touch: FoundTouch, facts: _Facts, said: Explanation) -> tuple[list[str], str | None, int | None]:
    """What the ledger says of a touch that is not with the queue, or has ended."""
    at = "" if touch.settled_at is None else f" at {_at(touch.settled_at)}"
    reply = f": {touch.reply}" if touch.reply else ""
    match touch.state:
        case TouchState.PLANNED:
            words = [f"Planned: due at {_at(touch.due_at)}. It is handed to the queue shortly before."]
            held = _ended_by_ledger(touch, facts)
            return [*held, *words], "campaign" if held else None, _ms(touch.due_at)
        case TouchState.ACCEPTED:
            words = [f"Accepted by the receiver{at}{reply}."]
        case TouchState.BOUNCED:
            words = [f"Bounced{at}{reply}.", "A bounce is not sent again."]
        case TouchState.SUPPRESSED:
            words = [f"Not sent: its recipient is suppressed. It ended{at}."]
        case TouchState.CANCELLED:
            words = [f"Cancelled{at}{reply}."]
        case TouchState.EXPIRED:
            words = [f"Expired{at}: it was not delivered in time{reply}."]
        case TouchState.DEAD:
            words = [f"Dead{at}{reply}.", f"`postroad queue replay {touch.id}` sends it again."]
        case TouchState.UNKNOWN:
            words = [f"Unknown{at}{reply}. It may have arrived, and is not sent again by itself."]
            words.append(f"`postroad unknown resolve {touch.id} --as accepted`, or `--as not-sent`, settles it.")
        case TouchState.QUEUED | TouchState.SENDING | TouchState.DEFERRED:
            raise AssertionError(touch.state)
        case other:
            assert_never(other)
    if facts.suppression is not None:
        words.append(_suppressed(facts.suppression))
    if said.state not in (None, JobState.REMEMBERED, JobState.DEAD, JobState.UNCERTAIN):
        words.append(f"The queue still has a job of it: {said.words[0]}")
    return words, None, None


def _of_queue(
    touch: FoundTouch,
    facts: _Facts,
    job: JobDetails,
    said: Explanation,
    now: datetime,
) -> tuple[list[str], str | None, int | None]:
    """What holds a touch that the queue has, or should have."""
    words, held_by, not_before = list(said.words), said.held_by, said.not_before_ms
    if said.state is None and not job.history:
        words = [
            f"The ledger has it as {touch.state}, and the queue has no job of it.",
            "`postroad queue rebuild` makes it; the maintenance flow does so every ten minutes.",
        ]
    if said.state not in (JobState.QUEUED, JobState.SCHEDULED):
        return words, held_by, not_before
    words += [_warmup_words(gate, facts.caps, now) for gate in job.gates if _is_used_up(gate)]
    words += [f"Gate {g.gate.name}: {facts.holds[g.gate.name]}." for g in job.gates if g.gate.name in facts.holds]
    if touch.state is TouchState.DEFERRED and facts.put_off is not None and said.state is JobState.SCHEDULED:
        words.append(facts.put_off)
    first: list[str] = []
    opens = _opens(touch, max(not_before or 0, job.now_ms), now)
    if opens is not None:
        first.append(
            f"Outside the campaign's hours by the recipient's clock ({touch.zone}): they open at "
            f"{opens.astimezone(ZoneInfo(touch.zone)):%Y-%m-%d %H:%M} there, {_at(opens)}."
        )
        held_by = held_by or "hours"
        not_before = None if not_before is None else max(not_before, _ms(opens))
    if facts.cohort is not None:
        evidence = facts.cohort.replace("_", " ")
        first.append(f"Held: its cohort is paused ({evidence}), until the pause is lifted: `postroad cohort list`.")
        held_by, not_before = "cohort", None
    ending = _ended_by_ledger(touch, facts)
    if ending and held_by is None:
        held_by = "campaign" if facts.suppression is None else "suppression"
    return [*ending, *first, *words], held_by, None if ending else not_before


def _ended_by_ledger(touch: FoundTouch, facts: _Facts) -> list[str]:
    """Sentences on what the ledger will refuse when its turn comes."""
    words = []
    if facts.suppression is not None:
        words.append(f"{_suppressed(facts.suppression)} It ends as suppressed when its turn comes.")
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


def _suppressed(found: FoundSuppression) -> str:
    reason = found.reason.replace("_", " ")
    return f"{found.address} is suppressed since {_at(found.created_at)}: {reason} ({found.source})."


def _opens(touch: FoundTouch, after_ms: int, now: datetime) -> datetime | None:
    """When the campaign's hours open, if they are shut now, or at the earliest time that the touch could go."""
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


def _real_end(state: GateState, caps: Mapping[str, _WarmupCap], now: datetime) -> GateState:
    """Put in place of the end of a warmup's quota the time at which mail may leave again.

    The quota itself ends later, so that nothing is unlimited before the next day's cap is set: see `cap_quota`.
    """
    of = caps.get(state.gate.name)
    if of is None or state.gate.quota is None:
        return state
    quota = msgspec.structs.replace(state.gate.quota, until_ms=_ms(of.next_opening(now)))
    return msgspec.structs.replace(state, gate=msgspec.structs.replace(state.gate, quota=quota))


def _is_used_up(state: GateState) -> bool:
    quota = state.gate.quota
    return quota is not None and quota.left <= 0 and kind_of(state.gate.name) is GateKind.WARMUP


def _warmup_words(state: GateState, caps: Mapping[str, _WarmupCap], now: datetime) -> str:
    of = caps.get(state.gate.name)
    if of is None:
        return f"Gate {state.gate.name} is of a warmup that the settings no longer have."
    name, zone = of.identity.name, of.identity.zone
    there = f"{of.next_opening(now).astimezone(zone):%Y-%m-%d %H:%M} in {zone.key}"
    if of.cap.paused_until is not None and of.cap.paused_until > now:
        return f"The warmup of {name} is paused: mail may leave again at {there}."
    if of.opens(now) > now:
        return f"The warmup of {name} sends within its hours alone: they open at {there}."
    return f"The warmup of {name} has sent its cap of today: the next day's begins at {there}."


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def _at(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

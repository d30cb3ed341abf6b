"""Tells the whole story of one person or message: what waits and why, where the time went, and what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from msgspec import Struct

from postroad.app.context import AppContext
from postroad.errors import StateError, UnavailableError
from postroad.explain.cause import DelayCause
from postroad.explain.charge import Charge, total_ms
from postroad.explain.facts import TouchFacts, hashes_of, load_facts
from postroad.explain.hold import Situation, TouchHold, from_ms
from postroad.explain.holds import find_holds
from postroad.explain.hours import TouchHours
from postroad.explain.intervals import TouchPast, delay_of, load_pasts
from postroad.explain.subject import Subject, parse_subject, unknown_address
from postroad.explain.timeline import PersonRows, TimelineEntry, timeline
from postroad.explain.touch import has_worker, look_up, state_in_words
from postroad.queue import Queue
from postroad.store import person_history
from postroad.store.campaign import find_campaign
from postroad.store.engine import read
from postroad.store.enrolment import EnrolmentState
from postroad.store.ledger import LIVE, TouchState
from postroad.store.person_history import KnownEnrolment
from postroad.store.recipient import audience_ids
from postroad.store.touch_lookup import MAX_TOUCHES, FoundTouch, touches_by_ids, touches_of_recipient
from postroad.touch_search import queue_of_touch

MAX_EVENTS = 100
"""Events of a person that are listed, the newest ones."""


class MessageStory(Struct, frozen=True, kw_only=True):
    """One message to the person. ``variant``: None if its step has none, or it has not got one yet.

    ``waits``: it has not left, and nothing ended it. ``undecided``: it waits for a person's decision, as an unknown or
    dead one. ``words``: what its state means. ``earliest_at``: earliest time of sending; None: no time is known.
    ``earliest_local``: the same time in the recipient's time zone. ``delay_ms``: from when it was due until it was
    accepted or ended, or until now: the sum of ``delays``.
    """

    touch: int
    campaign: str
    step: str
    variant: str | None
    sender: str
    queue: str
    state: TouchState
    due_at: datetime
    ended_at: datetime | None
    zone: str
    waits: bool
    undecided: bool
    words: list[str]
    holds: list[TouchHold]
    earliest_at: datetime | None
    earliest_local: str | None
    delay_ms: int
    delays: list[Charge]


class EnrolmentStory(Struct, frozen=True, kw_only=True):
    """The person's way through one campaign with branches. ``due_at``: when its step is looked at; None: an email of
    it is under way, or it ended. ``why``: why it exited. ``entry``: the number of the person's entry.
    """

    campaign: str
    step: str
    state: EnrolmentState
    entered_at: datetime
    since: datetime
    due_at: datetime | None
    why: str | None
    goal_at: datetime | None
    entry: int = 1


class Story(Struct, frozen=True, kw_only=True):
    """Everything about one person, or about one message.

    ``recipient``: whether the address is one of a recipient; if not, only a suppression knows it. ``answer``: one
    sentence. ``queue_error``: why the queue could not be asked; None: it was. ``more``: only the newest messages are
    listed. ``deleted``: campaigns whose messages were deleted after their retention.
    """

    address: str
    recipient: bool
    suppressed: bool
    answer: str
    queue_error: str | None
    enrolments: list[EnrolmentStory]
    messages: list[MessageStory]
    more: bool
    deleted: list[str]
    timeline: list[TimelineEntry]


class LedgerStory(NamedTuple):
    """What the ledger has of the subject."""

    subject: Subject
    person: PersonRows
    touches: list[FoundTouch]
    more: bool
    facts: dict[int, TouchFacts]
    pasts: dict[int, TouchPast]
    deleted: list[str]
    timeline: list[TimelineEntry]


async def tell_story(context: AppContext, text: str, *, campaign: str | None = None) -> Story:
    """Explain a person's mail, or one message.

    Args:
        context: The application.
        text: An address, a Message-ID or the id of a touch.
        campaign: Only messages of this campaign. None: of all campaigns.

    Returns:
        The story. If the queue is unreachable, it is the ledger's part.

    Raises:
        UsageError: The text is not an address, a Message-ID of ours or an id.
        StateError: There is no such person, message or campaign.
        UnavailableError: The database is unreachable.
    """
    now = context.clock.now()

    def look() -> LedgerStory:
        with read(context.engine) as connection:
            return read_ledger(connection, context, text, campaign, now)

    ledger = await asyncio.to_thread(look)
    asked = [touch for touch in ledger.touches if needs_queue(touch)]
    situations, error = await _ask_queues(context, asked, ledger.facts, now)
    messages = [
        _message(
            touch,
            situations.get(touch.id) or Situation(touch, ledger.facts[touch.id], now, queue_of_touch(touch)),
            ledger.pasts[touch.id],
        )
        for touch in ledger.touches
    ]
    suppressed = bool(ledger.person.suppressions)
    return Story(
        address=ledger.subject.address,
        recipient=ledger.person.recipient is not None,
        suppressed=suppressed,
        enrolments=[EnrolmentStory(**enrolment._asdict()) for enrolment in ledger.person.enrolments],
        answer=answer_of(messages, ledger.person.enrolments, suppressed=suppressed, sure=error is None),
        queue_error=error,
        messages=messages,
        more=ledger.more,
        deleted=ledger.deleted,
        timeline=ledger.timeline,
    )


def needs_queue(touch: FoundTouch) -> bool:
    """Return whether the queue may know more of a touch than the ledger."""
    before_queue = (TouchState.WITHHELD, TouchState.AWAITING, TouchState.PLANNED)
    return touch.state in LIVE and touch.state not in before_queue


def read_ledger(
    connection: sa.Connection, context: AppContext, text: str, campaign: str | None, now: datetime
) -> LedgerStory:
    """Read what the ledger has of a person or a message.

    Args:
        connection: A connection in a transaction.
        context: The application.
        text: An address, a Message-ID or the id of a touch.
        campaign: Only messages of this campaign. None: of all campaigns.
        now: The time.

    Returns:
        What it has.

    Raises:
        UsageError: The text is not an address, a Message-ID of ours or an id.
        StateError: There is no such person, message or campaign.
    """
    campaign_id = find_campaign(connection, campaign).id if campaign is not None else None
    subject = parse_subject(connection, context, text)
    person = _person(connection, context, subject.address, campaign_id)
    if person.recipient is None and not person.suppressions and not person.lifted:
        error = unknown_address(connection, subject.address)
        raise StateError(error.message, remedy=error.remedy)
    found = _touches(connection, subject, person, campaign_id)
    touches = found[:MAX_TOUCHES]
    return LedgerStory(
        subject=subject,
        person=person,
        touches=touches,
        more=len(found) > MAX_TOUCHES,
        facts=load_facts(connection, context, touches),
        pasts=load_pasts(connection, context, touches, now),
        deleted=_deleted(connection, subject, person, campaign),
        timeline=timeline(connection, person, touches),
    )


def _person(connection: sa.Connection, context: AppContext, address: str, campaign_id: int | None) -> PersonRows:
    recipient = person_history.recipient_of_address(connection, address)
    keys = (address, f"@{address.rpartition('@')[2]}", *hashes_of(context, address))
    suppressions, lifted = person_history.suppressions_with_keys(connection, keys)
    names = {id_: name for name, id_ in audience_ids(connection).items()}
    if recipient is None or recipient.id is None:
        return PersonRows(None, [], suppressions, lifted, names)
    members = person_history.memberships(connection, recipient.id)
    events = person_history.newest_events_of_recipient(connection, recipient.id, MAX_EVENTS)
    enrolments = person_history.enrolments_of(connection, recipient.id, campaign_id)
    return PersonRows(recipient, members, suppressions, lifted, names, events, enrolments)


def _touches(
    connection: sa.Connection, subject: Subject, person: PersonRows, campaign_id: int | None
) -> list[FoundTouch]:
    if subject.touch_id is not None:
        found = touches_by_ids(connection, [subject.touch_id])
        if campaign_id not in (None, found[0].campaign_id):
            raise StateError(
                f"message {subject.touch_id} belongs to campaign {found[0].campaign}",
                remedy="Leave out --campaign, or give the recipient's address.",
            )
        return found
    if person.recipient is None or person.recipient.id is None:
        return []
    return touches_of_recipient(connection, person.recipient.id, campaign_id=campaign_id, limit=MAX_TOUCHES + 1)


def _deleted(connection: sa.Connection, subject: Subject, person: PersonRows, campaign: str | None) -> list[str]:
    if subject.touch_id is not None or not person.memberships:
        return []
    found = person_history.emptied_campaigns(connection, [member.audience_id for member in person.memberships])
    return [emptied.name for emptied in found if campaign in (None, emptied.name)]


async def _ask_queues(
    context: AppContext, touches: list[FoundTouch], facts: dict[int, TouchFacts], now: datetime
) -> tuple[dict[int, Situation], str | None]:
    """Return what queues have of touches, by their ids, and why a queue did not answer."""
    situations: dict[int, Situation] = {}
    workers: dict[str, tuple[Queue, bool]] = {}
    try:
        for touch in touches:
            name = queue_of_touch(touch)
            if name not in workers:
                queue = await context.queue(name)
                workers[name] = queue, await has_worker(queue)
            queue, alive = workers[name]
            situations[touch.id] = await look_up(queue, touch, facts[touch.id], worker_alive=alive)
    except UnavailableError as error:
        return situations, error.message
    return situations, None


def _message(touch: FoundTouch, situation: Situation, past: TouchPast) -> MessageStory:
    holds = find_holds(situation)
    waits = touch.state in LIVE
    earliest = earliest_of(situation, holds) if waits else None
    delays = delay_of(past, situation.now, situation.job)
    return MessageStory(
        touch=touch.id,
        campaign=touch.campaign,
        step=touch.step,
        variant=touch.variant,
        sender=touch.sender,
        queue=situation.queue,
        state=touch.state,
        due_at=touch.delayed_since,
        ended_at=touch.settled_at,
        zone=touch.zone,
        waits=waits,
        undecided=touch.state in (TouchState.UNKNOWN, TouchState.DEAD),
        words=state_in_words(touch),
        holds=holds,
        earliest_at=earliest,
        earliest_local=earliest.astimezone(ZoneInfo(touch.zone)).isoformat() if earliest else None,
        delay_ms=total_ms(delays),
        delays=delays,
    )


def earliest_of(situation: Situation, holds: list[TouchHold]) -> datetime | None:
    """Return the earliest time at which a waiting touch may leave. None: a hold has no known end."""
    if any(hold.until is None for hold in holds):
        return None
    touch, job = situation.touch, situation.job
    if job is not None and job.state is not None and situation.not_before_ms is None:
        return None
    not_before = from_ms(situation.not_before_ms) if situation.not_before_ms is not None else situation.now
    ends = [hold.until for hold in holds if hold.until is not None]
    after = max(situation.now, touch.leaves_at, not_before, *ends)
    hours = TouchHours.of(touch, situation.facts.shared.calendar)
    return after if hours is None else hours.opens(after)


def answer_of(
    messages: list[MessageStory], enrolments: Sequence[KnownEnrolment], *, suppressed: bool, sure: bool
) -> str:
    """Return one sentence on what waits. ``sure``: the queue was asked."""
    sending = [message for message in messages if any(hold.cause is DelayCause.SENDING for hold in message.holds)]
    waiting = [message for message in messages if message.waits and message not in sending]
    undecided = [message for message in messages if message.undecided]
    parts = []
    if waiting:
        count = f"{len(waiting):,} messages wait" if len(waiting) > 1 else "1 message waits"
        parts.append(f"{count}, {_until(waiting)}")
    if sending:
        parts.append(f"{len(sending):,} messages are being sent" if len(sending) > 1 else "1 message is being sent")
    if undecided:
        count = f"{len(undecided):,} messages need" if len(undecided) > 1 else "1 message needs"
        parts.append(f"{count} a decision ({', '.join(sorted({message.state.value for message in undecided}))})")
    steps = [one for one in enrolments if one.state is EnrolmentState.ACTIVE and one.due_at is not None]
    if steps:
        first = min(one.due_at for one in steps if one.due_at is not None)
        where = ", ".join(f"{one.step} of campaign {one.campaign}" for one in steps)
        parts.append(f"the person waits at {where}, until {first:%Y-%m-%d %H:%M:%S} UTC at the earliest")
    answer = "; ".join(parts) or "nothing is waiting"
    if suppressed:
        answer += "; the address is suppressed"
    return answer if sure else f"{answer}; the queue could not be asked"


def _until(waiting: list[MessageStory]) -> str:
    times = [message.earliest_at for message in waiting]
    known = [at for at in times if at is not None]
    if not known:
        return "without a known end"
    first = next(message for message in waiting if message.earliest_at == min(known))
    assert first.earliest_at is not None  # noqa: S101 - chosen by it
    local = first.earliest_at.astimezone(ZoneInfo(first.zone))
    return f"until {local:%Y-%m-%d %H:%M:%S} in {first.zone} ({min(known):%Y-%m-%d %H:%M:%S} UTC) at the earliest"

"""Tells what happened to a person's mail, in order of time: permission, suppression, attempts, what was returned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

import sqlalchemy as sa
from msgspec import Struct

from postroad.classify.classify import classify
from postroad.classify.statement import Speaker, Statement
from postroad.dns.providers import provider_table
from postroad.explain.cause import STATES
from postroad.explain.hold import utc
from postroad.mail.address_hash import is_hash
from postroad.printable import counted
from postroad.smtp.reply import Phase, parse_reply
from postroad.store import touch_history
from postroad.store.bounce import BounceEffectKind
from postroad.store.enrolment import EnrolmentState
from postroad.store.ledger import TouchState
from postroad.store.message_request import requests_of_touches
from postroad.store.person_history import KnownEnrolment, Membership
from postroad.store.recipient import Recipient
from postroad.store.recipient_event import KnownEvent
from postroad.store.suppression import LiftedSuppression, Suppression
from postroad.store.touch_history import ReturnedEffect, ReturnedMail, TouchEventRow
from postroad.store.touch_lookup import FoundTouch
from postroad.store.touches.sending import QUEUE_LOST


class TimelineKind(StrEnum):
    """What happened."""

    KNOWN = "known"  # the person was first imported
    JOINED = "joined"  # the first import of an audience that contained the person
    IMPORTED = "imported"  # the last import of an audience that contained the person
    EVENT = "event"  # the person did something
    SUPPRESSED = "suppressed"
    LIFTED = "lifted"
    ENTERED = "entered"  # the person entered a campaign with branches
    GOAL = "goal"  # the person reached its goal
    LEFT = "left"  # the person completed or exited it
    LAUNCHED = "launched"
    REQUESTED = "requested"  # a program requested the message
    DUE = "due"
    DECIDED = "decided"  # the message, which waited, got its variant
    OVERFLOW = "overflow"
    ATTEMPT = "attempt"
    RESOLVED = "resolved"
    UNSUBSCRIBED = "unsubscribed"
    REPLIED = "replied"
    COMPLAINED = "complained"
    RETURNED = "returned"  # a bounce message, a complaint, an automatic reply
    EFFECT = "effect"  # what a returned mail changed
    ENDED = "ended"  # without an event: suppressed, cancelled


class TimelineEntry(Struct, frozen=True, kw_only=True):
    """One thing that happened.

    ``touch``: id of the message; None: it concerns the person. ``words``: a sentence. The other fields belong to
    attempts: the state after it, its number, the receiver's codes and words, the cause, the party at fault, the time of
    the next attempt; and to attempts and returned mail: the rule of the classifier that decided.
    """

    at: datetime
    kind: TimelineKind
    words: str
    touch: int | None = None
    campaign: str | None = None
    step: str | None = None
    state: TouchState | None = None
    attempt: int | None = None
    reply_code: int | None = None
    enhanced_code: str | None = None
    reply: str | None = None
    cause: str | None = None
    blame: str | None = None
    next_at: datetime | None = None
    rule: str | None = None


EFFECTS: Final[Mapping[BounceEffectKind, str]] = {
    BounceEffectKind.TOUCH_BOUNCED: "The message counts as bounced",
    BounceEffectKind.TOUCH_ACCEPTED: "The message counts as accepted, because a server had taken it",
    BounceEffectKind.ADDRESS_SUPPRESSED: "The address was suppressed",
    BounceEffectKind.TOUCH_SUPPRESSED: "The message, which waited, ended as suppressed",
    BounceEffectKind.REPLIED: "The person counts as having replied",
    BounceEffectKind.TOUCH_CANCELLED: "The message ended as cancelled",
}
"""What each effect of a returned mail did, in words."""

_SPECIAL: Final[Mapping[str, tuple[TimelineKind, str]]] = {
    "unsubscribe": (TimelineKind.UNSUBSCRIBED, "The recipient unsubscribed"),
    "reply": (TimelineKind.REPLIED, "The recipient replied"),
    "complaint": (TimelineKind.COMPLAINED, "The recipient complained"),
    "resolved": (TimelineKind.RESOLVED, "A person settled it"),
    QUEUE_LOST: (TimelineKind.ENDED, "It is unknown whether it was sent"),
}
"""Events of the ledger that are no attempts, by their cause."""


class PersonRows(NamedTuple):
    """Rows of a person that belong to no touch. ``audiences``: names by id. ``events``: the newest ones."""

    recipient: Recipient | None
    memberships: Sequence[Membership]
    suppressions: Sequence[Suppression]
    lifted: Sequence[LiftedSuppression]
    audiences: Mapping[int, str]
    events: Sequence[KnownEvent] = ()
    enrolments: Sequence[KnownEnrolment] = ()


def timeline(connection: sa.Connection, person: PersonRows, touches: Sequence[FoundTouch]) -> list[TimelineEntry]:
    """Return what happened to a person and these touches, in order of time."""
    entries = [*_of_person(person), *_of_enrolments(person.enrolments), *_of_messages(touches)]
    ids = [touch.id for touch in touches]
    if ids:
        by_id = {touch.id: touch for touch in touches}
        events = touch_history.events_of_touches(connection, ids)
        entries += [_of_event(event, by_id[event.touch_id]) for event in events]
        entries += _ended(touches, events)
        for mail in touch_history.returned_mails(connection, ids):
            entries.append(_of_mail(mail, by_id[mail.touch_id]))
        for effect in touch_history.returned_effects(connection, ids):
            entries.append(_of_effect(effect, by_id[effect.touch_id]))
        for request in requests_of_touches(connection, ids).values():
            touch, what = by_id[request.touch_id], "a transactional message" if request.transactional else "it"
            words = f"API key {request.requested_by} requested {what}, with the idempotency key {request.key}."
            entries.append(_about(touch, request.created_at, TimelineKind.REQUESTED, words))
        for move in touch_history.sender_moves(connection, ids):
            words = f"Overflow gave it from sender {move.from_sender} to {move.sender}: {move.why}."
            entries.append(_about(by_id[move.touch_id], move.at, TimelineKind.OVERFLOW, words))
    order = list(TimelineKind)
    return sorted(entries, key=lambda entry: (entry.at, order.index(entry.kind)))


def _of_person(person: PersonRows) -> Iterator[TimelineEntry]:
    if person.recipient is not None:
        yield TimelineEntry(
            at=person.recipient.created_at, kind=TimelineKind.KNOWN, words="The address was first imported."
        )
    for member in person.memberships:
        ended = "" if member.finished_at is None else f", finished at {utc(member.finished_at)}"
        words = (
            f"In the import of {member.path} ({counted(member.rows, 'row')}{ended}) into audience {member.audience}."
        )
        yield TimelineEntry(at=member.started_at, kind=TimelineKind.IMPORTED, words=words)
        if member.joined_at is not None:
            words = f"Joined audience {member.audience}."
            yield TimelineEntry(at=member.joined_at, kind=TimelineKind.JOINED, words=words)
    for event in person.events:
        fields = ", ".join(f"{name} {value}" for name, value in event.fields.items())
        words = f"Event {event.name}{f' ({fields})' if fields else ''}."
        yield TimelineEntry(at=event.at, kind=TimelineKind.EVENT, words=words)
    for row in person.suppressions:
        words = f"{_suppressed(row, person)}: {_reason(row)}."
        yield TimelineEntry(at=row.created_at, kind=TimelineKind.SUPPRESSED, words=words)
    for past in person.lifted:
        words = f"{_suppressed(past, person)}: {_reason(past)}. It was lifted at {utc(past.lifted_at)}."
        yield TimelineEntry(at=past.created_at, kind=TimelineKind.SUPPRESSED, words=words)
        words = f"The suppression was lifted by {past.lifted_by}: {past.why}."
        yield TimelineEntry(at=past.lifted_at, kind=TimelineKind.LIFTED, words=words)


def _of_enrolments(enrolments: Sequence[KnownEnrolment]) -> Iterator[TimelineEntry]:
    for one in enrolments:
        again = f" again, entry {one.entry}" if one.entry > 1 else ""
        found = [(one.entered_at, TimelineKind.ENTERED, f"Entered campaign {one.campaign}{again}.")]
        if one.goal_at is not None:
            found.append((one.goal_at, TimelineKind.GOAL, f"Reached the goal of campaign {one.campaign}."))
        if one.state is not EnrolmentState.ACTIVE:
            why = f": {one.why}" if one.why else ""
            found.append((one.since, TimelineKind.LEFT, f"{one.state.capitalize()} at step {one.step}{why}."))
        for at, kind, words in found:
            yield TimelineEntry(at=at, kind=kind, words=words, campaign=one.campaign, step=one.step)


def _suppressed(row: Suppression | LiftedSuppression, person: PersonRows) -> str:
    subject = "The hash of the address" if is_hash(row.address) else row.address
    audience = person.audiences.get(row.audience_id, f"number {row.audience_id}")
    where = "everywhere" if row.audience_id == 0 else f"for audience {audience}"
    return f"{subject} was suppressed {where}"


def _reason(row: Suppression | LiftedSuppression) -> str:
    return f"{row.reason.replace('_', ' ')} ({row.source})"


def _about(touch: FoundTouch, at: datetime, kind: TimelineKind, words: str) -> TimelineEntry:
    return TimelineEntry(at=at, kind=kind, words=words, touch=touch.id, campaign=touch.campaign, step=touch.step)


def _of_messages(touches: Sequence[FoundTouch]) -> Iterator[TimelineEntry]:
    launched = {touch.campaign: touch for touch in touches if touch.launched_at is not None}
    for name, touch in launched.items():
        assert touch.launched_at is not None  # noqa: S101 - chosen by it
        yield TimelineEntry(
            at=touch.launched_at, kind=TimelineKind.LAUNCHED, words=f"Campaign {name} was launched.", campaign=name
        )
    for touch in touches:
        variant = f", with variant {touch.variant}" if touch.variant and touch.waited_until is None else ""
        yield _about(touch, touch.delayed_since, TimelineKind.DUE, f"Due, from sender {touch.sender}{variant}.")
        if touch.waited_until is not None:
            words = f"It got variant {touch.variant}, and may leave."
            yield _about(touch, touch.waited_until, TimelineKind.DECIDED, words)


def _ended(touches: Sequence[FoundTouch], events: Sequence[TouchEventRow]) -> Iterator[TimelineEntry]:
    """Yield the ends of touches that have no event of their own, such as cancelled ones."""
    recorded = {(event.touch_id, event.state) for event in events}
    for touch in touches:
        if touch.state.ended and touch.settled_at is not None and (touch.id, touch.state) not in recorded:
            values = {"at": "", "due": "", "reply": f": {touch.reply}" if touch.reply else "", "touch": touch.id}
            words = STATES[touch.state].sentence.format(**values)
            entry = _about(touch, touch.settled_at, TimelineKind.ENDED, words.replace(" It ended.", ""))
            yield entry


def _of_event(event: TouchEventRow, touch: FoundTouch) -> TimelineEntry:
    kind, words = _SPECIAL.get(event.cause or "", (TimelineKind.ATTEMPT, ""))
    said = f" {event.reply}" if event.reply else ""
    if words:
        words = f"{words}:{said}." if said else f"{words}."
    else:
        cause = f" ({event.cause})" if event.cause and event.cause != event.state else ""
        following = f" The next attempt is due at {utc(event.next_at)}." if event.next_at is not None else ""
        words = f"Attempt {event.attempt}: {event.state}{cause}.{said}{following}"
    return TimelineEntry(
        at=event.at,
        kind=kind,
        words=words,
        touch=touch.id,
        campaign=touch.campaign,
        step=touch.step,
        state=event.state,
        attempt=event.attempt,
        reply_code=event.reply_code,
        enhanced_code=event.enhanced_code,
        reply=event.reply,
        cause=event.cause,
        blame=event.blame,
        next_at=event.next_at,
        rule=rule_of(event, touch) if kind is TimelineKind.ATTEMPT else None,
    )


def rule_of(event: TouchEventRow, touch: FoundTouch) -> str | None:
    """Return the rule of the classifier that gave an event its cause.

    The ledger has the cause and not the rule, so the reply is classified again. None: the reply is positive, or no
    classification gives the recorded cause, as after an update of the rules.
    """
    if event.reply_code is None or event.reply_code < 400 or not event.reply:
        return None
    text = event.reply.removeprefix(str(event.reply_code)).strip()
    reply = parse_reply(Phase.RCPT, event.reply_code, [text])
    provider = touch.provider or provider_table().of_domain(touch.domain) or ""
    for speaker in Speaker:
        for phase in (Phase.RCPT, Phase.DOT, Phase.MAIL, Phase.DATA):
            classified = classify(
                Statement(
                    text=reply.text,
                    code=event.reply_code,
                    status=event.enhanced_code,
                    phase=phase,
                    speaker=speaker,
                    provider=provider if provider in provider_table().names else "",
                    recipient=touch.address,
                    senders=(touch.sender,),
                )
            )
            if (event.cause or "").startswith(classified.cause):
                return classified.rule
    return None


def _of_mail(mail: ReturnedMail, touch: FoundTouch) -> TimelineEntry:
    meaning = f"{mail.kind or 'mail'} by {mail.source}: {mail.verdict or 'no verdict'}"
    rule = f" (rule {mail.rule})" if mail.rule else ""
    words = f"A mail was returned, a {meaning}{rule}. It was matched by {mail.matched_by or 'an unknown way'}."
    return TimelineEntry(
        at=mail.received_at,
        kind=TimelineKind.RETURNED,
        words=words,
        touch=touch.id,
        campaign=touch.campaign,
        step=touch.step,
        cause=mail.verdict,
        rule=mail.rule,
    )


def _of_effect(effect: ReturnedEffect, touch: FoundTouch) -> TimelineEntry:
    words = EFFECTS[BounceEffectKind(effect.effect)]
    detail = f": {effect.detail}" if effect.detail else ""
    return _about(touch, effect.at, TimelineKind.EFFECT, f"{words}{detail}.")

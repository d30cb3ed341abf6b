"""Applies the action for one mail to its touch and recipient, within a transaction."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from msgspec import structs

from postroad.bounce.classify import ClassifiedRecipient
from postroad.bounce.policy import BounceAction, about_sender
from postroad.bounce.reply import RULE
from postroad.settings import UnsubscribeScope
from postroad.store.bounce import BounceEffectKind, MatchedTouch
from postroad.store.campaign import OnReply
from postroad.store.enrolments.changes import end_after_reply, exit_suppressed
from postroad.store.ledger import (
    TouchState,
    record_complaint,
    record_reply,
)
from postroad.store.outcome_event import insert_outcomes
from postroad.store.same_words import blame_sender_for, words_key
from postroad.store.suppression import SuppressionReason, suppress, upgrade_reason
from postroad.store.touches.ending import end_sequence_of, suppress_touches_of
from postroad.store.touches.results import record_returned
from postroad.store.unsubscribe import unsubscribe_touch

Effect = tuple[BounceEffectKind, int, str]
"""What a mail changed: the kind of the effect, the touch, and a detail."""


class EffectSource(NamedTuple):
    """The mail or event that causes effects, the source that received it, and the time of the effects."""

    digest: str
    source: str
    at: datetime


def apply_action(
    connection: sa.Connection,
    touch: MatchedTouch,
    action: BounceAction,
    judgement: ClassifiedRecipient,
    source: EffectSource,
    scope: UnsubscribeScope,
) -> tuple[ClassifiedRecipient, list[Effect]]:
    """Apply an action to a touch and its recipient.

    Args:
        connection: Transaction that holds the lock on the touch.
        touch: The matched touch.
        action: Changes to apply.
        judgement: Verdict that led to the action.
        source: The mail.
        scope: Scope of an unsubscribe.

    Returns:
        The final judgement, and the effects. The judgement is about the sender if many recipients got the same words.
    """
    words = words_key(touch.receiver, judgement.words) if judgement.words else None
    effects = _move_touch(connection, touch, action, judgement, source, words)
    if words is not None and blame_sender_for(connection, [words], source.at):
        judgement, action = about_sender(judgement), structs.replace(action, suppress=None)
    if action.replied:
        effects += _end_sequence(connection, touch, source)
    match action.suppress:
        case None:
            pass
        case SuppressionReason.UNSUBSCRIBE:
            effects += unsubscribe(connection, touch.id, source, scope)
        case reason:
            effects += _suppress(connection, touch, reason, source)
    return judgement, effects


def unsubscribe(
    connection: sa.Connection, touch_id: int, source: EffectSource, scope: UnsubscribeScope, *, deleted: bool = False
) -> list[Effect]:
    """Unsubscribe the recipient of a touch, as a one-click unsubscribe does.

    Args:
        connection: Transaction to write in.
        touch_id: The touch.
        source: The mail.
        scope: Scope of the unsubscribe.
        deleted: Whether the touch is deleted, so that no effect can refer to it.

    Returns:
        The effects.
    """
    reason = SuppressionReason.UNSUBSCRIBE.value
    result = unsubscribe_touch(connection, touch_id, f"by {source.source}, {source.digest[:16]}", source.at, scope)
    if result is None:
        return []
    is_new = result.suppressed and not deleted
    suppressed: list[Effect] = [(BounceEffectKind.ADDRESS_SUPPRESSED, touch_id, reason)] if is_new else []
    return suppressed + [(BounceEffectKind.TOUCH_SUPPRESSED, ended_id, reason) for ended_id in result.ended]


def _move_touch(
    connection: sa.Connection,
    touch: MatchedTouch,
    action: BounceAction,
    judgement: ClassifiedRecipient,
    source: EffectSource,
    words: str | None,
) -> list[Effect]:
    """Set the new state of the touch, and add a delivery event. ``words``: key of the words, see `store.same_words`."""
    reply = judgement.reported.diagnostic or judgement.rule
    if action.touch is None or not record_returned(connection, touch.id, action.touch, reply, source.at):
        return []
    _add_event(connection, touch, action, judgement, source, words)
    is_bounce = action.touch is TouchState.BOUNCED
    kind = BounceEffectKind.TOUCH_BOUNCED if is_bounce else BounceEffectKind.TOUCH_ACCEPTED
    return [(kind, touch.id, f"was {touch.state}: {judgement.rule}")]


def _suppress(
    connection: sa.Connection, touch: MatchedTouch, reason: SuppressionReason, source: EffectSource
) -> list[Effect]:
    origin = f"{source.source} {source.digest[:16]}, touch {touch.id}"
    is_new = suppress(connection, [touch.address], reason, origin, source.at)
    if reason is SuppressionReason.COMPLAINT:
        record_complaint(connection, touch.id, source.digest, source.at)
        upgrade_reason(connection, touch.address, reason, origin)
    effects: list[Effect] = [(BounceEffectKind.ADDRESS_SUPPRESSED, touch.id, reason.value)] if is_new else []
    ended = suppress_touches_of(connection, touch.recipient_id, source.at)
    exit_suppressed(connection, touch.recipient_id, source.at)
    return effects + [(BounceEffectKind.TOUCH_SUPPRESSED, ended_id, reason.value) for ended_id in ended]


def _end_sequence(connection: sa.Connection, touch: MatchedTouch, source: EffectSource) -> list[Effect]:
    record_reply(connection, touch.id, source.digest, source.at)
    effects: list[Effect] = [(BounceEffectKind.REPLIED, touch.id, RULE)]
    if touch.on_reply is OnReply.CONTINUE:
        return effects
    end_after_reply(connection, touch.recipient_id, touch.campaign_id, source.at)
    ended = end_sequence_of(connection, touch.campaign_id, touch.recipient_id, RULE, source.at)
    return effects + [(BounceEffectKind.TOUCH_CANCELLED, ended_id, RULE) for ended_id in ended]


def _add_event(
    connection: sa.Connection,
    touch: MatchedTouch,
    action: BounceAction,
    judgement: ClassifiedRecipient,
    source: EffectSource,
    words: str | None,
) -> None:
    """Add a row to the delivery events of the touch."""
    reported = judgement.reported
    values = {
        "uid": f"bounce:{source.digest}",
        "touch_id": touch.id,
        "state": action.touch,
        "at": source.at,
        "reply_code": reported.reply_code,
        "enhanced_code": reported.status,
        "reply": reported.diagnostic[:500] or None,
        "cause": f"bounced: {judgement.cause or judgement.rule}"[:100],
        "blame": action.blame,
        "words": words,
    }
    columns = {name: f":{name}" for name in values} | {"attempt": "0"}
    insert_outcomes(connection, columns, values, touch=":touch_id")

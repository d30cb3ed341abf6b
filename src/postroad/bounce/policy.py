"""Decides the action for a verdict: pure functions. `postroad.bounce.apply` applies the actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec
from msgspec import Struct

from postroad.bounce.classify import BounceClass, ClassifiedRecipient
from postroad.bounce.match import MatchedBy, same_mailbox
from postroad.bounce.report import Action, MailKind, ParsedMail, RecipientStatus
from postroad.errors import Blame
from postroad.store.ledger import TouchState
from postroad.store.same_words import SAME_WORDS
from postroad.store.suppression import SuppressionReason


class History(Struct, frozen=True, kw_only=True):
    """History of a recipient. ``soft_in_a_row``: consecutive soft bounces before this one, within the window."""

    soft_in_a_row: int = 0


class BounceAction(Struct, frozen=True, kw_only=True):
    """Changes that a mail causes.

    Attributes:
        touch: New state of the touch, if the transition is allowed. None: unchanged.
        blame: Party at fault for a bounce.
        suppress: Reason for a suppression of the recipient. None: no suppression.
        replied: Whether the recipient replied, which ends the sequence if the campaign is configured so.
    """

    touch: TouchState | None = None
    blame: Blame | None = None
    suppress: SuppressionReason | None = None
    replied: bool = False


_FAILURES = (BounceClass.HARD, BounceClass.SOFT, BounceClass.BLOCK)
NOTHING = BounceAction()
# A response from the receiving side implies that it accepted the message.
_ARRIVED = BounceAction(touch=TouchState.ACCEPTED)
REPLIED = BounceAction(touch=TouchState.ACCEPTED, replied=True)


def policy(
    history: History, judgement: ClassifiedRecipient, by: MatchedBy, *, soft_limit: int, act_on_unsigned: bool
) -> BounceAction:
    """Return the action for a verdict on a touch.

    Args:
        history: Earlier bounces of the recipient.
        judgement: Verdict on the recipient.
        by: How the touch was found.
        soft_limit: Number of consecutive soft bounces that suppresses a recipient.
        act_on_unsigned: Whether a mail without a valid token causes an action.

    Returns:
        The changes to apply.
    """
    if not by.signed and not act_on_unsigned:
        return NOTHING
    if by in (MatchedBy.REFERENCE, MatchedBy.REPLY) and judgement.verdict in (*_FAILURES, BounceClass.COMPLAINT):
        # The mail replies to a message and does not return it: a person forwarded a report on another message.
        return NOTHING
    match judgement.verdict:
        case BounceClass.HARD:
            return BounceAction(touch=TouchState.BOUNCED, blame=Blame.RECIPIENT, suppress=SuppressionReason.HARD_BOUNCE)
        case BounceClass.SOFT if judgement.final:
            # Only a known fault of the recipient counts. An unknown cause may be our own fault.
            fault = judgement.cause.fault if judgement.cause is not None else Blame.HOST
            suppress = fault is Blame.RECIPIENT and history.soft_in_a_row + 1 >= soft_limit
            return BounceAction(
                touch=TouchState.BOUNCED,
                blame=fault,
                suppress=SuppressionReason.SOFT_BOUNCE if suppress else None,
            )
        case BounceClass.BLOCK if judgement.final:
            return BounceAction(touch=TouchState.BOUNCED, blame=Blame.SENDER)
        case BounceClass.COMPLAINT:
            return BounceAction(touch=TouchState.ACCEPTED, suppress=SuppressionReason.COMPLAINT)
        case BounceClass.UNSUBSCRIBE:
            return BounceAction(touch=TouchState.ACCEPTED, suppress=SuppressionReason.UNSUBSCRIBE)
        case BounceClass.SOFT | BounceClass.BLOCK | BounceClass.AUTO_REPLY | BounceClass.CHALLENGE:
            return _ARRIVED
        case BounceClass.UNREADABLE:
            return NOTHING
        case BounceClass.UNRELATED:
            delivered = judgement.reported.action in (Action.DELIVERED, Action.RELAYED, Action.EXPANDED)
            return _ARRIVED if delivered else NOTHING
        case other:
            assert_never(other)


_MILDNESS = {verdict: rank for rank, verdict in enumerate((BounceClass.HARD, BounceClass.SOFT, BounceClass.BLOCK))}


def mildest(judgements: Sequence[ClassifiedRecipient]) -> ClassifiedRecipient:
    """Return the judgement with the least severe verdict."""
    return max(judgements, key=lambda judgement: _MILDNESS.get(judgement.verdict, len(_MILDNESS)))


def judgement_for(judgements: tuple[ClassifiedRecipient, ...], address: str, sender: str = "") -> ClassifiedRecipient:
    """Return the judgement that counts for the recipient of a touch: that on its address, or the mildest of all.

    A failure counts against an address only if the report names the address. Mail to a list or to a forwarded address
    fails for another address, while the recipient's own mailbox exists. A mail from the address proves the mailbox.

    Args:
        judgements: Judgements on all recipients of the report.
        address: Recipient of the touch.
        sender: From address of the report.

    Returns:
        The judgement, with a milder verdict if it is not about the address itself.
    """
    on_address = [
        judgement
        for judgement in judgements
        if any(same_mailbox(named, address) for named in judgement.reported.addresses)
    ]
    chosen = mildest(on_address or judgements)
    if chosen.verdict not in _FAILURES:
        return chosen
    if same_mailbox(sender, address):
        return msgspec.structs.replace(chosen, verdict=BounceClass.UNRELATED, rule="written from the address itself")
    if chosen.verdict is BounceClass.BLOCK or (on_address and not chosen.reported.inferred):
        return chosen
    rule = f"other address: {chosen.rule}"
    return msgspec.structs.replace(chosen, verdict=BounceClass.SOFT, cause=None, words="", rule=rule)


def about_sender(judgement: ClassifiedRecipient) -> ClassifiedRecipient:
    """Return the judgement on a failure with the same words for many recipients: the sender is at fault."""
    return msgspec.structs.replace(judgement, verdict=BounceClass.BLOCK, cause=None, rule=SAME_WORDS)


def unsubscribed(report: ParsedMail, judgements: tuple[ClassifiedRecipient, ...]) -> tuple[ClassifiedRecipient, ...]:
    """Return the judgement on a mail to the List-Unsubscribe address: an unsubscribe request, unless it is a report."""
    if report.kind in (MailKind.DSN, MailKind.BOUNCE, MailKind.FEEDBACK, MailKind.DISPOSITION):
        return judgements
    reported = RecipientStatus(address=report.sender or None)
    return (ClassifiedRecipient(reported=reported, verdict=BounceClass.UNSUBSCRIBE, rule="mail to List-Unsubscribe"),)

"""What follows from a verdict: pure decisions. Who carries them out is `postroad.bounce.effects`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec
from msgspec import Struct

from postroad.bounce.judge import BounceClass, Classified
from postroad.bounce.match import MatchedBy, same_mailbox
from postroad.bounce.report import Action, MailKind, ParsedMail, RecipientStatus
from postroad.errors import Blame
from postroad.store.ledger import TouchState
from postroad.store.same_words import SAME_WORDS
from postroad.store.suppression import SuppressionReason


class History(Struct, frozen=True, kw_only=True):
    """What is known of a recipient: how many of their touches bounced in a row before this one, within the window."""

    soft_in_a_row: int = 0


class BounceAction(Struct, frozen=True, kw_only=True):
    """What is to be done. ``touch``: the state that the touch goes to, as far as it may. None: nothing.

    ``replied``: the recipient answered, which ends the sequence for them where the campaign says so.
    """

    touch: TouchState | None = None
    blame: Blame | None = None
    suppress: SuppressionReason | None = None
    replied: bool = False


_OF_A_FAILURE = (BounceClass.HARD, BounceClass.SOFT, BounceClass.BLOCK)
NOTHING = BounceAction()
# Something came back from behind the wire, so the message was taken there.
_ARRIVED = BounceAction(touch=TouchState.ACCEPTED)
REPLIED = BounceAction(touch=TouchState.ACCEPTED, replied=True)


def policy(
    history: History, judgement: Classified, by: MatchedBy, *, soft_limit: int, act_on_unsigned: bool
) -> BounceAction:
    """What follows from a verdict on a touch. What nobody signed has no consequence, unless the operator wants it."""
    if not by.signed and not act_on_unsigned:
        return NOTHING
    if by in (MatchedBy.REFERENCE, MatchedBy.REPLY) and judgement.verdict in (*_OF_A_FAILURE, BounceClass.COMPLAINT):
        # It answers a message of ours and does not return one: a person forwarded a report about another message.
        return NOTHING
    match judgement.verdict:
        case BounceClass.HARD:
            return BounceAction(touch=TouchState.BOUNCED, blame=Blame.RECIPIENT, suppress=SuppressionReason.HARD_BOUNCE)
        case BounceClass.SOFT if judgement.final:
            # Only a known reason that lies in the mailbox counts: what nobody explains may be ours.
            fault = judgement.cause.fault if judgement.cause is not None else Blame.HOST
            enough = fault is Blame.RECIPIENT and history.soft_in_a_row + 1 >= soft_limit
            return BounceAction(
                touch=TouchState.BOUNCED,
                blame=fault,
                suppress=SuppressionReason.SOFT_BOUNCE if enough else None,
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


_WEIGHT = {verdict: place for place, verdict in enumerate((BounceClass.HARD, BounceClass.SOFT, BounceClass.BLOCK))}


def mildest(judgements: Sequence[Classified]) -> Classified:
    """Return the judgement with the least consequences."""
    return max(judgements, key=lambda one: _WEIGHT.get(one.verdict, len(_WEIGHT)))


def judgement_for(judgements: tuple[Classified, ...], address: str, sender: str = "") -> Classified:
    """Return the judgement that counts for the address that we wrote to: that on the address itself, or the mildest.

    A failure counts against an address only if the report names it. Mail to a list, or to an address that is forwarded,
    fails for another address: that one may be gone, and ours is there. Who writes from the address has it.

    Args:
        judgements: One for each recipient that the report names.
        address: Recipient of the touch.
        sender: From address of the report.
    """
    own = [one for one in judgements if any(same_mailbox(named, address) for named in one.reported.addresses)]
    found = mildest(own or judgements)
    if found.verdict not in _OF_A_FAILURE:
        return found
    if same_mailbox(sender, address):
        return msgspec.structs.replace(found, verdict=BounceClass.UNRELATED, rule="written from the address itself")
    if found.verdict is BounceClass.BLOCK or (own and not found.reported.inferred):
        return found
    rule = f"other address: {found.rule}"
    return msgspec.structs.replace(found, verdict=BounceClass.SOFT, cause=None, words="", rule=rule)


def about_sender(judgement: Classified) -> Classified:
    """Return the judgement on a failure whose words many recipients got."""
    return msgspec.structs.replace(judgement, verdict=BounceClass.BLOCK, cause=None, rule=SAME_WORDS)


def unsubscribed(report: ParsedMail, judgements: tuple[Classified, ...]) -> tuple[Classified, ...]:
    """A mail to the address of List-Unsubscribe is that wish, whatever its text says, unless it is a report."""
    if report.kind in (MailKind.DSN, MailKind.BOUNCE, MailKind.FEEDBACK, MailKind.DISPOSITION):
        return judgements
    reported = RecipientStatus(address=report.sender or None)
    return (Classified(reported=reported, verdict=BounceClass.UNSUBSCRIBE, rule="mail to List-Unsubscribe"),)

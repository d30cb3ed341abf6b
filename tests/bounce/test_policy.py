"""What follows from each verdict, decided without any server."""

from __future__ import annotations

import pytest

from postroad.bounce.classify import BounceClass, ClassifiedRecipient
from postroad.bounce.match import MatchedBy
from postroad.bounce.policy import NOTHING, BounceAction, History, judgement_for, policy
from postroad.bounce.report import Action, RecipientStatus
from postroad.classify.cause import Cause
from postroad.errors import Blame
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason

ARRIVED = BounceAction(touch=TouchState.ACCEPTED)


def _judgement(
    verdict: BounceClass, *, address: str = "ada@example.org", final: bool = True, **fields: object
) -> ClassifiedRecipient:
    reported = RecipientStatus(address=address, action=fields.get("action"))  # type: ignore[arg-type]
    cause: Cause | None = fields.get("cause")  # type: ignore[assignment]
    return ClassifiedRecipient(reported=reported, verdict=verdict, rule="a rule", final=final, cause=cause)


def _policy(judgement: ClassifiedRecipient, *, soft: int = 0, by: MatchedBy = MatchedBy.RETURN_PATH) -> BounceAction:
    return policy(History(soft_in_a_row=soft), judgement, by, soft_limit=3, act_on_unsigned=False)


@pytest.mark.parametrize(
    ("judgement", "soft", "consequence"),
    [
        (
            _judgement(BounceClass.HARD),
            0,
            BounceAction(touch=TouchState.BOUNCED, blame=Blame.RECIPIENT, suppress=SuppressionReason.HARD_BOUNCE),
        ),
        (_judgement(BounceClass.SOFT), 99, BounceAction(touch=TouchState.BOUNCED, blame=Blame.HOST)),
        (
            _judgement(BounceClass.SOFT, cause=Cause.MAILBOX_FULL),
            1,
            BounceAction(touch=TouchState.BOUNCED, blame=Blame.RECIPIENT),
        ),
        (
            _judgement(BounceClass.SOFT, cause=Cause.MAILBOX_FULL),
            2,
            BounceAction(touch=TouchState.BOUNCED, blame=Blame.RECIPIENT, suppress=SuppressionReason.SOFT_BOUNCE),
        ),
        (_judgement(BounceClass.SOFT, final=False), 99, ARRIVED),
        (_judgement(BounceClass.BLOCK), 99, BounceAction(touch=TouchState.BOUNCED, blame=Blame.SENDER)),
        (
            _judgement(BounceClass.COMPLAINT),
            0,
            BounceAction(touch=TouchState.ACCEPTED, suppress=SuppressionReason.COMPLAINT),
        ),
        (
            _judgement(BounceClass.UNSUBSCRIBE),
            0,
            BounceAction(touch=TouchState.ACCEPTED, suppress=SuppressionReason.UNSUBSCRIBE),
        ),
        (_judgement(BounceClass.AUTO_REPLY), 99, ARRIVED),
        (_judgement(BounceClass.CHALLENGE), 99, ARRIVED),
        (_judgement(BounceClass.UNRELATED), 99, NOTHING),
        (_judgement(BounceClass.UNRELATED, action=Action.DELIVERED), 99, ARRIVED),
    ],
)
def test_each_verdict_has_its_consequence(judgement: ClassifiedRecipient, soft: int, consequence: BounceAction) -> None:
    assert _policy(judgement, soft=soft) == consequence


@pytest.mark.parametrize("by", [MatchedBy.REFERENCE, MatchedBy.REPLY])
@pytest.mark.parametrize("verdict", [BounceClass.HARD, BounceClass.SOFT, BounceClass.BLOCK])
def test_a_failure_that_only_answers_a_message_of_ours_has_none(verdict: BounceClass, by: MatchedBy) -> None:
    assert _policy(_judgement(verdict, cause=Cause.MAILBOX_FULL), soft=99, by=by) == NOTHING


@pytest.mark.parametrize("verdict", BounceClass)
def test_a_mail_without_a_token_has_no_effect(verdict: BounceClass) -> None:
    assert _policy(_judgement(verdict), soft=99, by=MatchedBy.RECIPIENT) == NOTHING


def test_only_a_judgement_on_our_own_address_counts_against_it() -> None:
    hard = _judgement(BounceClass.HARD, address="one@x.example", cause=Cause.NO_MAILBOX)
    full = _judgement(BounceClass.SOFT, address="two@x.example", cause=Cause.MAILBOX_FULL)
    block = _judgement(BounceClass.BLOCK, address="three@x.example")
    assert judgement_for((hard, full), "one@x.example") is hard
    assert judgement_for((hard, block), "ada@example.org") is block
    for judgements in ((hard, full), (hard,), (full,)):
        found = judgement_for(judgements, "ada@example.org")
        assert (found.verdict, found.cause) == (BounceClass.SOFT, None)
        assert _policy(found, soft=99) == BounceAction(touch=TouchState.BOUNCED, blame=Blame.HOST)


def test_an_address_that_the_report_does_not_name_itself_is_no_evidence() -> None:
    reported = RecipientStatus(address="ada@example.org", inferred=True)
    hard = ClassifiedRecipient(reported=reported, verdict=BounceClass.HARD, rule="a rule")
    assert judgement_for((hard,), "ada@example.org").verdict is BounceClass.SOFT


def test_a_failure_written_from_the_address_itself_has_none() -> None:
    found = judgement_for((_judgement(BounceClass.HARD),), "ada@example.org", sender="Ada@example.org")
    assert _policy(found) == NOTHING

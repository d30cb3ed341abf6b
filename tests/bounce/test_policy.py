"""What follows from each verdict, decided without any server."""

from __future__ import annotations

import pytest

from postroad.bounce.judge import Judgement, Verdict
from postroad.bounce.match import MatchedBy
from postroad.bounce.policy import NOTHING, Consequence, History, judgement_for, policy
from postroad.bounce.report import Action, Reported
from postroad.classify.cause import Cause
from postroad.errors import Blame
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason

ARRIVED = Consequence(touch=TouchState.ACCEPTED)


def _judged(verdict: Verdict, *, address: str = "ada@example.org", final: bool = True, **told: object) -> Judgement:
    reported = Reported(address=address, action=told.get("action"))  # type: ignore[arg-type]
    cause: Cause | None = told.get("cause")  # type: ignore[assignment]
    return Judgement(reported=reported, verdict=verdict, rule="a rule", final=final, cause=cause)


def _policy(judgement: Judgement, *, soft: int = 0, by: MatchedBy = MatchedBy.RETURN_PATH) -> Consequence:
    return policy(History(soft_in_a_row=soft), judgement, by, soft_limit=3, act_on_unsigned=False)


@pytest.mark.parametrize(
    ("judgement", "soft", "consequence"),
    [
        (
            _judged(Verdict.HARD),
            0,
            Consequence(touch=TouchState.BOUNCED, blame=Blame.RECIPIENT, suppress=SuppressionReason.HARD_BOUNCE),
        ),
        (_judged(Verdict.SOFT), 99, Consequence(touch=TouchState.BOUNCED, blame=Blame.HOST)),
        (
            _judged(Verdict.SOFT, cause=Cause.MAILBOX_FULL),
            1,
            Consequence(touch=TouchState.BOUNCED, blame=Blame.RECIPIENT),
        ),
        (
            _judged(Verdict.SOFT, cause=Cause.MAILBOX_FULL),
            2,
            Consequence(touch=TouchState.BOUNCED, blame=Blame.RECIPIENT, suppress=SuppressionReason.SOFT_BOUNCE),
        ),
        (_judged(Verdict.SOFT, final=False), 99, ARRIVED),
        (_judged(Verdict.BLOCK), 99, Consequence(touch=TouchState.BOUNCED, blame=Blame.SENDER)),
        (
            _judged(Verdict.COMPLAINT),
            0,
            Consequence(touch=TouchState.ACCEPTED, suppress=SuppressionReason.COMPLAINT),
        ),
        (
            _judged(Verdict.UNSUBSCRIBE),
            0,
            Consequence(touch=TouchState.ACCEPTED, suppress=SuppressionReason.UNSUBSCRIBE),
        ),
        (_judged(Verdict.AUTO_REPLY), 99, ARRIVED),
        (_judged(Verdict.CHALLENGE), 99, ARRIVED),
        (_judged(Verdict.UNRELATED), 99, NOTHING),
        (_judged(Verdict.UNRELATED, action=Action.DELIVERED), 99, ARRIVED),
    ],
)
def test_each_verdict_has_its_consequence(judgement: Judgement, soft: int, consequence: Consequence) -> None:
    assert _policy(judgement, soft=soft) == consequence


@pytest.mark.parametrize("by", [MatchedBy.REFERENCE, MatchedBy.REPLY])
@pytest.mark.parametrize("verdict", [Verdict.HARD, Verdict.SOFT, Verdict.BLOCK])
def test_a_failure_that_only_answers_a_message_of_ours_has_none(verdict: Verdict, by: MatchedBy) -> None:
    assert _policy(_judged(verdict, cause=Cause.MAILBOX_FULL), soft=99, by=by) == NOTHING


@pytest.mark.parametrize("verdict", Verdict)
def test_what_nobody_signed_has_none(verdict: Verdict) -> None:
    assert _policy(_judged(verdict), soft=99, by=MatchedBy.RECIPIENT) == NOTHING


def test_only_a_judgement_on_our_own_address_counts_against_it() -> None:
    hard = _judged(Verdict.HARD, address="one@x.example", cause=Cause.NO_MAILBOX)
    full = _judged(Verdict.SOFT, address="two@x.example", cause=Cause.MAILBOX_FULL)
    block = _judged(Verdict.BLOCK, address="three@x.example")
    assert judgement_for((hard, full), "one@x.example") is hard
    assert judgement_for((hard, block), "ada@example.org") is block
    for judgements in ((hard, full), (hard,), (full,)):
        found = judgement_for(judgements, "ada@example.org")
        assert (found.verdict, found.cause) == (Verdict.SOFT, None)
        assert _policy(found, soft=99) == Consequence(touch=TouchState.BOUNCED, blame=Blame.HOST)


def test_an_address_that_the_report_does_not_name_itself_is_no_evidence() -> None:
    reported = Reported(address="ada@example.org", inferred=True)
    hard = Judgement(reported=reported, verdict=Verdict.HARD, rule="a rule")
    assert judgement_for((hard,), "ada@example.org").verdict is Verdict.SOFT


def test_a_failure_written_from_the_address_itself_has_none() -> None:
    found = judgement_for((_judged(Verdict.HARD),), "ada@example.org", sender="Ada@example.org")
    assert _policy(found) == NOTHING

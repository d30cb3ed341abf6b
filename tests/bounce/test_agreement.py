"""A reply means the same as an SMTP reply and in a bounce mail that quotes it."""

from __future__ import annotations

import pytest

from postroad.bounce.classify import BounceClass, classify_recipients
from postroad.bounce.parse import parse_mail
from postroad.delivery.outcome import classify_reply
from postroad.errors import Blame
from postroad.smtp.reply import Phase, parse_reply
from tests.bounce import mails

REPLIES = [
    (BounceClass.HARD, Phase.RCPT, "550 5.1.1 The email account that you tried to reach does not exist. Please try"),
    (BounceClass.HARD, Phase.RCPT, "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)"),
    (
        BounceClass.HARD,
        Phase.DOT,
        "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
    ),
    (
        BounceClass.HARD,
        Phase.RCPT,
        "550 5.1.1 <ada@example.org>: Recipient address rejected: User unknown in relay table",
    ),
    (BounceClass.HARD, Phase.RCPT, "550 Requested action not taken: mailbox unavailable"),
    (BounceClass.SOFT, Phase.RCPT, "552 5.2.2 The email account that you tried to reach is over quota."),
    (BounceClass.SOFT, Phase.RCPT, "550 5.2.1 The email account that you tried to reach is disabled."),
    (BounceClass.SOFT, Phase.DOT, "550 5.7.129 RESOLVER.RST.RestrictedToRecipientsPermission; not accepted"),
    (BounceClass.SOFT, Phase.DOT, "552 5.3.4 Your message exceeded message size limits."),
    (BounceClass.BLOCK, Phase.DOT, "550 5.7.26 This mail has been blocked because it is unauthenticated."),
    (BounceClass.BLOCK, Phase.DOT, "550 5.7.25 The IP address sending this message does not have a PTR record"),
    (BounceClass.BLOCK, Phase.RCPT, "550 5.7.606 Access denied, banned sending IP [192.0.2.1]."),
    (
        BounceClass.BLOCK,
        Phase.DOT,
        "550 5.7.515 Access denied, sending domain example.com does not meet the required level",
    ),
    (BounceClass.BLOCK, Phase.MAIL, "550 SC-001 (BAY004) Mail rejected for policy reasons."),
    (BounceClass.BLOCK, Phase.DOT, "550 5.7.1 This message is likely unsolicited mail."),
    (BounceClass.BLOCK, Phase.RCPT, "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
]
COMMANDS = {Phase.MAIL: "MAIL FROM", Phase.RCPT: "RCPT TO", Phase.DOT: "end of DATA"}


@pytest.mark.parametrize(("verdict", "phase", "text"), REPLIES)
def test_a_reply_means_the_same_on_both_ways(verdict: BounceClass, phase: Phase, text: str) -> None:
    reply = parse_reply(phase, int(text[:3]), [text[4:]])
    outcome = classify_reply(reply, deferrals=0)
    assert outcome.suppress is (verdict is BounceClass.HARD)
    assert (outcome.blame is Blame.SENDER) is (verdict is BounceClass.BLOCK)
    said = f"{text} (in reply to {COMMANDS[phase]} command)"
    [judgement] = classify_recipients(parse_mail(mails.dsn(status=reply.enhanced or "5.0.0", diagnostic=said)))
    assert judgement.verdict is verdict

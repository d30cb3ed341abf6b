"""A reply means the same as an SMTP reply and in a bounce mail that quotes it."""

from __future__ import annotations

import pytest

from postroad.bounce.judge import Verdict, judge
from postroad.bounce.read import read_mail
from postroad.delivery.outcome import of_reply
from postroad.errors import Blame
from postroad.smtp.reply import Phase, parse_reply
from tests.bounce import mails

REPLIES = [
    (Verdict.HARD, Phase.RCPT, "550 5.1.1 The email account that you tried to reach does not exist. Please try"),
    (Verdict.HARD, Phase.RCPT, "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)"),
    (Verdict.HARD, Phase.DOT, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"),
    (Verdict.HARD, Phase.RCPT, "550 5.1.1 <ada@example.org>: Recipient address rejected: User unknown in relay table"),
    (Verdict.HARD, Phase.RCPT, "550 Requested action not taken: mailbox unavailable"),
    (Verdict.SOFT, Phase.RCPT, "552 5.2.2 The email account that you tried to reach is over quota."),
    (Verdict.SOFT, Phase.RCPT, "550 5.2.1 The email account that you tried to reach is disabled."),
    (Verdict.SOFT, Phase.DOT, "550 5.7.129 RESOLVER.RST.RestrictedToRecipientsPermission; not accepted"),
    (Verdict.SOFT, Phase.DOT, "552 5.3.4 Your message exceeded message size limits."),
    (Verdict.BLOCK, Phase.DOT, "550 5.7.26 This mail has been blocked because it is unauthenticated."),
    (Verdict.BLOCK, Phase.DOT, "550 5.7.25 The IP address sending this message does not have a PTR record"),
    (Verdict.BLOCK, Phase.RCPT, "550 5.7.606 Access denied, banned sending IP [192.0.2.1]."),
    (
        Verdict.BLOCK,
        Phase.DOT,
        "550 5.7.515 Access denied, sending domain example.com does not meet the required level",
    ),
    (Verdict.BLOCK, Phase.MAIL, "550 SC-001 (BAY004) Mail rejected for policy reasons."),
    (Verdict.BLOCK, Phase.DOT, "550 5.7.1 This message is likely unsolicited mail."),
    (Verdict.BLOCK, Phase.RCPT, "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
]
COMMANDS = {Phase.MAIL: "MAIL FROM", Phase.RCPT: "RCPT TO", Phase.DOT: "end of DATA"}


@pytest.mark.parametrize(("verdict", "phase", "text"), REPLIES)
def test_a_reply_means_the_same_on_both_ways(verdict: Verdict, phase: Phase, text: str) -> None:
    reply = parse_reply(phase, int(text[:3]), [text[4:]])
    outcome = of_reply(reply, deferrals=0)
    assert outcome.suppress is (verdict is Verdict.HARD)
    assert (outcome.blame is Blame.SENDER) is (verdict is Verdict.BLOCK)
    said = f"{text} (in reply to {COMMANDS[phase]} command)"
    [judgement] = judge(read_mail(mails.dsn(status=reply.enhanced or "5.0.0", diagnostic=said)))
    assert judgement.verdict is verdict

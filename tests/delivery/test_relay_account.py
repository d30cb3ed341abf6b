"""A relay that refuses our account holds the sender or the route, and ends no touch."""

from __future__ import annotations

import pytest

from postroad.classify.statement import Speaker
from postroad.delivery.outcome import classify_reply
from postroad.delivery.result import DeliveryVerdict, Pause
from postroad.smtp.reply import Phase, Reply, parse_reply

HOLDS_ROUTE = [
    # Amazon SES
    (Phase.DOT, "554 Message rejected: Sending paused for this account."),
    (Phase.DOT, "454 Throttling failure: Daily message quota exceeded."),
    (Phase.DOT, "454 Throttling failure: Maximum sending rate exceeded."),
    (Phase.DOT, "554 Message rejected: Configuration set does not exist"),
    (Phase.DOT, "554 Access denied: User `arn:aws:iam::1:user/a' is not authorized to perform `ses:SendRawEmail'"),
    # SendGrid, Mailgun, Postmark, Brevo
    (Phase.DOT, "451 Authentication failed: Maximum credits exceeded"),
    (Phase.RCPT, "550 Maximum credits exceeded"),
    (Phase.MAIL, "550 Unauthenticated senders not allowed"),
    (Phase.DOT, "421 Domain news.example is not allowed to send: Sandbox subdomains are for test purposes only."),
    (Phase.DOT, "554 Account disabled. Please contact support."),
    (Phase.MAIL, "550 Account suspended"),
    (Phase.DOT, "550 Your account is pending approval."),
    (Phase.DOT, "502 5.7.0 Your SMTP account is not yet activated"),
    (Phase.DOT, "525 5.7.13 Unauthorized IP address"),
    # A client that the relay does not know
    (Phase.RCPT, "550 5.7.1 Relaying denied. IP name lookup failed [192.0.2.1]"),
    (Phase.RCPT, "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access denied"),
    (Phase.RCPT, "550 5.7.1 Client does not have permissions to send"),
    # Google
    (
        Phase.DOT,
        "550 5.4.5 Daily user sending limit exceeded. For more information on Gmail sending limits go to https://x.example",
    ),
    (Phase.RCPT, "550 5.7.1 Daily SMTP relay limit exceeded for customer."),
    (Phase.RCPT, "550 5.7.1 Invalid credentials for relay [192.0.2.1]."),
    # Microsoft
    (
        Phase.DOT,
        "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; the sender's quota was exceeded.",
    ),
    (Phase.DOT, "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients"),
    (Phase.MAIL, "550 5.7.57 Client not authenticated to send mail."),
    (Phase.DOT, "550 5.7.705 Access denied, tenant has exceeded threshold"),
    (Phase.DOT, "550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP"),
    (Phase.RCPT, "550 5.7.64 TenantAttribution; Relay Access Denied"),
    # Any
    (Phase.MAIL, "530 5.7.0 Authentication required"),
    (Phase.RCPT, "530 5.7.1 Client was not authenticated"),
    (Phase.MAIL, "535 5.7.8 Error: authentication failed"),
    (Phase.RCPT, "554 5.7.1 <a@example.org>: Relay access denied"),
    (Phase.RCPT, "550 5.7.1 Message rate limit exceeded for your account"),
    (Phase.DOT, "550 5.7.0 The limit on the number of allowed outgoing messages was exceeded. Try again later."),
    (Phase.DOT, "552 5.7.1 Insufficient balance, please top up"),
    (Phase.MAIL, "552 5.2.2 Quota exceeded"),
]
HOLDS_SENDER = [
    (Phase.DOT, "554 Message rejected: Email address is not verified. Identities failed the check: a@b.example"),
    (Phase.DOT, "550 The from address does not match a verified Sender Identity."),
    (Phase.DOT, "550 Domain mg.example.com is not activated to send. Please activate your account."),
    (Phase.DOT, "550 The 'From' address you supplied (a@b.example) is not a Sender Signature on your account."),
    (Phase.DOT, "550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
    (Phase.DOT, "554 5.2.252 SendAsDenied; a@b.example not allowed to send as c@b.example"),
    (Phase.DOT, "550 5.7.750 Service unavailable. Client blocked from sending from unregistered domains"),
    (Phase.RCPT, "553 5.7.1 <a@b.example>: Sender address rejected: not owned by user c@b.example"),
    (Phase.RCPT, "553 5.7.1 <a@b.example>: Sender address rejected: not logged in"),
    (Phase.MAIL, "550 5.7.1 Sender domain is not verified"),
    (Phase.MAIL, "550 5.1.0 Sender refused"),
    (Phase.MAIL, "550 Rejected"),
]  # fmt: skip
NOT_THE_ACCOUNT = [
    (Phase.RCPT, "550 5.1.1 User unknown", DeliveryVerdict.BOUNCED, True),
    (Phase.RCPT, "550 5.7.1 No such user!", DeliveryVerdict.BOUNCED, True),
    (Phase.RCPT, "552 5.2.2 Mailbox full", DeliveryVerdict.BOUNCED, False),
    (Phase.RCPT, "550 5.2.1 Account disabled", DeliveryVerdict.BOUNCED, False),
    (Phase.DOT, "554 Transaction failed: Address blacklisted.", DeliveryVerdict.BOUNCED, False),
    (
        Phase.DOT,
        "550 You tried to send to recipient(s) that have been marked as inactive.",
        DeliveryVerdict.BOUNCED,
        False,
    ),
    (Phase.DOT, "552 5.3.4 Message size exceeds fixed limit", DeliveryVerdict.BOUNCED, False),
    (Phase.DOT, "550 5.7.1 Message contains spam or virus", DeliveryVerdict.DEAD, False),
    (Phase.DOT, "554 Transaction failed", DeliveryVerdict.DEAD, False),
]


def _reply(phase: Phase, said: str) -> Reply:
    return parse_reply(phase, int(said[:3]), [said[4:]])


@pytest.mark.parametrize(
    ("pause", "phase", "said"),
    [*((Pause.ROUTE, *row) for row in HOLDS_ROUTE), *((Pause.SENDER, *row) for row in HOLDS_SENDER)],
)
def test_a_refused_account_holds_and_ends_no_touch(pause: Pause, phase: Phase, said: str) -> None:
    outcome = classify_reply(_reply(phase, said), deferrals=0, speaker=Speaker.RELAY)
    assert (outcome.verdict, outcome.pause, outcome.suppress) == (DeliveryVerdict.DEFER, pause, False)


@pytest.mark.parametrize(("phase", "said", "verdict", "suppresses"), NOT_THE_ACCOUNT)
def test_what_is_not_about_the_account_ends_the_touch(
    phase: Phase, said: str, verdict: DeliveryVerdict, suppresses: bool
) -> None:
    outcome = classify_reply(_reply(phase, said), deferrals=0, speaker=Speaker.RELAY)
    assert (outcome.verdict, outcome.suppress) == (verdict, suppresses)
    assert outcome.pause is not Pause.SENDER


@pytest.mark.parametrize(
    "said", ["550 Daily limit exceeded at sender.example", "550 5.4.5 Quota of verified@unverified.example"]
)
def test_a_word_in_a_name_does_not_choose_what_is_held(said: str) -> None:
    assert classify_reply(_reply(Phase.DOT, said), deferrals=0, speaker=Speaker.RELAY).pause is Pause.ROUTE


@pytest.mark.parametrize(
    ("phase", "said"), [row for row in HOLDS_ROUTE + HOLDS_SENDER if row[1][:3] not in ("530", "535")]
)
def test_a_receiver_that_says_so_holds_no_route(phase: Phase, said: str) -> None:
    outcome = classify_reply(_reply(phase, said), deferrals=0)
    assert not outcome.suppress
    assert outcome.pause is not Pause.SENDER

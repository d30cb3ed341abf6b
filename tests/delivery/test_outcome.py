"""What servers of the world say, and what it means for a touch, its recipient and its sender.

The replies are in their own words, some shortened; the source of each group stands above it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.delivery.outcome import DEFERRAL_MS, MINUTE_MS, Outcome, Pause, Verdict, of_reply, of_transport
from postroad.errors import Blame
from postroad.smtp.reply import Phase, Reply, parse_reply
from postroad.smtp.session import TransportError


@dataclass(frozen=True)
class Meaning:
    """The parts of an outcome that decide what is done."""

    verdict: Verdict
    blame: Blame | None
    suppress: bool = False
    pause: Pause | None = None


ACCEPTED = Meaning(Verdict.ACCEPTED, None)
LATER = Meaning(Verdict.DEFER, Blame.HOST)
NOBODY = Meaning(Verdict.BOUNCED, Blame.RECIPIENT, suppress=True)
SOFT = Meaning(Verdict.BOUNCED, Blame.RECIPIENT)
TOO_BIG = Meaning(Verdict.BOUNCED, Blame.MESSAGE)
CONTENT = Meaning(Verdict.DEAD, Blame.MESSAGE)
UNAUTHENTICATED = Meaning(Verdict.DEAD, Blame.SENDER, pause=Pause.SENDER)
UNWANTED = Meaning(Verdict.DEAD, Blame.SENDER, pause=Pause.SENDER_AT_PROVIDER)
SENDER = Meaning(Verdict.DEAD, Blame.SENDER)
ROUTE = Meaning(Verdict.DEFER, Blame.US, pause=Pause.ROUTE)
PROTOCOL = Meaning(Verdict.RETRY, Blame.US)
NO_REASON = Meaning(Verdict.BOUNCED, Blame.HOST)

MAIL, RCPT, DATA, DOT = Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT

REPLIES: list[tuple[Meaning, Phase, str]] = [
    # Google: support.google.com/a/answer/3726730
    (ACCEPTED, DOT, "250 2.0.0 OK  1700000000 a1-2b.3 - gsmtp"),
    (LATER, DOT, "421-4.7.28 Gmail has detected an unusual rate of unsolicited mail\n421 4.7.28 rate limited. - gsmtp"),
    (LATER, DOT, "421-4.7.0 This message is suspicious due to the very low reputation of the sending IP\n421 4.7.0 x"),
    (LATER, DOT, "421 4.7.26 This mail has been rate limited because it is unauthenticated."),
    (LATER, RCPT, "450-4.2.1 The user you are trying to contact is receiving email too quickly.\n450 4.2.1 - gsmtp"),
    (LATER, RCPT, "452-4.2.2 The email account that you tried to reach is over quota.\n452 4.2.2 - gsmtp"),
    (NOBODY, RCPT, "550-5.1.1 The email account that you tried to reach does not exist. Please try\n550 5.1.1 - gsmtp"),
    (SOFT, RCPT, "550-5.2.1 The email account that you tried to reach is disabled.\n550 5.2.1 - gsmtp"),
    (SOFT, RCPT, "552-5.2.2 The email account that you tried to reach is over quota.\n552 5.2.2 - gsmtp"),
    (TOO_BIG, DOT, "552-5.3.4 Your message exceeded Google's message size limits.\n552 5.3.4 - gsmtp"),
    (CONTENT, DOT, "550-5.6.0 Mail message is malformed. Not accepted.\n550 5.6.0 - gsmtp"),
    (
        UNAUTHENTICATED,
        DOT,
        "550-5.7.26 This mail has been blocked because it is unauthenticated.\n550 5.7.26 x",
    ),
    (UNAUTHENTICATED, DOT, "550-5.7.25 The IP address sending this message does not have a PTR record\n550 5.7.25 x"),
    (UNAUTHENTICATED, DOT, "550-5.7.27 This mail has been blocked because SPF does not pass\n550 5.7.27 - gsmtp"),
    (UNAUTHENTICATED, DOT, "550-5.7.30 This mail has been blocked because DKIM does not pass\n550 5.7.30 - gsmtp"),
    (
        UNWANTED,
        DOT,
        "550-5.7.28 Gmail has detected an unusual rate of unsolicited mail\n550 5.7.28 - gsmtp",
    ),
    (UNWANTED, DOT, "550-5.7.1 Gmail has detected that this message is likely unsolicited mail.\n550 5.7.1 - gsmtp"),
    (UNWANTED, DOT, "552-5.7.0 This message was blocked because its content presents a potential\n552 5.7.0 security"),
    (ROUTE, RCPT, "550-5.4.5 Daily SMTP relay limit exceeded for user.\n550 5.4.5 - gsmtp"),
    (ROUTE, MAIL, "530-5.7.0 Authentication Required.\n530 5.7.0 - gsmtp"),
    (ROUTE, MAIL, "530-5.7.0 Must issue a STARTTLS command first.\n530 5.7.0 - gsmtp"),
    # Microsoft 365: learn.microsoft.com, "Email non-delivery reports and SMTP errors in Exchange Online"
    (LATER, RCPT, "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719) [X.prod.outlook.com]"),
    (LATER, RCPT, "421 4.3.2 The maximum number of concurrent server connections has exceeded a limit"),
    (LATER, DOT, "451 4.3.2 Temporary server error. Please try again later ATTR17"),
    (
        NOBODY,
        RCPT,
        "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)",
    ),
    (NOBODY, DOT, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"),
    (NOBODY, RCPT, "550 5.1.1 RESOLVER.ADR.RecipNotFound; not found"),
    (SOFT, DOT, "554 5.2.2 mailbox full; STOREDRV.Deliver; QuotaExceededException"),
    (SOFT, DOT, "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required"),
    (SOFT, DOT, "550 5.7.129 RESOLVER.RST.RestrictedToRecipientsPermission; not accepted from this sender"),
    (SENDER, MAIL, "550 5.1.8 Access denied, bad outbound sender AS(42003)"),
    (UNAUTHENTICATED, DOT, "550 5.7.509 Access denied, sending domain example.com does not pass DMARC verification"),
    (UNWANTED, RCPT, "550 5.7.606 Access denied, banned sending IP [192.0.2.1]. To request removal from this list"),
    (UNWANTED, DOT, "550 5.7.1 Service unavailable, Client host [192.0.2.1] blocked using Spamhaus"),
    # Outlook.com: sendersupport.olc.protection.outlook.com/pm/troubleshooting; spamresource.com, September 2023
    (LATER, MAIL, "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation."),
    (NOBODY, RCPT, "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302)."),
    (UNWANTED, MAIL, "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. (S3140)."),
    (UNAUTHENTICATED, DOT, "550 5.7.515 Access denied, sending domain example.com does not meet the required level"),
    (SENDER, MAIL, "550 SC-001 (BAY004) Mail rejected by Outlook.com for policy reasons."),
    # Yahoo and AOL: senders.yahooinc.com/smtp-error-codes
    (LATER, MAIL, "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume"),
    (LATER, MAIL, "421 Max message per connection reached, closing transmission channel"),
    (LATER, RCPT, "451 VS1-MF Excessive unknown recipients - possible Open Relay (#4.4.5)"),
    (LATER, RCPT, "450 User is receiving mail too quickly"),
    (
        NOBODY,
        DOT,
        "554 delivery error: dd This user doesn't have a yahoo.com account (ada@yahoo.com) [0]",
    ),
    (NOBODY, RCPT, "552 1 Requested mail action aborted, mailbox not found"),
    (
        SOFT,
        DOT,
        "554 delivery error: dd Sorry, your message cannot be delivered. This account is over quota.",
    ),
    (SOFT, RCPT, "554 30 Sorry, your message to ada@yahoo.com cannot be delivered. This mailbox is disabled (554.30)."),
    (
        UNWANTED,
        DOT,
        "554 5.7.9 Message not accepted for policy reasons. See https://postmaster.yahooinc.com/error-codes",
    ),
    (
        UNWANTED,
        MAIL,
        "553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1, because of Spamhaus's list",
    ),
    (SENDER, DOT, "554 Message not allowed - [PH01] Email not accepted for policy reasons."),
    # Apple: smtp.codes/icloud
    (LATER, RCPT, "421 4.7.1 Messages to ada@icloud.com deferred due to excessive volume. Try again later"),
    (LATER, RCPT, "450 4.2.2 <ada@icloud.com>: user is overquota"),
    (NOBODY, RCPT, "550 5.1.1 <ada@icloud.com>: user does not exist"),
    (UNWANTED, DOT, "550 5.7.1 [CS01] Message rejected due to local policy."),
    (UNWANTED, DOT, "554 5.7.1 [HM08] Message rejected due to local policy."),
    # GMX, web.de: postmaster.gmx.net/en/error-messages, smtp.codes/unitedinternet
    (LATER, MAIL, "421-Requested action not taken: mailbox unavailable\n421 For explanation visit postmaster.gmx.net"),
    (LATER, MAIL, "421 Rate limit reached. Please try again later"),
    (
        NOBODY,
        RCPT,
        "550-Requested action not taken: mailbox unavailable\n550 For explanation visit",
    ),
    (SENDER, MAIL, "550-Reject due to SPF policy. The originating IP is not permitted by the domain owner\n550 x"),
    (SENDER, DOT, "554-Transaction failed\n554-Reject due to policy restrictions.\n554 For explanation visit"),
    (SOFT, DOT, "552-Requested mail action aborted: exceeded storage allocation\n552 For explanation visit"),
    # Comcast: postmaster.comcast.net/smtp-error-codes.php
    (LATER, MAIL, "421 4.1.0 192.0.2.1 Throttled - try again later. See smtp-error-codes.php#RL000003"),
    (SENDER, MAIL, "550 5.1.0 Sender Denied - Please see smtp-error-codes.php#DM000001"),
    (SENDER, RCPT, "550 5.1.0 <news@example.com> sender rejected"),
    (NOBODY, RCPT, "550 5.1.1 Not our Customer"),
    # Postfix: src/smtpd/smtpd_check.c, src/smtpd/smtpd.c, src/local
    (ACCEPTED, DOT, "250 2.0.0 Ok: queued as 4XyZ1p2QrSz1"),
    (
        LATER,
        RCPT,
        "450 4.2.0 <ada@example.org>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch",
    ),
    (LATER, RCPT, "450 4.1.1 <ada@example.org>: Recipient address rejected: unverified address: connection timed out"),
    (LATER, RCPT, "450 4.1.8 <news@example.com>: Sender address rejected: Domain not found"),
    (LATER, MAIL, "452 4.3.1 Insufficient system storage"),
    (NOBODY, RCPT, "550 5.1.1 <ada@example.org>: Recipient address rejected: User unknown in virtual mailbox table"),
    (NOBODY, RCPT, "550 5.1.2 <ada@example.invalid>: Recipient address rejected: Domain not found"),
    (NOBODY, RCPT, "556 5.1.10 <ada@example.com>: Recipient address rejected: Domain example.com does not accept mail"),
    (NOBODY, RCPT, "501 5.1.3 Bad recipient address syntax"),
    (SENDER, MAIL, "501 5.1.7 Bad sender address syntax"),
    (SENDER, RCPT, "550 5.1.8 <news@example.com>: Sender address rejected: Domain not found"),
    (SENDER, RCPT, "550 <news@example.com>: Sender address rejected: Domain not found"),
    (TOO_BIG, MAIL, "552 5.3.4 Message size exceeds fixed limit"),
    (UNWANTED, RCPT, "554 5.7.1 <ada@example.org>: Relay access denied"),
    (UNWANTED, RCPT, "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"),
    (PROTOCOL, DATA, "503 5.5.1 Error: need RCPT command"),
    (PROTOCOL, DATA, "554 5.5.1 Error: no valid recipients"),
    # Exim: src/src/smtp_in.c, src/src/verify.c, the ACLs of its default configuration
    (ACCEPTED, DOT, "250 OK id=1rABcd-0000Ef-12"),
    (LATER, RCPT, "451 Temporary local problem - please try later"),
    (NOBODY, RCPT, "550 Unrouteable address"),
    (NOBODY, RCPT, "550 No such user here"),
    (NOBODY, RCPT, "550-Callout verification failed:\n550 550 5.1.1 <ada@example.org>: unknown user"),
    # …which is about the sender, although it speaks of an unknown user.
    (SENDER, RCPT, "550-Verification failed for <news@example.com>\n550-No Such User Here\n550 Sender verify failed"),
    (SENDER, RCPT, "550 relay not permitted"),
    (SENDER, RCPT, "550 Administrative prohibition"),
    (SENDER, DOT, "550 This message was classified as SPAM and may not be delivered"),
    (NO_REASON, RCPT, "550 Rejected"),
    # Sendmail: sendmail/srvrsmtp.c, sendmail/err.c, cf/README
    (ACCEPTED, DOT, "250 2.0.0 3AO4abcd012345 Message accepted for delivery"),
    (LATER, RCPT, "451 4.1.8 Domain of sender address news@example.com does not resolve"),
    (LATER, DATA, "452 4.4.5 Insufficient disk space; try again later"),
    (NOBODY, RCPT, "550 5.1.1 <ada@example.org>... User unknown"),
    (NOBODY, RCPT, "553 5.1.3 <ada@example.org>... Invalid host name"),
    (SENDER, MAIL, "553 5.1.8 <news@example.com>... Domain of sender address news@example.com does not exist"),
    (SENDER, MAIL, "553 Domain of sender address news@example.com does not exist"),
    (UNWANTED, RCPT, "550 5.7.1 <ada@example.org>... Relaying denied"),
    (TOO_BIG, DOT, "552 5.2.3 Message is too large; 10485760 bytes max"),
    (PROTOCOL, MAIL, '500 5.5.1 Command unrecognized: "XXXX"'),
    # qmail: qmail-smtpd.c, qmail-local.c; vpopmail's vdelivermail
    (ACCEPTED, DOT, "250 ok 1700000000 qp 12345"),
    (LATER, RCPT, "451 qq temporary problem (#4.3.0)"),
    (NOBODY, RCPT, "550 sorry, no mailbox here by that name. (#5.1.1)"),
    (NOBODY, RCPT, "511 sorry, no mailbox here by that name (#5.1.1 - chkuser)"),
    (SOFT, DOT, "552 sorry, that recipient is over quota (#5.2.2)"),
    (TOO_BIG, DOT, "552 sorry, that message size exceeds my databytes limit (#5.3.4)"),
    (UNWANTED, RCPT, "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
    (UNWANTED, MAIL, "553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)"),
    # Cisco Email Security (IronPort), User Guide for AsyncOS
    (NOBODY, RCPT, "550 #5.1.0 Address rejected."),
    (UNWANTED, DOT, "554 #5.7.1 Your access to this mail system has been rejected"),
]


def parsed(phase: Phase, said: str) -> Reply:
    lines = said.split("\n")
    return parse_reply(phase, int(lines[-1][:3]), [line[4:] for line in lines])


@pytest.mark.parametrize(("meaning", "phase", "said"), REPLIES, ids=[said[:60] for _, _, said in REPLIES])
def test_what_servers_say(meaning: Meaning, phase: Phase, said: str) -> None:
    outcome = of_reply(parsed(phase, said), deferrals=0)
    assert Meaning(outcome.verdict, outcome.blame, outcome.suppress, outcome.pause) == meaning
    assert outcome.cause


def test_the_table_covers_every_meaning() -> None:
    assert len(REPLIES) >= 60
    assert {said for _, _, said in REPLIES if said.count("\n")}
    assert {meaning.verdict for meaning, _, _ in REPLIES} >= set(Verdict) - {Verdict.UNKNOWN}
    assert {meaning.pause for meaning, _, _ in REPLIES} == {None, *Pause}


OPENING = (Phase.CONNECT, Phase.EHLO, Phase.TLS, Phase.AUTH)
TRANSACTION = (Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT)
TELLING = (
    "user unknown|no such mailbox|sender|recipient address rejected|policy|spam|over quota|full|disabled|dmarc|account"
    "|mailbox unavailable|does not exist|5.1.1|(#5.1.1)|(#5.7.1)|relay denied|inactive|daily limit"
)
WORDS = st.lists(st.sampled_from(TELLING.split("|")), max_size=5).map(" ".join)


@st.composite
def replies(draw: st.DrawFn, phases: tuple[Phase, ...], first: int, last: int) -> Reply:
    code = draw(st.integers(first, last))
    subject, detail = draw(st.integers(0, 7)), draw(st.integers(0, 999))
    enhanced = draw(st.sampled_from(["", f"{code // 100}.{subject}.{detail} "]))
    return parse_reply(draw(st.sampled_from(phases)), code, [enhanced + draw(st.one_of(WORDS, st.text(max_size=60)))])


@given(replies(tuple(Phase), 200, 599), st.integers(0, 50))
def test_every_reply_has_an_outcome_that_makes_sense(reply: Reply, deferrals: int) -> None:
    outcome = of_reply(reply, deferrals=deferrals)
    assert outcome.cause
    assert len(outcome.cause) <= 100
    assert (outcome.blame is None) is (outcome.verdict is Verdict.ACCEPTED)
    assert (outcome.verdict is Verdict.ACCEPTED) is (reply.phase is Phase.DOT and reply.code < 300)
    assert (outcome.delay_ms is not None) is (outcome.verdict is Verdict.DEFER)
    if outcome.suppress:
        assert outcome.blame is Blame.RECIPIENT
        assert outcome.verdict is Verdict.BOUNCED
        assert reply.phase in (Phase.RCPT, Phase.DATA, Phase.DOT)
    if outcome.pause in (Pause.SENDER, Pause.SENDER_AT_PROVIDER):
        assert outcome.blame is Blame.SENDER
    if outcome.verdict is Verdict.UNKNOWN:
        assert reply.phase is Phase.DOT


@given(replies(TRANSACTION, 400, 499), st.integers(0, 50))
def test_a_4xx_defers_by_the_schedule_and_does_no_harm(reply: Reply, deferrals: int) -> None:
    outcome = of_reply(reply, deferrals=deferrals)
    assert outcome.verdict is Verdict.DEFER
    assert not outcome.suppress
    assert outcome.pause is None
    assert outcome.delay_ms == DEFERRAL_MS[min(deferrals, len(DEFERRAL_MS) - 1)]


def test_the_schedule_is_that_of_rfc_5321() -> None:
    # §4.5.4.1: at least 30 minutes after the first failure, later two to three hours.
    assert DEFERRAL_MS[0] >= 30 * MINUTE_MS
    assert list(DEFERRAL_MS) == sorted(DEFERRAL_MS)
    assert 120 * MINUTE_MS <= DEFERRAL_MS[-1] <= 180 * MINUTE_MS


@given(st.sampled_from(TRANSACTION), st.integers(500, 599), st.integers(0, 999), st.one_of(WORDS, st.text(max_size=60)))
def test_5_7_never_suppresses(phase: Phase, code: int, detail: int, text: str) -> None:
    outcome = of_reply(parse_reply(phase, code, [f"5.7.{detail} {text}"]), deferrals=0)
    assert not outcome.suppress
    assert outcome.verdict is not Verdict.ACCEPTED


@given(replies((Phase.MAIL,), 400, 599))
def test_nothing_said_to_mail_is_held_against_the_recipient(reply: Reply) -> None:
    outcome = of_reply(reply, deferrals=0)
    assert outcome.blame is not Blame.RECIPIENT
    assert not outcome.suppress


@given(replies(OPENING, 400, 599), st.integers(0, 50))
def test_what_is_said_while_opening_is_about_the_route(reply: Reply, deferrals: int) -> None:
    outcome = of_reply(reply, deferrals=deferrals)
    assert (outcome.verdict, outcome.pause, outcome.suppress) == (Verdict.DEFER, Pause.ROUTE, False)


@pytest.mark.parametrize("phase", list(Phase))
def test_every_bare_code_has_an_outcome_and_hardly_any_suppresses(phase: Phase) -> None:
    outcomes = {code: of_reply(Reply(phase, code, None, ""), deferrals=0) for code in range(200, 600)}
    suppressing = {code for code, outcome in outcomes.items() if outcome.suppress}
    assert suppressing == ({556} if phase in (Phase.RCPT, Phase.DATA, Phase.DOT) else set())


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("unknown", [False, True])
def test_a_lost_connection(phase: Phase, unknown: bool) -> None:
    outcome = of_transport(TransportError(phase, "connection reset", unknown=unknown))
    assert isinstance(outcome, Outcome)
    assert not outcome.suppress
    if unknown:
        assert outcome.verdict is Verdict.UNKNOWN
    elif phase in OPENING:
        assert (outcome.verdict, outcome.pause) == (Verdict.DEFER, Pause.ROUTE)
        assert outcome.delay_ms is not None
    else:
        assert (outcome.verdict, outcome.delay_ms) == (Verdict.RETRY, None)

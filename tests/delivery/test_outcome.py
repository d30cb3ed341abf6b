"""What servers of the world say, and what it means for a touch, its recipient and its sender.

The replies stand in replies.toml, each group with its source.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.delivery.outcome import MINUTE_MS, RETRY_DELAYS_MS, classify_reply, classify_transport_error
from postroad.delivery.result import DeliveryResult, DeliveryVerdict, Pause
from postroad.errors import Blame
from postroad.smtp.errors import TransportError
from postroad.smtp.reply import Phase, Reply, parse_reply


@dataclass(frozen=True)
class Meaning:
    """The parts of an outcome that decide what is done."""

    verdict: DeliveryVerdict
    blame: Blame | None
    suppress: bool = False
    pause: Pause | None = None


ACCEPTED = Meaning(DeliveryVerdict.ACCEPTED, None)
LATER = Meaning(DeliveryVerdict.DEFER, Blame.HOST)
RECIPIENT_YET = Meaning(DeliveryVerdict.DEFER, Blame.RECIPIENT)
UNWANTED_YET = Meaning(DeliveryVerdict.DEFER, Blame.SENDER)
DEAD = Meaning(DeliveryVerdict.BOUNCED, Blame.RECIPIENT, suppress=True)
SOFT = Meaning(DeliveryVerdict.BOUNCED, Blame.RECIPIENT)
TOO_BIG = Meaning(DeliveryVerdict.BOUNCED, Blame.MESSAGE)
CONTENT = Meaning(DeliveryVerdict.DEAD, Blame.MESSAGE)
UNAUTHENTICATED = Meaning(DeliveryVerdict.DEAD, Blame.SENDER, pause=Pause.SENDER)
UNWANTED = Meaning(DeliveryVerdict.DEAD, Blame.SENDER, pause=Pause.SENDER_AT_PROVIDER)
SENDER = Meaning(DeliveryVerdict.DEAD, Blame.SENDER)
ROUTE = Meaning(DeliveryVerdict.DEFER, Blame.US, pause=Pause.ROUTE)
PROTOCOL = Meaning(DeliveryVerdict.RETRY, Blame.US)
NO_REASON = Meaning(DeliveryVerdict.BOUNCED, Blame.HOST)

MEANINGS = {
    "accepted": ACCEPTED,
    "later": LATER,
    "recipient_yet": RECIPIENT_YET,
    "unwanted_yet": UNWANTED_YET,
    "unauthenticated_yet": UNWANTED_YET,
    "nobody": DEAD,
    "soft": SOFT,
    "too_big": TOO_BIG,
    "content": CONTENT,
    "unauthenticated": UNAUTHENTICATED,
    "unwanted": UNWANTED,
    "sender": SENDER,
    "no_relay": SENDER,
    "route": ROUTE,
    "protocol": PROTOCOL,
    "no_reason": NO_REASON,
}
REPLIES: list[tuple[str, Phase, str]] = [
    (meaning, Phase(phase), said)
    for source in tomllib.loads(Path(__file__).with_name("replies.toml").read_text(encoding="utf-8"))["source"]
    for meaning, phase, said in source["replies"]
]


def parsed(phase: Phase, said: str) -> Reply:
    lines = said.split("\n")
    return parse_reply(phase, int(lines[-1][:3]), [line[4:] for line in lines])


@pytest.mark.parametrize(("meaning", "phase", "said"), REPLIES, ids=[said[:60] for _, _, said in REPLIES])
def test_what_servers_say(meaning: str, phase: Phase, said: str) -> None:
    outcome = classify_reply(
        parsed(phase, said), deferrals=0, provider="google" if meaning == "unauthenticated" else ""
    )
    assert Meaning(outcome.verdict, outcome.blame, outcome.suppress, outcome.pause) == MEANINGS[meaning]
    if meaning.startswith("unauthenticated") or "DMARC" in said:
        assert outcome.cause.startswith("sender authentication")


def test_the_table_covers_every_meaning() -> None:
    assert len(REPLIES) >= 130
    assert {said for _, _, said in REPLIES if said.count("\n")}
    assert {meaning for meaning, _, _ in REPLIES} == set(MEANINGS)
    assert {MEANINGS[meaning].verdict for meaning, _, _ in REPLIES} >= set(DeliveryVerdict) - {DeliveryVerdict.UNKNOWN}
    assert {MEANINGS[meaning].pause for meaning, _, _ in REPLIES} == {None, *Pause}


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
    outcome = classify_reply(reply, deferrals=deferrals)
    assert outcome.cause
    assert len(outcome.cause) <= 100
    assert (outcome.blame is None) is (outcome.verdict is DeliveryVerdict.ACCEPTED)
    assert (outcome.verdict is DeliveryVerdict.ACCEPTED) is (reply.phase is Phase.DOT and reply.code < 300)
    assert (outcome.delay_ms is not None) is (outcome.verdict is DeliveryVerdict.DEFER)
    if outcome.suppress:
        assert outcome.blame is Blame.RECIPIENT
        assert outcome.verdict is DeliveryVerdict.BOUNCED
        assert reply.phase in (Phase.RCPT, Phase.DATA, Phase.DOT)
    if outcome.pause in (Pause.SENDER, Pause.SENDER_AT_PROVIDER):
        assert outcome.blame is Blame.SENDER
    if outcome.verdict is DeliveryVerdict.UNKNOWN:
        assert reply.phase is Phase.DOT


@given(replies(TRANSACTION, 400, 499), st.integers(0, 50))
def test_a_4xx_defers_by_the_schedule_and_does_no_harm(reply: Reply, deferrals: int) -> None:
    outcome = classify_reply(reply, deferrals=deferrals)
    assert outcome.verdict is DeliveryVerdict.DEFER
    assert not outcome.suppress
    assert outcome.pause is None
    assert outcome.delay_ms == RETRY_DELAYS_MS[min(deferrals, len(RETRY_DELAYS_MS) - 1)]


def test_the_schedule_is_that_of_rfc_5321() -> None:
    # §4.5.4.1: at least 30 minutes after the first failure, later two to three hours.
    assert RETRY_DELAYS_MS[0] >= 30 * MINUTE_MS
    assert list(RETRY_DELAYS_MS) == sorted(RETRY_DELAYS_MS)
    assert 120 * MINUTE_MS <= RETRY_DELAYS_MS[-1] <= 180 * MINUTE_MS


ABOUT_THE_SENDER = [
    "sender",
    "spf",
    "dkim",
    "dmarc",
    "blacklisted",
    "spam",
    "policy",
    "rate limit",
    "quota exceeded",
    "too many connections",
    "access denied",
    "blocked",
    "try again later",
    "too large",
    "relaying denied",
    "your ip",
    "virus",
    "not allowed",
    "suspended",
    "mailbox full",
    "reputation",
    "throttled",
    "reverse dns",
]
HARD_WORDS = ["user unknown", "no such user", "mailbox not found", "does not exist", "unknown recipient", ""]


@given(
    st.sampled_from(TRANSACTION),
    st.integers(400, 599),
    st.sampled_from(["", "5.1.1 ", "5.1.2 ", "5.7.1 ", "5.1.0 ", "5.2.1 ", "5.1.90 ", "5.4.1 "]),
    st.permutations(["{sender}", "{hard}", "message", "host"]),
    st.sampled_from(ABOUT_THE_SENDER),
    st.sampled_from(HARD_WORDS),
    st.sampled_from([" ", ", ", ": ", "; ", " - ", " or "]),
)
def test_no_text_about_the_sender_suppresses(
    phase: Phase, code: int, status: str, order: list[str], sender: str, hard: str, between: str
) -> None:
    text = between.join(order).format(sender=sender, hard=hard)
    assert not classify_reply(parse_reply(phase, code, [status + text]), deferrals=0).suppress


def test_unmistakable_words_beat_a_code_of_policy() -> None:
    outcome = classify_reply(parse_reply(Phase.RCPT, 550, ["5.7.1 No such user!"]), deferrals=0)
    assert (outcome.verdict, outcome.suppress, outcome.pause) == (DeliveryVerdict.BOUNCED, True, None)


@given(replies((Phase.MAIL,), 400, 599))
def test_nothing_said_to_mail_is_held_against_the_recipient(reply: Reply) -> None:
    outcome = classify_reply(reply, deferrals=0)
    assert outcome.blame is not Blame.RECIPIENT
    assert not outcome.suppress


@given(replies(OPENING, 400, 599), st.integers(0, 50))
def test_what_is_said_while_opening_is_about_the_route(reply: Reply, deferrals: int) -> None:
    outcome = classify_reply(reply, deferrals=deferrals)
    assert (outcome.verdict, outcome.pause, outcome.suppress) == (DeliveryVerdict.DEFER, Pause.ROUTE, False)


@pytest.mark.parametrize("phase", list(Phase))
def test_every_bare_code_has_an_outcome_and_hardly_any_suppresses(phase: Phase) -> None:
    outcomes = {code: classify_reply(Reply(phase, code, None, ""), deferrals=0) for code in range(200, 600)}
    suppressing = {code for code, outcome in outcomes.items() if outcome.suppress}
    assert suppressing == ({556} if phase in (Phase.RCPT, Phase.DATA, Phase.DOT) else set())


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("unknown", [False, True])
def test_a_lost_connection(phase: Phase, unknown: bool) -> None:
    outcome = classify_transport_error(TransportError(phase, "connection reset", unknown=unknown))
    assert isinstance(outcome, DeliveryResult)
    assert not outcome.suppress
    if unknown:
        assert outcome.verdict is DeliveryVerdict.UNKNOWN
    elif phase in OPENING:
        assert (outcome.verdict, outcome.pause) == (DeliveryVerdict.DEFER, Pause.ROUTE)
        assert outcome.delay_ms is not None
    else:
        assert (outcome.verdict, outcome.delay_ms) == (DeliveryVerdict.RETRY, None)


@pytest.mark.parametrize(
    "text", ["550 5.7.64 TenantAttribution; Relay Access Denied", "554 5.7.1 <kim@example.net>: Relay access denied"]
)
def test_a_receiver_without_the_domain_pauses_no_sender(text: str) -> None:
    reply = parse_reply(Phase.RCPT, int(text[:3]), [text[4:]])
    assert classify_reply(reply, deferrals=0, provider="office365").pause is None

"""An inbound mail changes the store once, in one transaction, and only if a valid token matches it to a touch."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.bounce.classify import BounceClass
from postroad.bounce.match import MatchedBy
from postroad.bounce.report import Envelope
from postroad.mail.token import PROOFS, Purpose, TokenSigner
from postroad.queue import Event, EventKind
from postroad.settings import BounceSettings
from postroad.store.bounce import forget_raw, mails_to_empty, raw_of, verdict_counts
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState, delivery_events
from tests.bounce import mails
from tests.bounce.ledger import LedgerFixture
from tests.store.rows import NOW

DAY = timedelta(days=1)


def test_a_hard_bounce_ends_the_touch_suppresses_the_address_and_what_waits_for_it(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    touch, waits, other = ledger.touch(ada), ledger.touch(ada, TouchState.QUEUED), ledger.touch(ledger.recipient())
    raw = ledger.dsn_of(touch)
    processed = ledger.process(raw)
    assert (processed.verdict, processed.matched_by) == (BounceClass.HARD, MatchedBy.RETURN_PATH)
    assert (processed.ended, processed.resolved) == ([waits], [touch])
    assert ledger.state(touch) is TouchState.BOUNCED
    assert ledger.state(waits) is TouchState.SUPPRESSED
    assert ledger.state(other) is TouchState.ACCEPTED
    assert ledger.suppressed() == {ledger.address(ada): "hard_bounce"}
    assert ledger.effects(raw) == [
        ("touch_bounced", touch),
        ("address_suppressed", touch),
        ("touch_suppressed", waits),
    ]
    with read(ledger.engine) as connection:
        [event] = delivery_events(connection, touch)
    assert (event.state, event.cause) == ("bounced", "bounced: no such mailbox")


def test_the_same_mail_again_changes_nothing_and_says_the_same(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    touch, waits = ledger.touch(ada), ledger.touch(ada, TouchState.QUEUED)
    raw = ledger.dsn_of(touch)
    first = ledger.process(raw)
    later = ledger.touch(ada, TouchState.PLANNED)
    # The second time there is nothing new to count.
    assert ledger.process(raw, now=NOW + DAY) == replace(first, outcomes=())
    assert (ledger.state(waits), ledger.state(later)) == (TouchState.SUPPRESSED, TouchState.PLANNED)
    with read(ledger.engine) as connection:
        assert len(delivery_events(connection, touch)) == 1


@pytest.mark.parametrize("purpose", ["message-id", "unsubscribe"])
def test_a_token_made_for_something_else_does_nothing(ledger: LedgerFixture, purpose: str) -> None:
    ada = ledger.recipient()
    touch = ledger.touch(ada)
    token = ledger.message_id(touch).strip("<>") if purpose == "message-id" else ledger.unsubscribe(touch)
    to = f"bounce+{token.partition('@')[0].partition('+')[2] or token.partition('@')[0]}@bounces.example.com"
    processed = ledger.process(mails.dsn(to=to, recipient=ledger.address(ada)))
    assert (processed.touch_id, ledger.state(touch), ledger.suppressed()) == (None, TouchState.ACCEPTED, {})


def test_a_forged_token_does_nothing_even_where_the_recipient_would_fit(engine: sa.Engine, signer: TokenSigner) -> None:
    ledger = LedgerFixture(engine, signer, BounceSettings(act_on_unsigned=True))
    stranger = LedgerFixture(engine, TokenSigner(SecretStr("another key")))
    ada = ledger.recipient()
    touch = ledger.touch(ada)
    raw = mails.dsn(to=stranger.return_path(touch), recipient=ledger.address(ada))
    processed = ledger.process(raw)
    assert (processed.verdict, processed.touch_id) == (BounceClass.HARD, None)
    assert (ledger.state(touch), ledger.suppressed(), ledger.effects(raw)) == (TouchState.ACCEPTED, {}, [])


@pytest.mark.parametrize("status", ["5.1.1", "5.2.2"])
def test_a_bounce_of_another_address_suppresses_no_one(ledger: LedgerFixture, status: str) -> None:
    ada = ledger.recipient()
    for number in range(4):
        touch = ledger.touch(ada)
        said = f"550 {status} <bob@example.net>: {'User unknown' if status == '5.1.1' else 'Mailbox full'}"
        raw = mails.dsn(to=ledger.return_path(touch), recipient="bob@example.net", status=status, diagnostic=said)
        assert ledger.process(raw, now=NOW + timedelta(hours=number)).verdict is BounceClass.SOFT
        assert ledger.state(touch) is TouchState.BOUNCED
    assert ledger.suppressed() == {}


@pytest.mark.parametrize(
    ("mailed", "named"),
    [
        ("ada@example.org", "Ada@Example.ORG"),
        ("ada+news@example.org", "ada@example.org"),
        ("ada@example.org", "ada@mx1.example.org"),
        ("ada@example.org", "ada"),
        ("ada@xn--bcher-kva.example.org", "ada@bücher.example.org"),
    ],
)
def test_a_bounce_names_the_mailbox_in_the_spelling_of_its_server(
    ledger: LedgerFixture, mailed: str, named: str
) -> None:
    touch = ledger.touch(ledger.recipient(mailed))
    ledger.process(mails.dsn(to=ledger.return_path(touch), recipient=named, diagnostic="550 5.1.1 User unknown"))
    assert ledger.suppressed() == {mailed: "hard_bounce"}


def test_the_address_before_forwarding_is_named_by_original_recipient(ledger: LedgerFixture) -> None:
    touch = ledger.touch(ledger.recipient("ada@example.org"))
    fields = (
        "Reporting-MTA: dns; mx.example.net\n\nOriginal-Recipient: rfc822; ada@example.org\n"
        "Final-Recipient: rfc822; bob@example.net\nAction: failed\nStatus: 5.1.1\n"
        "Diagnostic-Code: smtp; 550 5.1.1 User unknown\n"
    )
    ledger.process(mails.multipart(("message/delivery-status", fields), To=ledger.return_path(touch)))
    assert ledger.suppressed() == {"ada@example.org": "hard_bounce"}


@pytest.mark.parametrize(("words", "reason"), [("User unknown.", None), ("Unknown user: ada.", "hard_bounce")])
def test_a_bounce_that_names_no_address_is_not_hard(ledger: LedgerFixture, words: str, reason: str | None) -> None:
    touch = ledger.touch(ledger.recipient("ada@example.org"))
    raw = mails.mail(
        f"Your message could not be delivered.\n{words}\n\n--- Below this line is a copy of the message.\n\n"
        f"Return-Path: <{ledger.return_path(touch)}>\nFrom: news@example.com\nTo: ada@example.org\n",
        Subject="Undelivered mail",
        To=ledger.return_path(touch),
        Return_Path="<>",
    )
    assert ledger.process(raw).touch_id == touch
    assert ledger.suppressed() == ({"ada@example.org": reason} if reason else {})


def test_a_mail_from_the_address_itself_is_no_bounce_of_it(ledger: LedgerFixture) -> None:
    touch = ledger.touch(ledger.recipient("ada@example.org"))
    body = "Your message could not be delivered.\n\n<ada@example.org>: 550 5.1.1 User unknown\n"
    raw = mails.mail(body, From="ada@example.org", Subject="Mail delivery failed", To=ledger.return_path(touch))
    ledger.process(raw, Envelope(recipient=ledger.return_path(touch), mail_from=""))
    assert (ledger.state(touch), ledger.suppressed()) == (TouchState.ACCEPTED, {})


def test_a_report_to_the_reply_address_counts_by_the_message_that_it_returns(ledger: LedgerFixture) -> None:
    touch = ledger.touch(ledger.recipient("ada@example.org"))
    token = ledger.signer.sign(Purpose.REPLY, ledger.touch(ledger.recipient()))
    raw = mails.dsn(to=f"hello+{token}@example.com", returned=f"Message-ID: {ledger.message_id(touch)}\n")
    processed = ledger.process(raw)
    assert (processed.touch_id, processed.matched_by) == (touch, MatchedBy.MESSAGE_ID)
    assert ledger.suppressed() == {"ada@example.org": "hard_bounce"}


def test_a_bounce_that_a_person_sends_on_suppresses_no_one(ledger: LedgerFixture) -> None:
    touch = ledger.touch(ledger.recipient())
    inner = mails.dsn(to="eve@example.org", recipient="friend@example.net").decode().replace("\r\n", "\n")
    for recipient in ("friend@example.net", ledger.address_of(touch)):
        raw = mails.mail(
            f"--outer\nContent-Type: text/plain\n\nLook what I got.\n--outer\nContent-Type: message/rfc822\n\n"
            f"{inner.replace('friend@example.net', recipient).replace(mails.BOUNDARY, 'inner')}\n--outer--\n",
            From="Eve <eve@example.org>",
            Subject="Fwd: Undelivered Mail Returned to Sender",
            In_Reply_To=ledger.message_id(touch),
            **{"Content-Type": 'multipart/mixed; boundary="outer"'},
        )
        ledger.process(raw)
        assert ledger.suppressed() == {}
        assert ledger.state(touch) is TouchState.ACCEPTED


@pytest.mark.parametrize("raw", mails.NO_BOUNCES.values(), ids=mails.NO_BOUNCES)
@pytest.mark.parametrize("state", [TouchState.ACCEPTED, TouchState.QUEUED])
def test_what_is_no_bounce_changes_nothing(ledger: LedgerFixture, raw: bytes, state: TouchState) -> None:
    touch = ledger.touch(ledger.recipient(), state)
    ledger.process(raw, Envelope(recipient=ledger.return_path(touch), mail_from=""))
    assert (ledger.state(touch), ledger.suppressed()) == (state, {})


@pytest.mark.parametrize(
    ("raw", "state"),
    [
        (mails.UNKNOWN, TouchState.BOUNCED),
        (mails.FULL, TouchState.BOUNCED),
        (mails.BLOCKED, TouchState.BOUNCED),
        (mails.DELAYED, TouchState.ACCEPTED),
        (mails.DELIVERED, TouchState.ACCEPTED),
        (mails.VACATION, TouchState.ACCEPTED),
        (mails.feedback(), TouchState.ACCEPTED),
        (mails.NEWSLETTER, TouchState.UNKNOWN),
    ],
)
def test_an_unknown_touch_is_known_by_what_comes_back(ledger: LedgerFixture, raw: bytes, state: TouchState) -> None:
    touch = ledger.touch(ledger.recipient(), TouchState.UNKNOWN)
    processed = ledger.process(raw, Envelope(recipient=ledger.return_path(touch)))
    assert ledger.state(touch) is state
    assert list(processed.resolved) == ([touch] if state is not TouchState.UNKNOWN else [])


def test_recipient_and_time_match_one_touch_and_never_one_of_two(engine: sa.Engine, signer: TokenSigner) -> None:
    ledger = LedgerFixture(engine, signer, BounceSettings(act_on_unsigned=True))
    ada = ledger.recipient()
    old = ledger.touch(ada, settled_at=NOW - 30 * DAY)
    touch = ledger.touch(ada, settled_at=NOW - DAY)
    processed = ledger.process(mails.dsn(recipient=ledger.address(ada)))
    assert (processed.touch_id, processed.matched_by) == (touch, MatchedBy.RECIPIENT)
    assert (ledger.state(touch), ledger.state(old)) == (TouchState.BOUNCED, TouchState.ACCEPTED)
    bob = ledger.recipient()
    both = [ledger.touch(bob, settled_at=NOW - DAY) for _ in range(2)]
    assert ledger.process(mails.dsn(recipient=ledger.address(bob))).touch_id is None
    assert [ledger.state(one) for one in both] == [TouchState.ACCEPTED] * 2
    assert set(ledger.suppressed()) == {ledger.address(ada)}


def test_a_mail_without_a_token_is_counted_without_effects(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    touch = ledger.touch(ada)
    raw = mails.dsn(recipient=ledger.address(ada))
    assert ledger.process(raw).touch_id == touch
    assert (ledger.state(touch), ledger.suppressed(), ledger.effects(raw)) == (TouchState.ACCEPTED, {}, [])


def test_an_alias_of_which_one_member_is_gone_is_not_gone(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    touch = ledger.touch(ada)
    blocks = (
        "Reporting-MTA: dns; x\n\n"
        "Final-Recipient: rfc822; one@members.example\nAction: failed\nStatus: 5.1.1\n\n"
        "Final-Recipient: rfc822; two@members.example\nAction: failed\nStatus: 5.2.2\n"
    )
    ledger.process(mails.multipart(("message/delivery-status", blocks), To=ledger.return_path(touch)))
    assert ledger.suppressed() == {}


def test_an_acceptance_that_is_recorded_after_its_bounce_leaves_it_bounced(ledger: LedgerFixture) -> None:
    from postroad.delivery.recorder import record
    from postroad.delivery.result import DeliveryResult, encode_result

    touch = ledger.touch(ledger.recipient(), TouchState.SENDING)
    ledger.process(ledger.dsn_of(touch))
    note = encode_result(DeliveryResult(state=TouchState.ACCEPTED, cause="accepted"))
    event = Event(
        entry="1-1",
        id=str(touch),
        token=1,
        kind=EventKind.DONE,
        at_ms=0,
        attempt=1,
        claim=1,
        next_ms=0,
        cause="",
        error="",
        note=note,
    )
    with write(ledger.engine) as connection:
        record(connection, [event], NOW, BounceSettings())
    assert ledger.state(touch) is TouchState.BOUNCED


def test_counts_for_health_gates_tell_sender_domain_and_what_was_not_matched(ledger: LedgerFixture) -> None:
    touch = ledger.touch(ledger.recipient())
    ledger.process(ledger.dsn_of(touch))
    ledger.process(mails.BLOCKED)
    with read(ledger.engine) as connection:
        counts = verdict_counts(connection, NOW - DAY)
    assert [(one.verdict, one.sender, one.domain, one.count) for one in counts] == [
        ("block", None, None, 1),
        ("hard", "news@example.com", "example.com", 1),
    ]


def test_the_octets_are_dropped_when_their_time_is_over_and_the_rest_stays(ledger: LedgerFixture) -> None:
    touch = ledger.touch(ledger.recipient())
    raw = ledger.dsn_of(touch)
    waits = ledger.keep(mails.BLOCKED)
    ledger.process(raw)
    with write(ledger.engine) as connection:
        assert mails_to_empty(connection, NOW, 10) == []
        assert forget_raw(connection, mails_to_empty(connection, NOW + DAY, 10)) == 1
        assert raw_of(connection, waits) == mails.BLOCKED  # It waits to be judged.
    assert ledger.process(raw).verdict is BounceClass.HARD


@pytest.mark.parametrize("number", [PROOFS.start, PROOFS[-1]])
def test_what_comes_in_about_a_proof_has_no_effect(ledger: LedgerFixture, number: int) -> None:
    ada = ledger.recipient()
    touch = ledger.touch(ada)
    returned = f"Message-ID: {ledger.message_id(number)}"
    bounce = mails.dsn(to=ledger.return_path(number), recipient=ledger.address(ada), returned=returned)
    complaint = mails.feedback(returned=f"{returned}\nTo: {ledger.address(ada)}\n")
    unsubscribe = mails.mail("please", To=ledger.unsubscribe(number), From=ledger.address(ada))
    reply = mails.mail("thanks", From=ledger.address(ada), In_Reply_To=ledger.message_id(number))
    for raw in (bounce, complaint, unsubscribe, reply):
        processed = ledger.process(raw)
        assert (processed.touch_id, processed.ended, ledger.effects(raw)) == (None, [], [])
    assert (ledger.state(touch), ledger.suppressed()) == (TouchState.ACCEPTED, {})

"""A person's reply ends the sequence of the recipient. Mail that only resembles a reply does not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from postroad.bounce.classify import BounceClass
from postroad.bounce.explain import explain
from postroad.bounce.mail_worker import parse_stored
from postroad.bounce.match import MatchedBy
from postroad.bounce.reply import OURS, RULE, own_addresses
from postroad.bounce.report import Envelope, MailKind
from postroad.campaign.plan import advance
from postroad.campaign.status import finish_if_done
from postroad.mail.token import Purpose, TokenSigner
from postroad.store.campaign import OnReply
from postroad.store.engine import read, write
from postroad.store.enrolment import ExitReason, enrolments_by_step
from postroad.store.enrolments.changes import Entrance, Place, enter
from postroad.store.ledger import TouchState, delivery_events
from postroad.store.types import JSON_OBJECT
from tests.bounce import mails
from tests.bounce.ledger import LedgerFixture
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

ADA = "Ada <ada@example.org>"
HELLO = "hello@example.com"


@dataclass(frozen=True, kw_only=True)
class Story:
    """Ada and Bob in a campaign of four emails, and Ada in another one that waits."""

    ledger: LedgerFixture
    campaign: int
    touch: int
    waits: int
    bob: int
    elsewhere: int
    steps: list[int]

    def reply(self, **headers: str) -> bytes:
        fields = {
            "From": ADA,
            "To": HELLO,
            "Subject": "Re: News",
            "In_Reply_To": self.ledger.message_id(self.touch),
            "Message_ID": "<1@mail.example.org>",
        }
        return mails.mail("Thank you, tell me more.\n", **{**fields, **headers})

    def states(self, recipient_of: int) -> list[str]:
        statement = (
            "SELECT touch.state FROM touch JOIN step ON step.id = touch.step_id WHERE touch.campaign_id = :campaign "
            "AND recipient_id = (SELECT recipient_id FROM touch WHERE id = :touch) ORDER BY step.position"
        )
        with read(self.ledger.engine) as connection:
            values = {"campaign": self.campaign, "touch": recipient_of}
            return list(connection.execute(sa.text(statement), values).scalars())


@pytest.fixture
def story(engine: sa.Engine, signer: TokenSigner) -> Story:
    with write(engine) as connection:
        campaign, steps = add_campaign(connection, name="spring", steps=[{}, {"wait_ms": 1}, {}, {}, {}])
        first, _, second, *_ = steps
        ada, bob = add_recipient(connection, "ada@example.org"), add_recipient(connection)
        other, (step,) = add_campaign(connection)
        return Story(
            ledger=LedgerFixture(engine, signer),
            campaign=campaign,
            touch=add_touch(connection, campaign, first, TouchState.ACCEPTED, recipient_id=ada, settled_at=NOW),
            waits=add_touch(connection, campaign, second, TouchState.QUEUED, recipient_id=ada),
            bob=add_touch(connection, campaign, first, TouchState.ACCEPTED, recipient_id=bob, settled_at=NOW),
            elsewhere=add_touch(connection, other, step, TouchState.QUEUED, recipient_id=ada),
            steps=steps,
        )


def test_a_reply_ends_what_that_campaign_still_had_for_them_and_nothing_else(story: Story) -> None:
    ledger = story.ledger
    raw = story.reply()
    processed = ledger.process(raw)
    assert (processed.verdict, processed.rule, processed.matched_by) == (
        BounceClass.UNRELATED,
        RULE,
        MatchedBy.REFERENCE,
    )
    assert processed.ended == [story.waits]
    assert story.states(story.touch) == ["accepted", "cancelled", "cancelled", "cancelled"]
    assert story.states(story.bob) == ["accepted"]
    assert (ledger.state(story.elsewhere), ledger.suppressed()) == (TouchState.QUEUED, {})
    assert ledger.effects(raw) == [("replied", story.touch), ("touch_cancelled", story.waits)]
    with read(ledger.engine) as connection:
        [event] = delivery_events(connection, story.touch)
    assert (event.state, event.cause) == ("accepted", "reply")


def test_no_later_step_is_planned_for_who_replied(story: Story) -> None:
    story.ledger.process(story.reply())
    assert advance(story.ledger.engine, "spring", NOW) == 1  # Bob's second.
    assert story.states(story.touch) == ["accepted", "cancelled", "cancelled", "cancelled"]
    assert story.states(story.bob) == ["accepted", "planned"]


def test_what_is_on_the_wire_arrives_and_is_the_last(story: Story) -> None:
    with write(story.ledger.engine) as connection:
        connection.execute(sa.text("UPDATE touch SET state = 'sending' WHERE id = :id"), {"id": story.waits})
    story.ledger.process(story.reply())
    with write(story.ledger.engine) as connection:
        move = "UPDATE touch SET state = 'accepted', settled_at = due_at WHERE id = :id"
        connection.execute(sa.text(move), {"id": story.waits})
    advance(story.ledger.engine, "spring", NOW)
    assert story.states(story.touch) == ["accepted", "accepted", "cancelled", "cancelled"]


def test_a_reply_ends_a_journey_and_plans_no_step_ahead(story: Story) -> None:
    ledger, (first, wait, *_) = story.ledger, story.steps
    with write(ledger.engine) as connection:
        journey = sa.text("UPDATE campaign SET journey = :journey WHERE id = :id")
        journey = journey.bindparams(sa.bindparam("journey", type_=JSON_OBJECT))
        connection.execute(journey, {"journey": {"exit": None, "goal": None}, "id": story.campaign})
        of_touch = sa.text("SELECT recipient_id FROM touch WHERE id = :id")
        ada, bob = (connection.execute(of_touch, {"id": id_}).scalar_one() for id_ in (story.touch, story.bob))
        entrances = [Entrance(ada, Place(wait, due_at=NOW), NOW), Entrance(bob, Place(first), NOW)]
        enter(connection, story.campaign, entrances, NOW)
    assert ledger.process(story.reply()).ended == [story.waits]
    assert story.states(story.touch) == ["accepted", "cancelled"]
    with read(ledger.engine) as connection:
        found = enrolments_by_step(connection, story.campaign)
    assert found[wait].exited == {ExitReason.REPLIED: 1}
    assert found[first].active == 1


def test_a_campaign_continues_while_a_recipient_waits_for_a_step(story: Story) -> None:
    ledger, (_, _, second, third, fourth) = story.ledger, story.steps
    ledger.process(story.reply())
    with write(ledger.engine) as connection:
        bobs = connection.execute(
            sa.text("SELECT recipient_id FROM touch WHERE id = :id"), {"id": story.bob}
        ).scalar_one()
        add_touch(connection, story.campaign, second, TouchState.ACCEPTED, recipient_id=bobs, settled_at=NOW)
        launched = "UPDATE campaign SET launched_at = created_at WHERE id = :id"
        connection.execute(sa.text(launched), {"id": story.campaign})
    assert not finish_if_done(ledger.engine, "spring", NOW)  # Ada's cancelled third is not Bob's.
    with write(ledger.engine) as connection:
        for step in (third, fourth):
            add_touch(connection, story.campaign, step, TouchState.EXPIRED, recipient_id=bobs, settled_at=NOW)
    advance(ledger.engine, "spring", NOW)
    assert finish_if_done(ledger.engine, "spring", NOW)


def test_a_campaign_may_go_on_and_the_reply_is_noted_all_the_same(story: Story) -> None:
    with write(story.ledger.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET on_reply = :word"), {"word": OnReply.CONTINUE.value})
    processed = story.ledger.process(story.reply())
    assert (processed.rule, processed.ended) == (RULE, [])
    assert story.states(story.touch) == ["accepted", "queued"]
    assert story.ledger.effects(story.reply()) == [("replied", story.touch)]


def test_the_same_reply_again_changes_nothing_and_a_second_one_is_noted(story: Story) -> None:
    first = story.ledger.process(story.reply())
    assert story.ledger.process(story.reply()) == first
    story.ledger.process(story.reply(Message_ID="<2@mail.example.org>"))
    with read(story.ledger.engine) as connection:
        assert [event.cause for event in delivery_events(connection, story.touch)] == ["reply", "reply"]


def test_a_reply_to_a_touch_that_was_unknown_says_that_it_arrived(story: Story) -> None:
    with write(story.ledger.engine) as connection:
        connection.execute(sa.text("UPDATE touch SET state = 'unknown' WHERE id = :id"), {"id": story.touch})
    assert story.ledger.process(story.reply()).resolved == [story.touch]
    assert story.ledger.state(story.touch) is TouchState.ACCEPTED


def test_the_token_of_reply_to_tells_it_where_a_mail_program_names_no_message(story: Story) -> None:
    token = story.ledger.signer.sign(Purpose.REPLY, story.touch)
    processed = story.ledger.process(story.reply(In_Reply_To="", To=f"hello+{token}@example.com"))
    assert (processed.rule, processed.matched_by, processed.ended) == (RULE, MatchedBy.REPLY, [story.waits])


def test_references_tell_it_too_wherever_in_the_thread_we_are(story: Story) -> None:
    thread = f"<0@mail.example.org> {story.ledger.message_id(story.touch)} <9@mail.example.org>"
    processed = story.ledger.process(story.reply(In_Reply_To="<9@mail.example.org>", References=thread))
    assert processed.ended == [story.waits]


NO_REPLIES: dict[str, dict[str, str]] = {
    "automatic by RFC 3834": {"Auto_Submitted": "auto-replied"},
    "out of office": {"Subject": "Automatic reply: News"},
    "an old autoresponder": {"X_Autoreply": "yes"},
    "Exchange's": {"X_Auto_Response_Suppress": "All"},
    "bulk": {"Precedence": "bulk"},
    "a newsletter": {"List_Unsubscribe": "<https://example.org/u>"},
    "nobody reads it": {"From": "noreply@example.org"},
    "a server": {"From": "MAILER-DAEMON@mx.example.org"},
    "the null path": {"Return_Path": "<>"},
    "a challenge": {"Subject": "Please confirm your message to ada@example.org"},
}


@pytest.mark.parametrize("headers", NO_REPLIES.values(), ids=NO_REPLIES)
def test_what_a_program_wrote_ends_nothing(story: Story, headers: dict[str, str]) -> None:
    processed = story.ledger.process(story.reply(**headers))
    assert (processed.touch_id, processed.ended) == (story.touch, [])
    assert processed.rule != RULE
    assert story.states(story.touch) == ["accepted", "queued"]


@pytest.mark.parametrize(
    "words",
    [
        "This is an automated response. We have received your message, and your ticket number is 42.\n",
        "Vielen Dank. Dies ist eine automatische Antwort, bitte antworten Sie nicht auf diese E-Mail.\n",
        "Ceci est une réponse automatique.\n",
    ],
)
def test_what_says_in_words_that_a_program_wrote_it_ends_nothing(story: Story, words: str) -> None:
    raw = story.reply(Content_Type="text/plain; charset=utf-8").partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + words.encode()
    assert story.ledger.process(raw).ended == []


def test_a_person_who_is_away_and_says_so_has_replied(story: Story) -> None:
    raw = story.reply().replace(b"Thank you, tell me more.", b"I am on holiday until Monday, then I will look at it.")
    assert story.ledger.process(raw).rule == RULE


def test_a_copy_of_what_we_sent_and_what_we_answered_ourselves_end_nothing(story: Story) -> None:
    ledger = story.ledger
    copies = [
        story.reply(From="News <news@example.com>", Message_ID=ledger.message_id(story.touch)),
        story.reply(From="News <News@Example.com>", To=ADA),
        # Redirected to our own mailbox unchanged.
        story.reply(Message_ID=ledger.message_id(story.waits)),
    ]
    for raw in copies:
        processed = ledger.process(raw)
        assert (processed.rule, processed.ended) == (OURS, [])
    assert story.states(story.touch) == ["accepted", "queued"]


def test_a_reply_with_tokens_of_another_key_is_nobodys(story: Story) -> None:
    from pydantic import SecretStr

    stranger = TokenSigner(SecretStr("another key"))
    for headers in (
        {"In_Reply_To": f"<{stranger.sign(Purpose.MESSAGE_ID, story.touch)}@example.com>"},
        {"In_Reply_To": "", "To": f"hello+{stranger.sign(Purpose.REPLY, story.touch)}@example.com"},
        {"In_Reply_To": "", "To": f"hello+{story.ledger.signer.sign(Purpose.BOUNCE, story.touch)}@example.com"},
    ):
        assert story.ledger.process(story.reply(**headers)).touch_id is None
    assert story.states(story.touch) == ["accepted", "queued"]


def test_a_bounce_of_a_message_that_answers_one_is_a_bounce(story: Story) -> None:
    raw = mails.dsn(returned=f"Message-ID: {story.ledger.message_id(story.touch)}\nFrom: news@example.com\n")
    assert story.ledger.process(raw).verdict is BounceClass.HARD


def test_own_addresses_are_those_without_their_token() -> None:
    own = own_addresses([("News@example.com", "hello+{token}@example.com"), ("b@example.com", None)])
    assert own == {"news@example.com", "hello@example.com", "b@example.com"}


def test_explain_shows_a_reply_by_its_kind_and_rule_and_leaves_the_verdicts_what_they_are(story: Story) -> None:
    own = own_addresses([("news@example.com", None)])
    explained = explain("1.eml", story.reply(), Envelope(), story.ledger.signer, own, read=parse_stored)
    assert (explained.kind, explained.touch) == (MailKind.REPLY, story.touch)
    assert [(one.address, one.verdict, one.rule) for one in explained.recipients] == [
        ("ada@example.org", BounceClass.UNRELATED, RULE)
    ]
    ours = explain(
        "2.eml", story.reply(From="news@example.com"), Envelope(), story.ledger.signer, own, read=parse_stored
    )
    assert [one.rule for one in ours.recipients] == [OURS]

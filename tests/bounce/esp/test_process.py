"""What a service tells of a touch changes the same as a mail would, if it brings back something of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa

from postroad.bounce.classify import BounceClass
from postroad.bounce.esp.events import events_of, source_of
from postroad.bounce.match import MatchedBy
from postroad.bounce.report import Envelope
from postroad.mail.message import MessageSource, SenderIdentity, compile_message
from postroad.mail.token import Purpose, TokenSigner
from postroad.settings import Service
from postroad.store.ledger import TouchState
from tests.bounce.esp import events
from tests.bounce.ledger import LedgerFixture
from tests.store.rows import NOW


def token(ledger: LedgerFixture, touch: int) -> str:
    return ledger.signer.sign(Purpose.MESSAGE_ID, touch)


def tell(ledger: LedgerFixture, service: Service, document: Any) -> Any:
    [raw] = events_of(service, document)
    return ledger.process(raw, Envelope(source=source_of(service)))


def test_a_bounce_ends_the_touch_and_suppresses_the_address_of_the_touch(ledger: LedgerFixture) -> None:
    ada = ledger.recipient(events.ADA)
    touch, waits = ledger.touch(ada), ledger.touch(ada, TouchState.QUEUED)
    processed = tell(ledger, Service.SES, events.ses_bounce(token(ledger, touch)))
    assert (processed.verdict, processed.matched_by, processed.ended) == (BounceClass.HARD, MatchedBy.TAG, [waits])
    assert ledger.state(touch) is TouchState.BOUNCED
    assert ledger.suppressed() == {ledger.address(ada): "hard_bounce"}


@pytest.mark.parametrize(
    ("service", "event", "state"),
    [
        (Service.SENDGRID, lambda tag: [events.sendgrid("delivered", tag)], TouchState.ACCEPTED),
        (Service.POSTMARK, lambda tag: events.postmark("Delivery", tag, Recipient=events.ADA), TouchState.ACCEPTED),
        (Service.MAILGUN, lambda tag: events.mailgun("complained", tag), TouchState.ACCEPTED),
        (Service.SES, events.ses_bounce, TouchState.BOUNCED),
    ],
)
def test_what_was_unknown_is_known_by_a_later_event(
    ledger: LedgerFixture, service: Service, event: Any, state: TouchState
) -> None:
    touch = ledger.touch(ledger.recipient(), TouchState.UNKNOWN)
    processed = tell(ledger, service, event(token(ledger, touch)))
    assert (ledger.state(touch), processed.resolved) == (state, [touch])


def test_a_complaint_is_for_good_and_an_unsubscribe_is_noted_as_one_click_is(ledger: LedgerFixture) -> None:
    ada, bob = ledger.recipient(), ledger.recipient()
    touches = ledger.touch(ada), ledger.touch(bob)
    tell(ledger, Service.POSTMARK, events.postmark("SpamComplaint", token(ledger, touches[0]), Email=events.ADA))
    tell(ledger, Service.MAILGUN, events.mailgun("unsubscribed", token(ledger, touches[1])))
    assert ledger.suppressed() == {ledger.address(ada): "complaint", ledger.address(bob): "unsubscribe"}


def test_the_third_time_that_a_service_does_not_send_because_of_its_own_list_suppresses(ledger: LedgerFixture) -> None:
    ada = ledger.recipient(events.ADA)
    for number in range(3):
        assert ledger.suppressed() == {}
        event = events.sendgrid("dropped", token(ledger, ledger.touch(ada)), reason="Bounced Address", n=number)
        tell(ledger, Service.SENDGRID, [event])
    assert ledger.suppressed() == {ledger.address(ada): "soft_bounce"}


def test_an_event_without_anything_of_ours_is_counted_and_changes_nothing(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    touch = ledger.touch(ada)
    event = {**events.sendgrid("bounce", "", **events.NO_SUCH_USER), "email": ledger.address(ada)}
    processed = tell(ledger, Service.SENDGRID, [event])
    assert (processed.touch_id, processed.matched_by) == (touch, MatchedBy.RECIPIENT)
    assert (ledger.state(touch), ledger.suppressed()) == (TouchState.ACCEPTED, {})


def test_a_tag_of_another_key_is_nobodys(ledger: LedgerFixture, engine: sa.Engine) -> None:
    from pydantic import SecretStr

    touch = ledger.touch(ledger.recipient())
    stranger = TokenSigner(SecretStr("another key"))
    processed = tell(ledger, Service.MAILGUN, events.mailgun_failed(stranger.sign(Purpose.MESSAGE_ID, touch)))
    assert (processed.touch_id, ledger.suppressed()) == (None, {})


@pytest.mark.parametrize("service", Service)
def test_the_tag_that_a_message_leaves_with_is_what_each_service_brings_back(
    signer: TokenSigner, service: Service
) -> None:
    identity = SenderIdentity(
        address="news@example.com",
        display_name="News",
        reply_to=None,
        postal_address="1 High Street, Springfield",
        bounce_domain=None,
    )
    text = "{{ unsubscribe_url }} {{ postal_address }}"
    public_url = "https://mail.example.com"
    compiled = compile_message(
        MessageSource(subject="News", text=text), sender=identity, signer=signer, public_url=public_url, service=service
    )
    from email import message_from_bytes

    sent = message_from_bytes(compiled.merge(0xFFFF_FFFF_FFFF, events.ADA, {}, NOW).content)
    tag = signer.sign(Purpose.MESSAGE_ID, 0xFFFF_FFFF_FFFF)
    match service:
        case Service.SES:
            assert sent["X-SES-MESSAGE-TAGS"] == f"postroad={tag}"
        case Service.SENDGRID:
            assert json.loads(sent["X-SMTPAPI"]) == {"unique_args": {"postroad": tag}}
        case Service.POSTMARK:
            assert sent["X-PM-Metadata-postroad"] == tag
        case Service.MAILGUN:
            assert json.loads(sent["X-Mailgun-Variables"]) == {"postroad": tag}

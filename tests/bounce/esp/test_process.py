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
from postroad.mail.message import SenderIdentity, compile_message
from postroad.mail.token import Purpose, TokenSigner
from postroad.settings import Service
from postroad.store.ledger import TouchState
from tests.bounce.esp import events
from tests.bounce.house import House
from tests.store.rows import NOW


@pytest.fixture
def house(engine: sa.Engine, signer: TokenSigner) -> House:
    return House(engine, signer)


def token(house: House, touch: int) -> str:
    return house.signer.sign(Purpose.MESSAGE_ID, touch)


def tell(house: House, service: Service, document: Any) -> Any:
    [raw] = events_of(service, document)
    return house.process(raw, Envelope(source=source_of(service)))


def test_a_bounce_ends_the_touch_and_suppresses_the_address_of_the_touch(house: House) -> None:
    ada = house.recipient(events.ADA)
    touch, waits = house.touch(ada), house.touch(ada, TouchState.QUEUED)
    processed = tell(house, Service.SES, events.ses_bounce(token(house, touch)))
    assert (processed.verdict, processed.matched_by, processed.ended) == (BounceClass.HARD, MatchedBy.TAG, [waits])
    assert house.state(touch) is TouchState.BOUNCED
    assert house.suppressed() == {house.address(ada): "hard_bounce"}


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
    house: House, service: Service, event: Any, state: TouchState
) -> None:
    touch = house.touch(house.recipient(), TouchState.UNKNOWN)
    processed = tell(house, service, event(token(house, touch)))
    assert (house.state(touch), processed.resolved) == (state, [touch])


def test_a_complaint_is_for_good_and_an_unsubscribe_is_noted_as_one_click_is(house: House) -> None:
    ada, bob = house.recipient(), house.recipient()
    touches = house.touch(ada), house.touch(bob)
    tell(house, Service.POSTMARK, events.postmark("SpamComplaint", token(house, touches[0]), Email=events.ADA))
    tell(house, Service.MAILGUN, events.mailgun("unsubscribed", token(house, touches[1])))
    assert house.suppressed() == {house.address(ada): "complaint", house.address(bob): "unsubscribe"}


def test_the_third_time_that_a_service_does_not_send_because_of_its_own_list_suppresses(house: House) -> None:
    ada = house.recipient(events.ADA)
    for number in range(3):
        assert house.suppressed() == {}
        event = events.sendgrid("dropped", token(house, house.touch(ada)), reason="Bounced Address", n=number)
        tell(house, Service.SENDGRID, [event])
    assert house.suppressed() == {house.address(ada): "soft_bounce"}


def test_an_event_without_anything_of_ours_is_counted_and_changes_nothing(house: House) -> None:
    ada = house.recipient()
    touch = house.touch(ada)
    event = {**events.sendgrid("bounce", "", **events.NO_SUCH_USER), "email": house.address(ada)}
    processed = tell(house, Service.SENDGRID, [event])
    assert (processed.touch_id, processed.matched_by) == (touch, MatchedBy.RECIPIENT)
    assert (house.state(touch), house.suppressed()) == (TouchState.ACCEPTED, {})


def test_a_tag_of_another_key_is_nobodys(house: House, engine: sa.Engine) -> None:
    from pydantic import SecretStr

    touch = house.touch(house.recipient())
    stranger = TokenSigner(SecretStr("another key"))
    processed = tell(house, Service.MAILGUN, events.mailgun_failed(stranger.sign(Purpose.MESSAGE_ID, touch)))
    assert (processed.touch_id, house.suppressed()) == (None, {})


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
        sender=identity, subject="News", text=text, html=None, signer=signer, public_url=public_url, service=service
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

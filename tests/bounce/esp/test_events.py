"""Events of each ESP are parsed and classified. The events follow the documentation of the ESPs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from postroad.bounce.classify import BounceClass, classify_recipients
from postroad.bounce.esp import sendgrid, ses
from postroad.bounce.esp.events import events_of, parse_event, service_of, source_of
from postroad.bounce.mail_worker import parse_stored
from postroad.bounce.match import MatchedBy
from postroad.bounce.process import classify_mail
from postroad.bounce.report import Action, Envelope
from postroad.classify.cause import Cause
from postroad.mail.token import Purpose, TokenSigner
from postroad.settings import Service
from tests.bounce.esp import events

SIGNER = TokenSigner(SecretStr("a key of the tests"))
TOUCH = 4711
TOKEN = SIGNER.sign(Purpose.MESSAGE_ID, TOUCH)

CASES: list[tuple[Service, Any, BounceClass]] = [
    (Service.SES, events.ses_bounce(TOKEN), BounceClass.HARD),
    (Service.SES, events.ses_bounce(TOKEN, kind="Transient"), BounceClass.SOFT),
    (Service.SES, events.ses_bounce(TOKEN, said="smtp; 554 5.7.1 blocked using zen.spamhaus.org"), BounceClass.BLOCK),
    (
        Service.SES,
        events.ses("Complaint", TOKEN, complaint={"complainedRecipients": events.WHOM}),
        BounceClass.COMPLAINT,
    ),
    (
        Service.SES,
        events.ses(
            "Complaint", TOKEN, complaint={"complainedRecipients": events.WHOM, "complaintFeedbackType": "not-spam"}
        ),
        BounceClass.UNRELATED,
    ),
    (Service.SES, events.ses("Delivery", TOKEN, delivery={"recipients": ["ada@example.org"]}), BounceClass.UNRELATED),
    (
        Service.SES,
        events.ses("DeliveryDelay", TOKEN, deliveryDelay={"delayedRecipients": events.WHOM}),
        BounceClass.SOFT,
    ),
    (Service.SES, events.ses("Reject", TOKEN, reject={"reason": "Bad content"}), BounceClass.BLOCK),
    (
        Service.SES,
        events.ses("Subscription", TOKEN, subscription={"newTopicPreferences": {"unsubscribeAll": True}}),
        BounceClass.UNSUBSCRIBE,
    ),
    (Service.SENDGRID, [events.sendgrid("bounce", TOKEN, **events.NO_SUCH_USER)], BounceClass.HARD),
    (
        Service.SENDGRID,
        [events.sendgrid("bounce", TOKEN, **{**events.NO_SUCH_USER, "type": "blocked"})],
        BounceClass.SOFT,
    ),
    (
        Service.SENDGRID,
        [events.sendgrid("bounce", TOKEN, type="blocked", reason="550 5.7.1 message rejected: listed by Spamhaus")],
        BounceClass.BLOCK,
    ),
    (Service.SENDGRID, [events.sendgrid("deferred", TOKEN, response="451 4.3.0 try later")], BounceClass.SOFT),
    (Service.SENDGRID, [events.sendgrid("dropped", TOKEN, reason="Bounced Address")], BounceClass.SOFT),
    (Service.SENDGRID, [events.sendgrid("dropped", TOKEN, reason="Spam Reporting Address")], BounceClass.COMPLAINT),
    (Service.SENDGRID, [events.sendgrid("dropped", TOKEN, reason="Unsubscribed Address")], BounceClass.UNSUBSCRIBE),
    (Service.SENDGRID, [events.sendgrid("spamreport", TOKEN)], BounceClass.COMPLAINT),
    (Service.SENDGRID, [events.sendgrid("unsubscribe", TOKEN)], BounceClass.UNSUBSCRIBE),
    (Service.SENDGRID, [events.sendgrid("group_unsubscribe", TOKEN)], BounceClass.UNSUBSCRIBE),
    (Service.SENDGRID, [events.sendgrid("delivered", TOKEN, response="250 OK")], BounceClass.UNRELATED),
    (Service.POSTMARK, events.postmark_bounce(TOKEN), BounceClass.HARD),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "SoftBounce", ""), BounceClass.SOFT),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "HardBounce", ""), BounceClass.SOFT),  # It gives no reason.
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "Transient", "smtp;450 4.2.1 too busy"), BounceClass.SOFT),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "Blocked", "554 5.7.1 blocked for spam"), BounceClass.BLOCK),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "AutoResponder"), BounceClass.AUTO_REPLY),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "ChallengeVerification"), BounceClass.CHALLENGE),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "SpamComplaint"), BounceClass.COMPLAINT),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "Unsubscribe"), BounceClass.UNSUBSCRIBE),
    (Service.POSTMARK, events.postmark("SpamComplaint", TOKEN, Email="ada@example.org"), BounceClass.COMPLAINT),
    (Service.POSTMARK, events.postmark("Delivery", TOKEN, Recipient="ada@example.org"), BounceClass.UNRELATED),
    (Service.POSTMARK, events.postmark("SubscriptionChange", TOKEN, **events.OPT_OUT), BounceClass.UNSUBSCRIBE),
    (Service.MAILGUN, events.mailgun_failed(TOKEN), BounceClass.HARD),
    (Service.MAILGUN, events.mailgun_failed(TOKEN, severity="temporary"), BounceClass.SOFT),
    (Service.MAILGUN, events.mailgun_failed(TOKEN, reason="suppress-bounce"), BounceClass.SOFT),
    (Service.MAILGUN, events.mailgun_failed(TOKEN, reason="suppress-complaint"), BounceClass.COMPLAINT),
    (Service.MAILGUN, events.mailgun_failed(TOKEN, reason="suppress-unsubscribe"), BounceClass.UNSUBSCRIBE),
    (Service.MAILGUN, events.mailgun("complained", TOKEN), BounceClass.COMPLAINT),
    (Service.MAILGUN, events.mailgun("unsubscribed", TOKEN), BounceClass.UNSUBSCRIBE),
    (Service.MAILGUN, events.mailgun("delivered", TOKEN), BounceClass.UNRELATED),
    (Service.MAILGUN, events.mailgun("rejected", TOKEN, reject={"reason": "old"}), BounceClass.BLOCK),
]


@pytest.mark.parametrize(("service", "document", "verdict"), CASES)
def test_an_event_is_judged_as_a_mail_would_be_and_finds_its_touch_by_the_tag(
    service: Service, document: Any, verdict: BounceClass
) -> None:
    [raw] = events_of(service, document)
    report, judgements, tokens = classify_mail(parse_stored(raw, Envelope(source=source_of(service))), SIGNER)
    assert [(one.reported.address, one.verdict) for one in judgements] == [("ada@example.org", verdict)]
    assert tokens.match == (TOUCH, MatchedBy.TAG)
    assert report.format


@pytest.mark.parametrize(
    ("service", "document"),
    [
        (Service.SES, events.ses_bounce("", headers=[{"name": "Message-ID", "value": f"<{TOKEN}@example.com>"}])),
        (Service.SENDGRID, [events.sendgrid("spamreport", "", **{"smtp-id": f"<{TOKEN}@example.com>"})]),
        (Service.MAILGUN, events.mailgun_failed("", message={"headers": {"message-id": f"{TOKEN}@example.com"}})),
    ],
)
def test_without_a_tag_the_message_id_tells_the_touch(service: Service, document: Any) -> None:
    [raw] = events_of(service, document)
    _, _, tokens = classify_mail(parse_stored(raw, Envelope(source=source_of(service))), SIGNER)
    assert tokens.match == (TOUCH, MatchedBy.MESSAGE_ID)


@pytest.mark.parametrize(
    ("service", "document"),
    [
        (Service.SES, events.ses("Open", TOKEN)),
        (Service.SES, events.ses("Subscription", TOKEN, subscription={"newTopicPreferences": {}})),
        (Service.SENDGRID, [events.sendgrid("open", TOKEN), events.sendgrid("processed", TOKEN), "odd", 7]),
        (Service.POSTMARK, events.postmark("Open", TOKEN)),
        (Service.POSTMARK, events.postmark_bounce(TOKEN, "Subscribe")),
        (
            Service.POSTMARK,
            events.postmark("SubscriptionChange", TOKEN, **{**events.OPT_OUT, "Origin": "Customer"}),
        ),
        (Service.MAILGUN, events.mailgun("clicked", TOKEN)),
        (Service.MAILGUN, {"signature": {}}),
    ],
)
def test_what_says_nothing_of_a_delivery_is_not_kept(service: Service, document: Any) -> None:
    assert events_of(service, document) == []


def test_the_same_event_is_the_same_octets_in_whatever_order_its_fields_come() -> None:
    event = events.sendgrid("bounce", TOKEN, **events.NO_SUCH_USER)
    backwards = dict(reversed(event.items()))
    assert events_of(Service.SENDGRID, [event]) == events_of(Service.SENDGRID, [backwards])


def test_the_mail_that_postmark_brings_along_is_not_kept() -> None:
    [raw] = events_of(Service.POSTMARK, {**events.postmark_bounce(TOKEN), "Content": "Return-Path: <x@example.org>"})
    assert b"Return-Path" not in raw


def test_a_delay_is_tried_on_and_final_of_nothing() -> None:
    [raw] = events_of(Service.MAILGUN, events.mailgun_failed(TOKEN, severity="temporary"))
    assert parse_event(Service.MAILGUN, raw).recipients[0].action is Action.DELAYED


def test_only_a_webhook_is_a_service() -> None:
    assert {service_of(source_of(service)) for service in Service} == set(Service)
    assert [service_of(source) for source in ("smtp", "lmtp", "imap", "maildir", "file")] == [None] * 5


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=10,
)


@given(service=st.sampled_from(Service), case=st.sampled_from(CASES), junk=_JSON, data=st.data())
def test_no_field_value_raises(service: Service, case: Any, junk: Any, data: st.DataObject) -> None:
    document = json.loads(json.dumps(case[1]))
    place = document[0] if isinstance(document, list) else document
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            place[key] = junk
            break
        place = place[key]
    for raw in events_of(service, document):
        classify_mail(parse_stored(raw, Envelope(source=source_of(service))), SIGNER)
    parse_event(service, json.dumps(junk).encode())


def _ses_bounce(kind: str, subtype: str, said: str) -> dict[str, Any]:
    one = {"emailAddress": events.ADA, "action": "failed", **({"diagnosticCode": said} if said else {})}
    return events.ses(
        "Bounce", TOKEN, bounce={"bounceType": kind, "bounceSubType": subtype, "bouncedRecipients": [one]}
    )


@pytest.mark.parametrize(
    ("kind", "subtype", "said", "verdict", "cause"),
    [
        ("Transient", "General", "", BounceClass.UNRELATED, None),
        ("Transient", "MailboxFull", "", BounceClass.SOFT, Cause.MAILBOX_FULL),
        ("Transient", "MessageTooLarge", "", BounceClass.SOFT, Cause.TOO_BIG),
        ("Transient", "ContentRejected", "", BounceClass.BLOCK, Cause.CONTENT),
        ("Transient", "AttachmentRejected", "", BounceClass.BLOCK, Cause.CONTENT),
        ("Permanent", "General", "", BounceClass.HARD, Cause.NO_MAILBOX),
        ("Permanent", "NoEmail", "", BounceClass.HARD, Cause.NO_MAILBOX),
        ("Permanent", "General", "smtp; 550 5.0.0 failed", BounceClass.HARD, Cause.NO_MAILBOX),
        ("Permanent", "General", "smtp; 550 5.7.1 blocked as spam", BounceClass.BLOCK, Cause.REPUTATION),
        ("Permanent", "General", "smtp; 552 5.2.2 mailbox full", BounceClass.SOFT, Cause.MAILBOX_FULL),
        ("Permanent", "OnAccountSuppressionList", "", BounceClass.SOFT, Cause.BOUNCED_BEFORE),
        (
            "Permanent",
            "Suppressed",
            "Amazon SES has suppressed sending to this address because it has a recent history of bouncing.",
            BounceClass.SOFT,
            Cause.BOUNCED_BEFORE,
        ),
        ("Permanent", "UnsubscribedRecipient", "", BounceClass.UNSUBSCRIBE, None),
        ("Undetermined", "Undetermined", "", BounceClass.SOFT, Cause.UNKNOWN),
    ],
)
def test_a_bounce_of_ses_counts_by_its_subtype_where_the_receiver_gives_no_reason(
    kind: str, subtype: str, said: str, verdict: BounceClass, cause: Cause | None
) -> None:
    report = ses.parse(_ses_bounce(kind, subtype, said))
    assert report is not None
    [judgement] = classify_recipients(report)
    assert (judgement.verdict, judgement.cause) == (verdict, cause)


def test_a_quota_at_the_service_is_ours() -> None:
    report = sendgrid.parse(events.sendgrid("dropped", TOKEN, reason="Recipient List over Package Quota"))
    assert report is not None
    [judgement] = classify_recipients(report)
    assert (judgement.verdict, judgement.cause) == (BounceClass.BLOCK, Cause.RELAY_ACCOUNT)

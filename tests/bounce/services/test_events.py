"""What each mail service tells, read and judged: events as the services' pages describe them, written for this."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from postroad.bounce.effects import judged
from postroad.bounce.judge import Verdict, judge
from postroad.bounce.match import MatchedBy
from postroad.bounce.reader import read_kept
from postroad.bounce.report import Action, Envelope
from postroad.bounce.services import sendgrid, ses
from postroad.bounce.services.read import events_of, read_event, service_of, source_of
from postroad.classify.cause import Cause
from postroad.mail.token import Purpose, TokenSigner
from postroad.settings import Service
from tests.bounce.services import events

SIGNER = TokenSigner(SecretStr("a key of the tests"))
TOUCH = 4711
TOKEN = SIGNER.sign(Purpose.MESSAGE_ID, TOUCH)

CASES: list[tuple[Service, Any, Verdict]] = [
    (Service.SES, events.ses_bounce(TOKEN), Verdict.HARD),
    (Service.SES, events.ses_bounce(TOKEN, kind="Transient"), Verdict.SOFT),
    (Service.SES, events.ses_bounce(TOKEN, said="smtp; 554 5.7.1 blocked using zen.spamhaus.org"), Verdict.BLOCK),
    (Service.SES, events.ses("Complaint", TOKEN, complaint={"complainedRecipients": events.WHOM}), Verdict.COMPLAINT),
    (
        Service.SES,
        events.ses(
            "Complaint", TOKEN, complaint={"complainedRecipients": events.WHOM, "complaintFeedbackType": "not-spam"}
        ),
        Verdict.UNRELATED,
    ),
    (Service.SES, events.ses("Delivery", TOKEN, delivery={"recipients": ["ada@example.org"]}), Verdict.UNRELATED),
    (Service.SES, events.ses("DeliveryDelay", TOKEN, deliveryDelay={"delayedRecipients": events.WHOM}), Verdict.SOFT),
    (Service.SES, events.ses("Reject", TOKEN, reject={"reason": "Bad content"}), Verdict.BLOCK),
    (
        Service.SES,
        events.ses("Subscription", TOKEN, subscription={"newTopicPreferences": {"unsubscribeAll": True}}),
        Verdict.UNSUBSCRIBE,
    ),
    (Service.SENDGRID, [events.sendgrid("bounce", TOKEN, **events.NO_SUCH_USER)], Verdict.HARD),
    (Service.SENDGRID, [events.sendgrid("bounce", TOKEN, **{**events.NO_SUCH_USER, "type": "blocked"})], Verdict.SOFT),
    (
        Service.SENDGRID,
        [events.sendgrid("bounce", TOKEN, type="blocked", reason="550 5.7.1 message rejected: listed by Spamhaus")],
        Verdict.BLOCK,
    ),
    (Service.SENDGRID, [events.sendgrid("deferred", TOKEN, response="451 4.3.0 try later")], Verdict.SOFT),
    (Service.SENDGRID, [events.sendgrid("dropped", TOKEN, reason="Bounced Address")], Verdict.SOFT),
    (Service.SENDGRID, [events.sendgrid("dropped", TOKEN, reason="Spam Reporting Address")], Verdict.COMPLAINT),
    (Service.SENDGRID, [events.sendgrid("dropped", TOKEN, reason="Unsubscribed Address")], Verdict.UNSUBSCRIBE),
    (Service.SENDGRID, [events.sendgrid("spamreport", TOKEN)], Verdict.COMPLAINT),
    (Service.SENDGRID, [events.sendgrid("unsubscribe", TOKEN)], Verdict.UNSUBSCRIBE),
    (Service.SENDGRID, [events.sendgrid("group_unsubscribe", TOKEN)], Verdict.UNSUBSCRIBE),
    (Service.SENDGRID, [events.sendgrid("delivered", TOKEN, response="250 OK")], Verdict.UNRELATED),
    (Service.POSTMARK, events.postmark_bounce(TOKEN), Verdict.HARD),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "SoftBounce", ""), Verdict.SOFT),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "HardBounce", ""), Verdict.SOFT),  # It gives no reason.
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "Transient", "smtp;450 4.2.1 too busy"), Verdict.SOFT),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "Blocked", "554 5.7.1 blocked for spam"), Verdict.BLOCK),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "AutoResponder"), Verdict.AUTO_REPLY),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "ChallengeVerification"), Verdict.CHALLENGE),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "SpamComplaint"), Verdict.COMPLAINT),
    (Service.POSTMARK, events.postmark_bounce(TOKEN, "Unsubscribe"), Verdict.UNSUBSCRIBE),
    (Service.POSTMARK, events.postmark("SpamComplaint", TOKEN, Email="ada@example.org"), Verdict.COMPLAINT),
    (Service.POSTMARK, events.postmark("Delivery", TOKEN, Recipient="ada@example.org"), Verdict.UNRELATED),
    (Service.POSTMARK, events.postmark("SubscriptionChange", TOKEN, **events.SAYS_NO_MORE), Verdict.UNSUBSCRIBE),
    (Service.MAILGUN, events.mailgun_failed(TOKEN), Verdict.HARD),
    (Service.MAILGUN, events.mailgun_failed(TOKEN, severity="temporary"), Verdict.SOFT),
    (Service.MAILGUN, events.mailgun_failed(TOKEN, reason="suppress-bounce"), Verdict.SOFT),
    (Service.MAILGUN, events.mailgun_failed(TOKEN, reason="suppress-complaint"), Verdict.COMPLAINT),
    (Service.MAILGUN, events.mailgun_failed(TOKEN, reason="suppress-unsubscribe"), Verdict.UNSUBSCRIBE),
    (Service.MAILGUN, events.mailgun("complained", TOKEN), Verdict.COMPLAINT),
    (Service.MAILGUN, events.mailgun("unsubscribed", TOKEN), Verdict.UNSUBSCRIBE),
    (Service.MAILGUN, events.mailgun("delivered", TOKEN), Verdict.UNRELATED),
    (Service.MAILGUN, events.mailgun("rejected", TOKEN, reject={"reason": "old"}), Verdict.BLOCK),
]


@pytest.mark.parametrize(("service", "document", "verdict"), CASES)
def test_an_event_is_judged_as_a_mail_would_be_and_finds_its_touch_by_the_tag(
    service: Service, document: Any, verdict: Verdict
) -> None:
    [raw] = events_of(service, document)
    report, judgements, tokens = judged(read_kept(raw, Envelope(source=source_of(service))), SIGNER)
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
    _, _, tokens = judged(read_kept(raw, Envelope(source=source_of(service))), SIGNER)
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
            events.postmark("SubscriptionChange", TOKEN, **{**events.SAYS_NO_MORE, "Origin": "Customer"}),
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
    assert read_event(Service.MAILGUN, raw).recipients[0].action is Action.DELAYED


def test_only_a_webhook_is_a_service() -> None:
    assert {service_of(source_of(service)) for service in Service} == set(Service)
    assert [service_of(source) for source in ("smtp", "lmtp", "imap", "maildir", "file")] == [None] * 5


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=10,
)


@given(service=st.sampled_from(Service), case=st.sampled_from(CASES), junk=_JSON, data=st.data())
def test_whatever_stands_in_a_field_nothing_raises(service: Service, case: Any, junk: Any, data: st.DataObject) -> None:
    document = json.loads(json.dumps(case[1]))
    place = document[0] if isinstance(document, list) else document
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            place[key] = junk
            break
        place = place[key]
    for raw in events_of(service, document):
        judged(read_kept(raw, Envelope(source=source_of(service))), SIGNER)
    read_event(service, json.dumps(junk).encode())


def _ses_bounce(kind: str, subtype: str, said: str) -> dict[str, Any]:
    one = {"emailAddress": events.ADA, "action": "failed", **({"diagnosticCode": said} if said else {})}
    return events.ses(
        "Bounce", TOKEN, bounce={"bounceType": kind, "bounceSubType": subtype, "bouncedRecipients": [one]}
    )


@pytest.mark.parametrize(
    ("kind", "subtype", "said", "verdict", "cause"),
    [
        ("Transient", "General", "", Verdict.UNRELATED, None),
        ("Transient", "MailboxFull", "", Verdict.SOFT, Cause.MAILBOX_FULL),
        ("Transient", "MessageTooLarge", "", Verdict.SOFT, Cause.TOO_BIG),
        ("Transient", "ContentRejected", "", Verdict.BLOCK, Cause.CONTENT),
        ("Transient", "AttachmentRejected", "", Verdict.BLOCK, Cause.CONTENT),
        ("Permanent", "General", "", Verdict.HARD, Cause.NO_MAILBOX),
        ("Permanent", "NoEmail", "", Verdict.HARD, Cause.NO_MAILBOX),
        ("Permanent", "General", "smtp; 550 5.0.0 failed", Verdict.HARD, Cause.NO_MAILBOX),
        ("Permanent", "General", "smtp; 550 5.7.1 blocked as spam", Verdict.BLOCK, Cause.REPUTATION),
        ("Permanent", "General", "smtp; 552 5.2.2 mailbox full", Verdict.SOFT, Cause.MAILBOX_FULL),
        ("Permanent", "OnAccountSuppressionList", "", Verdict.SOFT, Cause.BOUNCED_BEFORE),
        (
            "Permanent",
            "Suppressed",
            "Amazon SES has suppressed sending to this address because it has a recent history of bouncing.",
            Verdict.SOFT,
            Cause.BOUNCED_BEFORE,
        ),
        ("Permanent", "UnsubscribedRecipient", "", Verdict.UNSUBSCRIBE, None),
        ("Undetermined", "Undetermined", "", Verdict.SOFT, Cause.UNKNOWN),
    ],
)
def test_a_bounce_of_ses_counts_by_its_subtype_where_the_receiver_gives_no_reason(
    kind: str, subtype: str, said: str, verdict: Verdict, cause: Cause | None
) -> None:
    report = ses.read(_ses_bounce(kind, subtype, said))
    assert report is not None
    [judgement] = judge(report)
    assert (judgement.verdict, judgement.cause) == (verdict, cause)


def test_a_quota_at_the_service_is_ours() -> None:
    report = sendgrid.read(events.sendgrid("dropped", TOKEN, reason="Recipient List over Package Quota"))
    assert report is not None
    [judgement] = judge(report)
    assert (judgement.verdict, judgement.cause) == (Verdict.BLOCK, Cause.RELAY_ACCOUNT)

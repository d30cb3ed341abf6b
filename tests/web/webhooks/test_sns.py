"""The webhook of Amazon SES: what SNS signed is taken, and nothing is asked of any other host."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from postroad.bounce.classify import BounceClass
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from postroad.web.webhooks.sns import host_of
from tests.bounce.esp import events
from tests.store.rows import touch_row
from tests.web.webhooks.conftest import (
    CERTIFICATE,
    HOST,
    Hooks,
    Sns,
    certificate_of,
    process_events,
    stamp,
    unknown_touch,
)

EVENT = events.ses_bounce("1-aaaaaaaaaaaaaaaaaaaa")


async def post(hooks: Hooks, message: dict[str, Any]) -> int:
    headers = {"x-amz-sns-message-type": message["Type"], "content-type": "text/plain; charset=UTF-8"}
    return (await hooks.http.post("/webhooks/ses", content=json.dumps(message), headers=headers)).status_code


@pytest.mark.parametrize("version", ["1", "2"])
async def test_a_notification_is_kept_and_queued(ses: Hooks, sns: Sns, version: str) -> None:
    assert await post(ses, sns.notification(EVENT, version=version)) == 200
    assert ses.stored_events() == [("webhook:ses", EVENT)]
    assert await ses.queued() == 1


async def test_what_ses_says_takes_effect_once_it_is_judged(ses: Hooks, sns: Sns) -> None:
    touch, tag = unknown_touch(ses)
    assert await post(ses, sns.notification(events.ses_bounce(tag))) == 200
    assert process_events(ses) == [(BounceClass.HARD, touch)]
    with read(ses.engine) as connection:
        assert touch_row(connection, touch).state is TouchState.BOUNCED


async def test_a_subject_is_signed_where_there_is_one(ses: Hooks, sns: Sns) -> None:
    assert await post(ses, sns.notification(EVENT, Subject="Amazon SES Email Event Notification")) == 200
    without = sns.notification(events.ses_bounce("2-aaaaaaaaaaaaaaaaaaaa"))
    assert await post(ses, {**without, "Subject": None}) == 200
    assert await post(ses, {**without, "Subject": "added"}) == 403
    assert len(ses.stored_events()) == 2


async def test_it_comes_again_and_is_one_and_the_certificate_is_asked_for_once(ses: Hooks, sns: Sns) -> None:
    for _ in range(3):
        assert await post(ses, sns.notification(EVENT)) == 200
    assert len(ses.stored_events()) == 1
    assert await ses.queued() == 1
    assert sns.asked == [CERTIFICATE.removeprefix(f"https://{HOST}")]


@pytest.mark.parametrize(
    "changed",
    [
        {"Message": '{"eventType": "Bounce"}'},
        {"Signature": "AAAA"},
        {"Signature": "not base 64"},
        {"Signature": ""},
        {"SignatureVersion": "3"},
        {"MessageId": "another"},
        {"TopicArn": "arn:aws:sns:eu-west-1:666666666666:bounces"},
        {"Type": "Something"},
        {"Message": 7},
    ],
)
async def test_what_was_changed_is_refused(ses: Hooks, sns: Sns, changed: dict[str, Any]) -> None:
    assert await post(ses, {**sns.notification(EVENT), **changed}) == 403
    assert (ses.stored_events(), await ses.queued()) == ([], 0)


async def test_a_signature_of_another_key_is_refused(ses: Hooks, sns: Sns) -> None:
    sns.key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    assert await post(ses, sns.notification(EVENT)) == 403
    assert ses.stored_events() == []


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-{0}.pem",
        "https://evil.example/SimpleNotificationService-{0}.pem",
        "https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-{0}.pem",
        "https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-{0}.pem",
        "https://sns.eu-west-1.amazonaws.com:8443/SimpleNotificationService-{0}.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-{0}.pem",
        "https://sns.eu-west-1.amazonaws.com/my-bucket/SimpleNotificationService-{0}.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-{0}.pem?x=1",
        "https://[sns/",
        "",
    ],
)
async def test_a_certificate_from_elsewhere_is_not_asked_for(ses: Hooks, sns: Sns, url: str) -> None:
    message = sns.notification(EVENT, SigningCertURL=url.format("0" * 32))
    assert await post(ses, message) == 403
    assert (sns.asked, ses.stored_events()) == ([], [])


async def test_a_redirect_to_a_certificate_is_refused(ses: Hooks, sns: Sns) -> None:
    sns.site.status = "302 Found"
    sns.site.headers = "Location: https://evil.example/"
    assert await post(ses, sns.notification(EVENT)) == 403
    assert len(sns.asked) == 1
    # It is not fetched again at once, for any request.
    assert await post(ses, sns.notification(EVENT)) == 503
    assert len(sns.asked) == 1


def test_each_region_has_a_host_of_its_own() -> None:
    assert host_of("arn:aws:sns:us-east-1:123456789012:bounces") == "sns.us-east-1.amazonaws.com"
    assert host_of("arn:aws-cn:sns:cn-north-1:123456789012:bounces") == "sns.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize("since_days", [-60, 10])
async def test_a_certificate_that_is_not_valid_today_is_refused(ses: Hooks, sns: Sns, since_days: int) -> None:
    sns.certificate = certificate_of(sns.key, datetime.now(UTC) + timedelta(days=since_days))
    assert await post(ses, sns.notification(EVENT)) == 403


async def test_what_was_signed_long_ago_or_will_be_is_refused(ses: Hooks, sns: Sns) -> None:
    for days in (-2, 1):
        message = sns.notification(EVENT, Timestamp=stamp(datetime.now(UTC) + timedelta(days=days)))
        assert await post(ses, message) == 403
    assert await post(ses, sns.notification(EVENT, Timestamp="yesterday")) == 403
    assert ses.stored_events() == []


async def test_a_subscription_is_confirmed_at_the_host_of_sns(ses: Hooks, sns: Sns) -> None:
    assert await post(ses, sns.confirmation()) == 200
    assert sns.asked[1].startswith("/?Action=ConfirmSubscription")
    assert ses.stored_events() == []


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/?Action=ConfirmSubscription",
        "http://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription",
        f"https://{HOST}.evil.example/",
        f"https://{HOST}@evil.example/",
        "https://169.254.169.254/latest/meta-data",
    ],
)
async def test_a_subscription_is_confirmed_nowhere_else_even_if_signed(ses: Hooks, sns: Sns, url: str) -> None:
    assert await post(ses, sns.confirmation(SubscribeURL=url)) == 403
    assert len(sns.asked) == 1  # The certificate.


async def test_a_forged_confirmation_is_not_followed(ses: Hooks, sns: Sns) -> None:
    assert await post(ses, {**sns.confirmation(), "Token": "forged"}) == 403
    assert len(sns.asked) == 1


async def test_the_end_of_a_subscription_is_not_undone_and_plain_words_are_no_event(ses: Hooks, sns: Sns) -> None:
    assert await post(ses, sns.confirmation(Type="UnsubscribeConfirmation")) == 200
    assert await post(ses, sns.notification("Successfully validated SNS topic for Amazon SES event publishing.")) == 200
    assert (len(sns.asked), ses.stored_events()) == (1, [])

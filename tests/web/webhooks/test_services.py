"""The webhooks of SendGrid, Postmark and Mailgun over real HTTP: what is theirs is kept and queued, nothing else is."""

from __future__ import annotations

import hmac
import json
import logging
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from postroad.bounce.classify import BounceClass
from postroad.errors import UnavailableError
from postroad.queue import Queue
from postroad.settings import RateSetting, WebSettings
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from tests.bounce.esp import events
from tests.store.rows import touch_row
from tests.web.conftest import open_web
from tests.web.webhooks.conftest import SECRET, Hooks, OpenHooks, process_events, public_key, unknown_touch

TAG = "1-aaaaaaaaaaaaaaaaaaaa"
MakeRequest = Callable[[str, ec.EllipticCurvePrivateKey], tuple[bytes, dict[str, str]]]
DAY_MS = 86_400_000
BOUNCE = events.sendgrid("bounce", TAG, **events.NO_SUCH_USER)


# -- SendGrid


def sendgrid(key: ec.EllipticCurvePrivateKey, body: bytes, at: int | None = None) -> dict[str, str]:
    timestamp = str(int(time.time()) if at is None else at)
    signature = key.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))
    return {
        "X-Twilio-Email-Event-Webhook-Signature": b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        "Content-Type": "application/json",
    }


async def test_sendgrids_events_are_kept_one_by_one_and_queued(
    hooks: Hooks, sendgrid_key: ec.EllipticCurvePrivateKey
) -> None:
    many = [{**BOUNCE, "sg_event_id": str(number)} for number in range(200)]
    body = json.dumps([*many, many[0], events.sendgrid("open", TAG)]).encode()
    for _ in range(2):  # It comes again when the answer was lost.
        answer = await hooks.http.post("/webhooks/sendgrid", content=body, headers=sendgrid(sendgrid_key, body))
        assert (answer.status_code, answer.content) == (200, b"")
    assert len(hooks.stored_events()) == 200
    assert await hooks.queued() == 200


async def test_what_sendgrid_did_not_sign_is_refused(hooks: Hooks, sendgrid_key: ec.EllipticCurvePrivateKey) -> None:
    body = json.dumps([BOUNCE]).encode()
    good = sendgrid(sendgrid_key, body)
    stranger = sendgrid(ec.generate_private_key(ec.SECP256R1()), body)
    now = int(time.time())
    tries: list[tuple[bytes, dict[str, str]]] = [
        (body + b" ", good),
        (body, stranger),
        (body, {**good, "X-Twilio-Email-Event-Webhook-Timestamp": str(now - 1)}),
        (body, {**good, "X-Twilio-Email-Event-Webhook-Timestamp": ""}),
        (body, {**good, "X-Twilio-Email-Event-Webhook-Timestamp": "²"}),
        (body, {**good, "X-Twilio-Email-Event-Webhook-Signature": ""}),
        (body, {**good, "X-Twilio-Email-Event-Webhook-Signature": "///"}),
        (body, {}),
        (body, sendgrid(sendgrid_key, body, now - 2 * 86_400)),
        (body, sendgrid(sendgrid_key, body, now + 3_600)),
    ]
    for content, headers in tries:
        sent = {name.encode(): value.encode() for name, value in headers.items()}
        assert (await hooks.http.post("/webhooks/sendgrid", content=content, headers=sent)).status_code == 403
    assert (hooks.stored_events(), await hooks.queued()) == ([], 0)


async def test_a_replay_changes_nothing_and_later_is_refused(
    hooks: Hooks, sendgrid_key: ec.EllipticCurvePrivateKey
) -> None:
    body = json.dumps([BOUNCE]).encode()
    headers = sendgrid(sendgrid_key, body)
    assert (await hooks.http.post("/webhooks/sendgrid", content=body, headers=headers)).status_code == 200
    assert (await hooks.http.post("/webhooks/sendgrid", content=body, headers=headers)).status_code == 200
    assert len(hooks.stored_events()) == await hooks.queued() == 1
    hooks.clock.ahead_ms = DAY_MS + 60_000
    assert (await hooks.http.post("/webhooks/sendgrid", content=body, headers=headers)).status_code == 403


# -- Postmark


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic " + b64encode(f"postroad:{SECRET}".encode()).decode()},
        {"Authorization": "basic " + b64encode(f"postroad:{SECRET}".encode()).decode()},
        {"X-Postroad-Secret": SECRET},
    ],
)
async def test_postmark_shows_its_secret_in_either_place(hooks: Hooks, headers: dict[str, str]) -> None:
    for _ in range(2):
        answer = await hooks.http.post("/webhooks/postmark", json=events.postmark_bounce(TAG), headers=headers)
        assert answer.status_code == 200
    assert [source for source, _ in hooks.stored_events()] == ["webhook:postmark"]
    assert await hooks.queued() == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic"},
        {"Authorization": "Basic " + b64encode(b"postroad:guess").decode()},
        {"Authorization": "Basic " + b64encode(f"somebody:{SECRET}".encode()).decode()},
        {"Authorization": f"Bearer {SECRET}"},
        {"X-Postroad-Secret": SECRET + "x"},
        {"X-Postroad-Secret": ""},
    ],
)
async def test_postmark_without_it_is_refused(hooks: Hooks, headers: dict[str, str]) -> None:
    answer = await hooks.http.post("/webhooks/postmark", json=events.postmark_bounce(TAG), headers=headers)
    assert answer.status_code == 401
    assert (hooks.stored_events(), await hooks.queued()) == ([], 0)


# -- Mailgun


def mailgun(
    event: dict[str, Any], *, token: str = "t" * 50, at: int | None = None, key: str = SECRET
) -> dict[str, Any]:
    timestamp = str(int(time.time()) if at is None else at)
    signature = hmac.new(key.encode(), f"{timestamp}{token}".encode(), "sha256").hexdigest()
    return {"signature": {"timestamp": timestamp, "token": token, "signature": signature}, **event}


async def test_mailguns_event_is_kept_without_its_signature(hooks: Hooks) -> None:
    event = events.mailgun_failed(TAG)
    assert (await hooks.http.post("/webhooks/mailgun", json=mailgun(event))).status_code == 200
    assert hooks.stored_events() == [("webhook:mailgun", event["event-data"])]
    # With a new signature it is still the same event.
    assert (await hooks.http.post("/webhooks/mailgun", json=mailgun(event, token="u" * 50))).status_code == 200
    assert len(hooks.stored_events()) == await hooks.queued() == 1


async def test_a_token_of_mailguns_is_taken_once_whatever_it_comes_with(hooks: Hooks) -> None:
    signed = mailgun(events.mailgun("opened", TAG))  # Of no interest, and its signature might be used for another.
    assert (await hooks.http.post("/webhooks/mailgun", json=signed)).status_code == 200
    forged = {**signed, **events.mailgun_failed(TAG)}
    assert (await hooks.http.post("/webhooks/mailgun", json=forged)).status_code == 406
    assert (await hooks.http.post("/webhooks/mailgun", json=signed)).status_code == 406
    assert (hooks.stored_events(), await hooks.queued()) == ([], 0)


async def test_what_mailgun_did_not_sign_is_refused(hooks: Hooks) -> None:
    event = events.mailgun_failed(TAG)
    now = int(time.time())
    signed = mailgun(event)["signature"]
    tries = [
        mailgun(event, key="another key altogether"),
        mailgun(event, at=now - 2 * 86_400),
        mailgun(event, at=now + 3_600),
        mailgun(event, token=""),
        {**event, "signature": {**signed, "timestamp": str(now - 1)}},
        {**event, "signature": {**signed, "token": "u" * 50}},
        {**event, "signature": {**signed, "signature": ""}},
        {**event, "signature": {**signed, "timestamp": "soon"}},
        {**event, "signature": None},
        event,
    ]
    for document in tries:
        assert (await hooks.http.post("/webhooks/mailgun", json=document)).status_code == 403
    assert (hooks.stored_events(), await hooks.queued()) == ([], 0)


async def test_an_event_of_a_subaccount_is_signed_by_the_account_too(hooks: Hooks) -> None:
    ours = mailgun(events.mailgun_failed(TAG))
    signature = {**ours["signature"], "signature": "0" * 64, "parent-signature": ours["signature"]["signature"]}
    assert (await hooks.http.post("/webhooks/mailgun", json={**ours, "signature": signature})).status_code == 200


# -- all of them


def request_of_sendgrid(tag: str, key: ec.EllipticCurvePrivateKey) -> tuple[bytes, dict[str, str]]:
    body = json.dumps([events.sendgrid("bounce", tag, **events.NO_SUCH_USER)]).encode()
    return body, sendgrid(key, body)


def request_of_postmark(tag: str, _: ec.EllipticCurvePrivateKey) -> tuple[bytes, dict[str, str]]:
    return json.dumps(events.postmark_bounce(tag)).encode(), {"X-Postroad-Secret": SECRET}


def request_of_mailgun(tag: str, _: ec.EllipticCurvePrivateKey) -> tuple[bytes, dict[str, str]]:
    return json.dumps(mailgun(events.mailgun_failed(tag))).encode(), {}


@pytest.mark.parametrize("make_request", [request_of_sendgrid, request_of_postmark, request_of_mailgun])
async def test_an_event_takes_effect_once_it_is_processed(
    hooks: Hooks, sendgrid_key: ec.EllipticCurvePrivateKey, make_request: MakeRequest
) -> None:
    touch, tag = unknown_touch(hooks)
    body, headers = make_request(tag, sendgrid_key)
    path = f"/webhooks/{make_request.__name__.rpartition('_')[2]}"
    assert (await hooks.http.post(path, content=body, headers=headers)).status_code == 200
    assert process_events(hooks) == [(BounceClass.HARD, touch)]
    with read(hooks.engine) as connection:
        assert touch_row(connection, touch).state is TouchState.BOUNCED


@pytest.mark.parametrize("name", ["ses", "sendgrid", "postmark", "mailgun", "other"])
async def test_one_that_has_no_section_does_not_exist(engine: sa.Engine, opened: OpenHooks, name: str) -> None:
    async with opened(WebSettings()) as hooks:
        answers = [await hooks.http.post(path, json={}) for path in (f"/webhooks/{name}", "/nothing")]
    assert {(answer.status_code, answer.text) for answer in answers} == {(404, answers[1].text)}


@pytest.mark.parametrize("name", ["ses", "sendgrid", "postmark", "mailgun"])
async def test_only_post_and_only_so_much_is_read(hooks: Hooks, name: str) -> None:
    assert (await hooks.http.get(f"/webhooks/{name}")).status_code == 405
    headers = {"X-Postroad-Secret": SECRET}
    answer = await hooks.http.post(f"/webhooks/{name}", content=b"[" * 1_100_000, headers=headers)
    assert answer.status_code == 413
    for odd in (b"", b"\xff", b"[" * 100_000, b'"\\ud800"', b"7"):
        answer = await hooks.http.post(f"/webhooks/{name}", content=odd, headers=headers)
        assert answer.status_code in (400, 403)
    assert hooks.stored_events() == []


async def test_while_the_queue_is_away_it_has_to_come_again_and_nothing_is_lost(
    engine: sa.Engine, queue: Queue, web_settings: WebSettings
) -> None:
    async def no_queue() -> Queue:
        raise UnavailableError("the queue is away")

    signed = mailgun(events.mailgun_failed(TAG))
    async with open_web(engine, no_queue, web_settings) as http:
        answer = await http.post("/webhooks/mailgun", json=signed)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")

    async def the_queue() -> Queue:
        return queue

    async with open_web(engine, the_queue, web_settings) as http:
        assert (await http.post("/webhooks/mailgun", json=signed)).status_code == 200


async def test_while_the_database_is_away_it_has_to_come_again(
    away: sa.Engine, queue: Queue, web_settings: WebSettings
) -> None:
    async def the_queue() -> Queue:
        return queue

    async with open_web(away, the_queue, web_settings) as http:
        assert (await http.post("/webhooks/mailgun", json=mailgun(events.mailgun_failed(TAG)))).status_code == 503


async def test_the_log_says_who_was_refused_and_shows_no_secret(hooks: Hooks, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await hooks.http.post(
            "/webhooks/postmark", json=events.postmark_bounce(TAG), headers={"X-Postroad-Secret": "x"}
        )
        await hooks.http.post("/webhooks/mailgun", json=mailgun(events.mailgun_failed(TAG)))
    ours = [one.getMessage() for one in caplog.records if not one.name.startswith(("httpx", "httpcore"))]
    assert any("webhook of postmark was refused: the secret is missing or wrong" in line for line in ours)
    assert any(line.startswith("POST /webhooks/mailgun 200 in ") for line in ours)
    assert not any(SECRET in line or "ada@" in line or TAG in line for line in ours)


async def test_forged_requests_are_limited_and_signed_ones_are_not(
    opened: OpenHooks, web_settings: WebSettings, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"rate": RateSetting(count=60, per_ms=60_000), "trusted_proxies": ("127.0.0.1",)}
    forged = mailgun(events.mailgun_failed(TAG), key="another key")
    async with opened(web_settings.model_copy(update=given)) as hooks:

        async def call(document: dict[str, Any], client: str = "192.0.2.1") -> httpx.Response:
            headers = {"X-Forwarded-For": client}
            answer: httpx.Response = await hooks.http.post("/webhooks/mailgun", json=document, headers=headers)
            return answer

        answers = [await call(forged) for _ in range(10)]
        assert [answer.status_code for answer in answers] == [403] * 3 + [429] * 7  # Each counts for 20.
        assert int(answers[-1].headers["Retry-After"]) in range(1, 61)
        assert sum("was refused" in record.getMessage() for record in caplog.records) == 3
        signed = [mailgun(events.mailgun("delivered", TAG, id=str(n)), token=f"{n:050}") for n in range(100)]
        assert {(await call(document)).status_code for document in signed} == {200}
        assert (await call(signed[0])).status_code == 406  # It is Mailgun's, and not to come again.
        assert (await call(forged, "192.0.2.2")).status_code == 403
        hooks.clock.ahead_ms = 120_000
        assert (await call(forged)).status_code == 403
        assert len(hooks.stored_events()) == 100


async def test_an_answer_is_there_within_milliseconds(hooks: Hooks) -> None:
    """The median of fifty, so that a machine that does other things as well does not fail it."""
    took: list[float] = []
    for number in range(50):
        document = mailgun(events.mailgun("delivered", TAG, id=str(number)), token=f"{number:050}")
        begin = time.perf_counter()
        answer: httpx.Response = await hooks.http.post("/webhooks/mailgun", json=document)
        took.append(time.perf_counter() - begin)
        assert answer.status_code == 200
    assert sorted(took)[25] < 0.1


def test_settings_show_no_secret(web_settings: WebSettings, sendgrid_key: ec.EllipticCurvePrivateKey) -> None:
    assert SECRET not in repr(web_settings)
    assert public_key(sendgrid_key) in repr(web_settings)

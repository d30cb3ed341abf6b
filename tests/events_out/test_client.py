"""One request to an endpoint: its signature, its limits, and the addresses that it may go to."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from postroad.clock import SystemClock
from postroad.dns.resolver import Resolver
from postroad.events_out.client import (
    MAX_RETRY_AFTER_S,
    EndpointClient,
    WebhookAnswer,
    WebhookOutcome,
    parse_retry_after_s,
)
from postroad.events_out.signature import WebhookSigner, make_secret
from postroad.settings.webhooks_out import WebhookEndpointSettings
from tests.dns.nameserver import Nameserver
from tests.events_out.receiver import (
    OLD_SECRET,
    SECRET,
    Answer,
    die,
    drip_body,
    drip_status,
    flood,
    hang,
    receiving,
    status,
    twice,
)
from tests.smtp.conftest import Certificates
from tests.store.rows import NOW

BODY = b'{"type":"test"}'
LOOPBACK = ("127.0.0.0/8", "::1/128")
METADATA = "http://169.254.169.254/latest/meta-data/"


def settings(
    url: str, *, allow: tuple[str, ...] = LOOPBACK, ca_file: Path | None = None, timeout_ms: int = 15_000
) -> WebhookEndpointSettings:
    return WebhookEndpointSettings(
        url=url, secret=SecretStr(SECRET), allow_networks=allow, timeout_ms=timeout_ms, ca_file=ca_file
    )


async def post(url: str, resolver: Resolver, **options: object) -> WebhookAnswer:
    given = settings(url, **options)  # type: ignore[arg-type]
    headers = WebhookSigner([SECRET]).headers("evt_1", SystemClock().now(), BODY)
    async with EndpointClient("shop", given, resolver) as client:
        return await client.post(BODY, headers)


async def test_a_receiver_verifies_what_is_sent(resolver: Resolver) -> None:
    async with receiving() as receiver:
        answer = await post(receiver.url, resolver)
        assert (answer.outcome, answer.status, answer.error) == (WebhookOutcome.DELIVERED, 204, None)
        [(headers, body)] = receiver.requests
    assert body == {"type": "test"}
    assert headers["webhook-id"] == "evt_1"
    assert headers["content-type"] == "application/json"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize("secret", [SECRET, OLD_SECRET])
async def test_each_key_of_a_ring_verifies_and_no_other_does(resolver: Resolver, secret: str) -> None:
    headers = WebhookSigner([SECRET, OLD_SECRET]).headers("evt_1", SystemClock().now(), BODY)
    Webhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(make_secret()).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, {**headers, "webhook-id": "evt_2"})


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        (status("500 Internal Server Error", body="broken"), WebhookOutcome.REJECTED, 500),
        (status("400 Bad Request"), WebhookOutcome.REJECTED, 400),
        (status("410 Gone"), WebhookOutcome.GONE, 410),
        (status("429 Slow Down", "Retry-After: 7"), WebhookOutcome.THROTTLED, 429),
        (status("503 Busy", "Retry-After: soon"), WebhookOutcome.REJECTED, 503),
        (status("302 Found", f"Location: {METADATA}"), WebhookOutcome.REDIRECTED, 302),
        (hang, WebhookOutcome.TIMEOUT, None),
        (drip_status, WebhookOutcome.TIMEOUT, None),
        (die, WebhookOutcome.UNREACHABLE, None),
        (drip_body, WebhookOutcome.DELIVERED, 200),
        (flood, WebhookOutcome.DELIVERED, 200),
        (twice, WebhookOutcome.DELIVERED, 204),
    ],
)
async def test_each_answer_has_one_outcome_within_the_deadline(
    resolver: Resolver, answer: Answer, outcome: WebhookOutcome, code: int | None
) -> None:
    async with receiving() as receiver:
        receiver.default = answer
        began = time.monotonic()
        timeout_ms = 1_000 if outcome is WebhookOutcome.TIMEOUT else 15_000
        got = await post(receiver.url, resolver, timeout_ms=timeout_ms)
        assert (got.outcome, got.status) == (outcome, code), got
        assert time.monotonic() - began < 12  # 1 s until the status, or 2 s for the body
        assert len(receiver.requests) == 1


async def test_a_second_response_is_not_taken_for_that_of_the_next_request(resolver: Resolver) -> None:
    given = [twice, status("404 Not Found"), twice]
    headers = WebhookSigner([SECRET]).headers("evt_1", SystemClock().now(), BODY)
    async with receiving() as receiver, EndpointClient("shop", settings(receiver.url), resolver) as client:
        receiver.answers = [*given]
        outcomes = [(await client.post(BODY, headers)).outcome for _ in given]
        assert receiver.connections == len(given)
    assert outcomes == [WebhookOutcome.DELIVERED, WebhookOutcome.REJECTED, WebhookOutcome.DELIVERED]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "[fe80::1]",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.0.1",
        "100.64.0.1",
        "[fd00::1]",
        "224.0.0.1",
        "[ff02::1]",
        "0.0.0.0",  # noqa: S104
        "[::]",
        "0x7f000001",
        "2130706433",
        "127.1",
    ],
)
async def test_an_address_that_leads_inside_is_refused(resolver: Resolver, host: str) -> None:
    async with receiving() as receiver:
        url = f"https://{host}:{receiver.port}/"
        try:
            answer = await post(url, resolver, allow=())
        except ValueError:
            pytest.skip("no URL")
        assert answer.outcome in (WebhookOutcome.FORBIDDEN, WebhookOutcome.UNREACHABLE)
        assert receiver.connections == 0


@pytest.mark.parametrize("records", [{"A": ["127.0.0.1"]}, {"A": ["10.0.0.1"], "AAAA": ["::1"]}, {"AAAA": ["fe80::1"]}])
async def test_a_name_that_leads_inside_is_refused(
    resolver: Resolver, nameserver: Nameserver, records: dict[str, list[str]]
) -> None:
    nameserver.zone["hooks.example.com"] = records
    async with receiving() as receiver:
        answer = await post(f"https://hooks.example.com:{receiver.port}/", resolver, allow=())
        assert answer.outcome is WebhookOutcome.FORBIDDEN
        assert "allow_networks" in (answer.error or "")
        assert receiver.connections == 0


async def test_a_name_is_asked_once_and_its_address_is_connected_to(nameserver: Nameserver) -> None:
    """DNS that changes its mind after the check has no effect: the second answer is never asked for."""
    nameserver.ttl_s = 0
    zone = nameserver.zone["hooks.example.com"] = {"A": ["127.0.0.1"]}
    asked: list[int] = []
    fill: Callable[..., None] = nameserver._fill

    def changing(response: object, name: str, kind: str) -> None:
        fill(response, name, kind)
        asked.append(1)
        zone["A"] = ["127.0.0.2"]

    nameserver._fill = changing  # type: ignore[method-assign]
    async with receiving() as receiver, Resolver(nameserver.settings(), SystemClock()) as resolver:
        url = f"http://hooks.example.com:{receiver.port}/"
        answer = await post(url, resolver, allow=("127.0.0.1/32",))
        assert answer.outcome is WebhookOutcome.DELIVERED
        assert nameserver.asked["hooks.example.com", "A"] == 1
        [(headers, _)] = receiver.requests
        assert headers["host"] == f"hooks.example.com:{receiver.port}"
        # The next request asks again, and the new address is not allowed.
        assert (await post(url, resolver, allow=("127.0.0.1/32",))).outcome is WebhookOutcome.FORBIDDEN
        assert receiver.connections == 1


async def test_a_redirect_is_not_followed(resolver: Resolver) -> None:
    async with receiving() as target, receiving() as receiver:
        receiver.default = status("307 Temporary Redirect", f"Location: {target.url}")
        assert (await post(receiver.url, resolver)).outcome is WebhookOutcome.REDIRECTED
        assert target.connections == 0


async def test_the_certificate_must_be_that_of_the_name(
    resolver: Resolver, nameserver: Nameserver, tmp_path: Path
) -> None:
    certificates = Certificates(tmp_path, names=("hooks.example.com",))
    for name in ("hooks.example.com", "other.example.com"):
        nameserver.zone[name] = {"A": ["127.0.0.1"]}
    async with receiving(context=certificates.server_context()) as receiver:
        for name, outcome in (
            ("hooks.example.com", WebhookOutcome.DELIVERED),
            ("other.example.com", WebhookOutcome.UNREACHABLE),
        ):
            url = f"https://{name}:{receiver.port}/"
            assert (await post(url, resolver, ca_file=certificates.ca_file)).outcome is outcome
        unknown = await post(f"https://hooks.example.com:{receiver.port}/", resolver)
        assert unknown.outcome is WebhookOutcome.UNREACHABLE
        assert len(receiver.requests) == 1


async def test_a_proxy_of_the_environment_is_not_used(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy, receiving() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert (await post(receiver.url, resolver)).outcome is WebhookOutcome.DELIVERED
        assert proxy.connections == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7.0),
        ("0", 1.0),
        ("99999999999999999999", MAX_RETRY_AFTER_S),
        ("Mon, 04 May 2026 08:31:00 GMT", 60.0),
        ("Mon, 04 May 2020 08:31:00 GMT", 1.0),
        ("-5", None),
        ("", None),
        ("soon", None),
        ("1.5", None),
        ("Mon, 99 May 2026 08:31:00 GMT", None),
    ],
)
def test_retry_after_is_bounded(text: str, expected: float | None) -> None:
    assert parse_retry_after_s(text, NOW) == expected

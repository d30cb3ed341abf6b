"""The webhooks, served for real, with keys made for the tests, and a host of SNS on loopback."""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr

from postroad.bounce.classify import BounceClass
from postroad.bounce.mail_worker import parse_stored
from postroad.bounce.process import BounceRules, process
from postroad.clock import SystemClock
from postroad.mail.token import Purpose
from postroad.queue import Queue
from postroad.settings import BounceSettings, WebSettings
from postroad.store.bounce import waiting_mails
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from tests.bounce.esp import events
from tests.https import Site, https
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch
from tests.web.conftest import SIGNER, open_web

SECRET = "a secret of the tests"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:bounces"
HOST = "sns.eu-west-1.amazonaws.com"
CERTIFICATE = f"https://{HOST}/SimpleNotificationService-{'0' * 32}.pem"


class Clock(SystemClock):
    """The system clock plus an offset."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms

    def now(self) -> datetime:
        return super().now() + timedelta(milliseconds=self.ahead_ms)


@dataclass(kw_only=True)
class Hooks:
    engine: sa.Engine
    queue: Queue
    http: httpx.AsyncClient
    clock: Clock

    def stored_events(self) -> list[tuple[str, dict[str, Any]]]:
        """Source and event of each row."""
        with read(self.engine) as connection:
            rows = connection.execute(sa.text("SELECT source, raw FROM bounce_mail ORDER BY source, digest"))
            return [(row.source, json.loads(bytes(row.raw))) for row in rows]

    async def queued(self) -> int:
        return (await self.queue.stats()).queued


@pytest.fixture(scope="session")
def sendgrid_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public_key(key: ec.EllipticCurvePrivateKey) -> str:
    return b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


@pytest.fixture(scope="session")
def web_settings(sendgrid_key: ec.EllipticCurvePrivateKey) -> WebSettings:
    webhooks = {
        "ses": {"topics": [TOPIC]},
        "sendgrid": {"public_key": public_key(sendgrid_key)},
        "postmark": {"secret": SecretStr(SECRET)},
        "mailgun": {"signing_key": SecretStr(SECRET)},
    }
    return WebSettings.model_validate({"webhooks": webhooks})


OpenHooks = Callable[..., Any]


@pytest.fixture
def opened(engine: sa.Engine, queue: Queue, web_settings: WebSettings) -> OpenHooks:
    @asynccontextmanager
    async def _open(
        settings: WebSettings = web_settings, *, asks: httpx.AsyncClient | None = None
    ) -> AsyncIterator[Hooks]:
        async def the_queue() -> Queue:
            return queue

        clock = Clock()
        async with open_web(engine, the_queue, settings, clock=clock, asks=asks) as http:
            yield Hooks(engine=engine, queue=queue, http=http, clock=clock)

    return _open


@pytest.fixture
async def hooks(opened: OpenHooks) -> AsyncIterator[Hooks]:
    async with opened() as hooks:
        yield hooks


def unknown_touch(hooks: Hooks) -> tuple[int, str]:
    """Add a touch in the state ``unknown``. Returns it and the tag of its message."""
    with write(hooks.engine) as connection:
        campaign, (step,) = add_campaign(connection)
        recipient = add_recipient(connection, events.ADA)
        touch = add_touch(connection, campaign, step, TouchState.UNKNOWN, recipient_id=recipient)
    return touch, SIGNER.sign(Purpose.MESSAGE_ID, touch)


def process_events(hooks: Hooks) -> list[tuple[BounceClass, int | None]]:
    """Judge what was kept. Returns the verdict on each, and its touch."""
    with read(hooks.engine) as connection:
        digests = [digest for digest, _ in waiting_mails(connection, 10)]
    rules = BounceRules(signer=SIGNER, settings=BounceSettings())
    processed = process(hooks.engine, digests, rules=rules, read=parse_stored, now=NOW)
    return [(one.verdict, one.touch_id) for one in processed if one is not None]


# -- SNS


class Sns:
    """SNS of one region: a key, its certificate, and what it is asked."""

    def __init__(self, site: Site, trust: ssl.SSLContext) -> None:
        self.key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
        self.site = site
        self.trust = trust
        self.site.body = self._answer
        self.certificate = certificate_of(self.key, datetime.now(UTC) - timedelta(days=1))

    def _answer(self, request: str) -> str:
        return self.certificate if ".pem" in request.partition("\r\n")[0] else "confirmed"

    @property
    def asked(self) -> list[str]:
        return [request.split(" ")[1] for request in self.site.requests]

    def signed(self, message: dict[str, Any], *, version: str = "2") -> dict[str, Any]:
        message = {"SigningCertURL": CERTIFICATE, **message, "SignatureVersion": version}
        names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
        text = "".join(f"{name}\n{message[name]}\n" for name in names if message.get(name) is not None)
        algorithm: HashAlgorithm = SHA1() if version == "1" else SHA256()  # noqa: S303
        return {
            **message,
            "Signature": b64encode(self.key.sign(text.encode(), padding.PKCS1v15(), algorithm)).decode(),
        }

    def notification(self, event: dict[str, Any] | str, *, version: str = "2", **more: Any) -> dict[str, Any]:
        message = {
            "Type": "Notification",
            "MessageId": "22b80b92",
            "TopicArn": TOPIC,
            "Message": event if isinstance(event, str) else json.dumps(event),
            "Timestamp": stamp(datetime.now(UTC)),
            "UnsubscribeURL": f"https://{HOST}/?Action=Unsubscribe",
        }
        return self.signed({**message, **more}, version=version)

    def confirmation(self, **more: Any) -> dict[str, Any]:
        message = {
            "Type": "SubscriptionConfirmation",
            "MessageId": "165545c9",
            "Token": "2336412f37",
            "TopicArn": TOPIC,
            "Message": "You have chosen to subscribe.",
            "SubscribeURL": f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37",
            "Timestamp": stamp(datetime.now(UTC)),
        }
        return self.signed({**message, **more})


def stamp(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%S}.{instant.microsecond // 1000:03}Z"


def certificate_of(key: rsa.RSAPrivateKey, since: datetime, days: int = 30) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(since).not_valid_after(since + timedelta(days=days))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.fixture
async def sns(tmp_path: Path) -> AsyncIterator[Sns]:
    async with https(tmp_path, HOST, "") as (site, trust):
        yield Sns(site, trust)


class _ToLoopback(httpx.AsyncBaseTransport):
    """Finds every name at the site on loopback, whose certificate must be of the name that was asked for."""

    def __init__(self, sns: Sns) -> None:
        self._sns = sns
        self._inner = httpx.AsyncHTTPTransport(verify=sns.trust)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        request.url = request.url.copy_with(host="127.0.0.1", port=self._sns.site.port)
        request.extensions = {**request.extensions, "sni_hostname": host}
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.fixture
async def ses(opened: OpenHooks, sns: Sns) -> AsyncIterator[Hooks]:
    async with httpx.AsyncClient(transport=_ToLoopback(sns)) as asks, opened(asks=asks) as hooks:
        yield hooks

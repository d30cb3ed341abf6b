"""Verifies messages of Amazon SNS, which delivers those of SES: an RSA signature, by a certificate that SNS publishes.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html

Certificates and confirmations of subscriptions are fetched only for the topics in the settings, and only from the SNS
host of the topic's region. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import logging
import re
from base64 import b64decode
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import httpx
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

from postroad.errors import UnavailableError
from postroad.fetch import FetchError, HttpAnswer, fetch
from postroad.settings import SesWebhook
from postroad.web.webhooks.request import (
    VerifiedRequest,
    WebhookRefusedError,
    WebhookRequest,
    parse_json,
    require_recent,
)

FETCH_WITHIN_S = 5.0
MAX_CERTIFICATE_BYTES = 65_536
MAX_CERTIFICATES = 16
FAILED_FOR_MS = 60_000
_PATH = re.compile(r"/SimpleNotificationService-[0-9a-f]{32}\.pem")
# Version 1 is the default of a topic.
_HASHES: dict[str, HashAlgorithm] = {"1": SHA1(), "2": SHA256()}  # noqa: S303
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}

_T = TypeVar("_T")

log = logging.getLogger(__name__)


class SnsTopics:
    """Verifies messages of the configured topics, and confirms subscriptions to them."""

    def __init__(self, settings: SesWebhook, window_ms: int, http: httpx.AsyncClient) -> None:
        self._topics = frozenset(settings.topics)
        self._window_ms = window_ms
        self._http = http
        self._certificates: OrderedDict[str, x509.Certificate] = OrderedDict()
        self._failed_ms: OrderedDict[str, int] = OrderedDict()
        self._fetching = asyncio.Lock()

    async def verify(self, request: WebhookRequest) -> VerifiedRequest | None:
        """Return the notification of SES, or None for a message about the subscription.

        Args:
            request: The request.

        Returns:
            The notification.

        Raises:
            WebhookRefusedError: The message is not authentic, or not of a configured topic.
        """
        message = _parse_message(request.body)
        topic = message.get("TopicArn", "")
        if topic not in self._topics:
            raise WebhookRefusedError("its topic is not in the settings")
        certificate = await self._certificate(message.get("SigningCertURL", ""), host_of(topic), request.now_ms)
        _require_signed(message, certificate, request.now_ms)
        require_recent(_parse_time_ms(message.get("Timestamp", "")), request.now_ms, self._window_ms)
        match message["Type"]:
            case "SubscriptionConfirmation":
                await self._confirm(message.get("SubscribeURL", ""), topic)
                return None
            case "UnsubscribeConfirmation":
                log.warning("topic %s sends no more messages: the subscription was ended", topic)
                return None
            case _:
                # SNS itself sends a plain-text message to test a subscription.
                text = message["Message"].encode()
                return VerifiedRequest(document=parse_json(text)) if text.lstrip().startswith(b"{") else None

    async def _confirm(self, url: str, topic: str) -> None:
        _require_of_host(url, host_of(topic))
        answer = await self._get(url)
        if answer.status != 200:
            raise UnavailableError(f"the subscription to {topic} was not confirmed: {answer.status}")
        log.info("the subscription to topic %s is confirmed", topic)

    async def _certificate(self, url: str, host: str, now_ms: int) -> x509.Certificate:
        parts = _require_of_host(url, host)
        if not _PATH.fullmatch(parts.path) or parts.query:
            raise WebhookRefusedError("its certificate is not where SNS has them")
        if (cached := self._certificates.get(url)) is not None:
            return cached  # Returned without the lock, so that fetches of other certificates do not delay it.
        async with self._fetching:
            if (cached := self._certificates.get(url)) is not None:
                return cached
            if now_ms - self._failed_ms.get(url, -FAILED_FOR_MS) < FAILED_FOR_MS:
                raise UnavailableError("its certificate could not be read just now")
            try:
                certificate = await self._fetch(url)
            except (WebhookRefusedError, UnavailableError):
                _remember(self._failed_ms, url, now_ms)
                raise
            _remember(self._certificates, url, certificate)
            return certificate

    async def _fetch(self, url: str) -> x509.Certificate:
        answer = await self._get(url)
        if answer.status != 200:
            raise WebhookRefusedError(f"SNS has no such certificate: {answer.status}")
        try:
            return x509.load_pem_x509_certificate(answer.body)
        except ValueError:
            raise WebhookRefusedError("the file of SNS is not a certificate") from None

    async def _get(self, url: str) -> HttpAnswer:
        """Fetch a small response. Raises UnavailableError."""
        try:
            return await fetch(self._http, url, within_s=FETCH_WITHIN_S, max_bytes=MAX_CERTIFICATE_BYTES)
        except FetchError as error:
            raise UnavailableError(f"SNS is unreachable: {error}") from None


def host_of(topic: str) -> str:
    """Return the SNS host of a topic, by the region in its ARN."""
    _, partition, _, region, _, _ = topic.split(":")
    return f"sns.{region}.amazonaws.com{'.cn' if partition == 'aws-cn' else ''}"


def _parse_message(body: bytes) -> dict[str, str]:
    document = parse_json(body)
    if not isinstance(document, dict) or not all(
        isinstance(value, str) for value in _relevant_fields(document).values()
    ):
        raise WebhookRefusedError("its body is not a message of SNS")
    if document.get("Type") not in _SIGNED or "Message" not in document:
        raise WebhookRefusedError("its type is unknown")
    return _relevant_fields(document)


def _relevant_fields(document: dict[Any, Any]) -> dict[str, Any]:
    """Return the fields that are used. SNS writes null for a missing subject."""
    names = {*_SIGNED["Notification"], *_SIGNED["SubscriptionConfirmation"]}
    names |= {"Signature", "SignatureVersion", "SigningCertURL"}
    return {name: value for name, value in document.items() if name in names and value is not None}


def _require_of_host(url: str, host: str) -> SplitResult:
    """Return the parts of an HTTPS URL of exactly this host, without port and user name. Raises WebhookRefusedError."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise WebhookRefusedError("it has an invalid URL") from None
    if parts.scheme != "https" or parts.netloc != host or not url.isascii() or parts.fragment:
        raise WebhookRefusedError("it has a URL of another host than SNS")
    return parts


def _require_signed(message: dict[str, str], certificate: x509.Certificate, now_ms: int) -> None:
    algorithm, key = _HASHES.get(message.get("SignatureVersion", "")), certificate.public_key()
    if algorithm is None or not isinstance(key, RSAPublicKey):
        raise WebhookRefusedError("its signature version is unknown")
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise WebhookRefusedError("its certificate is not valid at this time")
    names = [name for name in _SIGNED[message["Type"]] if name in message]
    signed = "".join(f"{name}\n{message[name]}\n" for name in names)
    try:
        key.verify(b64decode(message.get("Signature", ""), validate=True), signed.encode(), PKCS1v15(), algorithm)
    except (ValueError, InvalidSignature):
        raise WebhookRefusedError("its signature is not that of SNS") from None


def _parse_time_ms(text: str) -> float:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp() * 1000
    except ValueError:
        raise WebhookRefusedError("its timestamp is invalid") from None


def _remember(cache: OrderedDict[str, _T], url: str, value: _T) -> None:
    cache[url] = value
    while len(cache) > MAX_CERTIFICATES:
        cache.popitem(last=False)

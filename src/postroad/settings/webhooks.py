"""What may be set about the webhooks of mail services. One that has no section does not exist."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pydantic import AfterValidator, Field, SecretStr

from postroad.settings.values import MAX_DURATION_MS, DurationMs, Section

_TOPIC = re.compile(r"arn:(aws|aws-cn|aws-us-gov):sns:[a-z0-9-]{4,30}:[0-9]{12}:[A-Za-z0-9_.-]{1,256}")


def _topic(text: str) -> str:
    if not _TOPIC.fullmatch(text):
        raise ValueError(f"{text!r} is no topic of SNS: write its ARN, as arn:aws:sns:eu-west-1:123456789012:bounces")
    return text


def read_public_key(text: str) -> EllipticCurvePublicKey:
    """Return a key on the curve P-256, as SendGrid shows it: DER in base 64. Raises ValueError."""
    try:
        key = load_der_public_key(b64decode(text, validate=True))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError(  # noqa: TRY004  (of a text, the value is wrong)
            "it is no verification key of SendGrid: copy it whole from the settings of the webhook there"
        )
    return key


def _public_key(text: str) -> str:
    read_public_key(text)
    return text


def _secret(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().isascii() or len(value.get_secret_value()) < MIN_SECRET_CHARACTERS:
        raise ValueError(f"it must have {MIN_SECRET_CHARACTERS} characters at least, all of them ASCII")
    return value


MIN_SECRET_CHARACTERS = 16
Secret = Annotated[SecretStr, AfterValidator(_secret)]


class SesWebhook(Section):
    """Amazon SES through SNS. Its messages are signed; whose they are is told by the topic, which they name."""

    topics: tuple[Annotated[str, AfterValidator(_topic)], ...] = Field(
        min_length=1, description="ARNs of the topics that are listened to"
    )


class SendgridWebhook(Section):
    """SendGrid, which signs each call."""

    public_key: Annotated[str, AfterValidator(_public_key)] = Field(description="the verification key that it shows")


class PostmarkWebhook(Section):
    """Postmark, which signs nothing, and shows a secret: as a password, or in a header."""

    secret: Secret = Field(description="by the environment")
    username: str = Field(default="postroad", min_length=1, pattern=r"^[\x21-\x39\x3b-\x7e]+$")
    header: str = Field(default="X-Postroad-Secret", pattern=r"^[A-Za-z0-9-]{1,100}$", description="that may bring it")


class MailgunWebhook(Section):
    """Mailgun, which signs an instant and a token, each of which is taken once."""

    signing_key: Secret = Field(description="by the environment; of the account, or of the domain")


class WebhookSettings(Section):
    """Paths of `postroad web` that mail services call."""

    window_ms: DurationMs = Field(
        default=86_400_000, ge=60_000, le=MAX_DURATION_MS, description="age of a signature from which on it is refused"
    )
    ses: SesWebhook | None = None
    sendgrid: SendgridWebhook | None = None
    postmark: PostmarkWebhook | None = None
    mailgun: MailgunWebhook | None = None

"""Settings of the webhooks of mail services. A service without a section has no webhook."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pydantic import AfterValidator, Field, SecretStr

from postroad.settings.types import MAX_DURATION_MS, DurationMs, Section

_TOPIC = re.compile(r"arn:(aws|aws-cn|aws-us-gov):sns:[a-z0-9-]{4,30}:[0-9]{12}:[A-Za-z0-9_.-]{1,256}")


def _topic(text: str) -> str:
    if not _TOPIC.fullmatch(text):
        raise ValueError(
            f"{text!r} is not an SNS topic: write its ARN, such as arn:aws:sns:eu-west-1:123456789012:bounces"
        )
    return text


def parse_public_key(text: str) -> EllipticCurvePublicKey:
    """Parse a key on the curve P-256 as SendGrid shows it: DER in base64.

    Args:
        text: The key.

    Returns:
        The public key.

    Raises:
        ValueError: The text is not such a key.
    """
    try:
        key = load_der_public_key(b64decode(text, validate=True))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError(  # noqa: TRY004  (the value of the text is wrong, not its type)
            "it is not a verification key of SendGrid: copy the whole key from the webhook's settings there"
        )
    return key


def _public_key(text: str) -> str:
    parse_public_key(text)
    return text


def _secret(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().isascii() or len(value.get_secret_value()) < MIN_SECRET_CHARACTERS:
        raise ValueError(f"it must have at least {MIN_SECRET_CHARACTERS} characters, all of them ASCII")
    return value


MIN_SECRET_CHARACTERS = 16
Secret = Annotated[SecretStr, AfterValidator(_secret)]


class SesWebhook(Section):
    """Amazon SES by SNS, whose messages are signed. The topic in a message identifies its account."""

    topics: tuple[Annotated[str, AfterValidator(_topic)], ...] = Field(
        min_length=1, description="ARNs of the accepted topics"
    )


class SendgridWebhook(Section):
    """SendGrid, which signs each request."""

    public_key: Annotated[str, AfterValidator(_public_key)] = Field(description="verification key of the webhook")


class PostmarkWebhook(Section):
    """Postmark, which does not sign requests, but sends a secret as a password or in a header."""

    secret: Secret = Field(description="set it in the environment")
    username: str = Field(default="postroad", min_length=1, pattern=r"^[\x21-\x39\x3b-\x7e]+$")
    header: str = Field(
        default="X-Postroad-Secret", pattern=r"^[A-Za-z0-9-]{1,100}$", description="header field with the secret"
    )


class MailgunWebhook(Section):
    """Mailgun, which signs a timestamp and a token. Each token is accepted once."""

    signing_key: Secret = Field(description="of the account or of the domain; set it in the environment")


class WebhookSettings(Section):
    """Webhooks of mail services at `postroad web`."""

    window_ms: DurationMs = Field(
        default=86_400_000, ge=60_000, le=MAX_DURATION_MS, description="maximum age of a signature"
    )
    ses: SesWebhook | None = None
    sendgrid: SendgridWebhook | None = None
    postmark: PostmarkWebhook | None = None
    mailgun: MailgunWebhook | None = None

"""Verifies SendGrid's Signed Event Webhook: ECDSA on P-256 with SHA-256 over the timestamp and the body.

https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
"""

from __future__ import annotations

import re
from base64 import b64decode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256

from postroad.settings import SendgridWebhook
from postroad.settings.webhooks import parse_public_key
from postroad.web.webhooks.request import (
    VerifiedRequest,
    Verify,
    WebhookRefusedError,
    WebhookRequest,
    parse_json,
    require_recent,
)

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"


def sendgrid(settings: SendgridWebhook, window_ms: int) -> Verify:
    """Return the verifier of SendGrid requests."""
    key = parse_public_key(settings.public_key)

    async def verify(request: WebhookRequest) -> VerifiedRequest:
        timestamp = request.headers.get(TIMESTAMP, "")
        if not re.fullmatch(r"[0-9]{1,12}", timestamp):
            raise WebhookRefusedError("it has no timestamp")
        try:
            signature = b64decode(request.headers.get(SIGNATURE, ""), validate=True)
            key.verify(signature, timestamp.encode() + request.body, ECDSA(SHA256()))
        except (ValueError, InvalidSignature):
            raise WebhookRefusedError("its signature is not SendGrid's") from None
        require_recent(int(timestamp) * 1000, request.now_ms, window_ms)
        document = parse_json(request.body)
        if not isinstance(document, list):
            raise WebhookRefusedError("its body is not a list of events", 400)
        return VerifiedRequest(document=document)

    return verify

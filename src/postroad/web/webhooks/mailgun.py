"""Verifies Mailgun requests: HMAC-SHA-256 (RFC 2104) of a time and a token, but not of the body.

Each token is therefore valid once.

https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks
"""

from __future__ import annotations

import hmac
import re

from postroad.settings import MailgunWebhook
from postroad.web.webhooks.request import (
    VerifiedRequest,
    Verify,
    WebhookRefusedError,
    WebhookRequest,
    constant_time_equal,
    parse_json,
    require_recent,
)


def mailgun(settings: MailgunWebhook, window_ms: int) -> Verify:
    """Return the verifier of Mailgun requests."""
    key = settings.signing_key.get_secret_value().encode()

    async def verify(request: WebhookRequest) -> VerifiedRequest:
        document = parse_json(request.body)
        signed = document.get("signature") if isinstance(document, dict) else None
        if not isinstance(document, dict) or not isinstance(signed, dict):
            raise WebhookRefusedError("its body has no signature")
        timestamp, token = str(signed.get("timestamp", "")), signed.get("token")
        if not re.fullmatch(r"[0-9]{1,12}", timestamp) or not isinstance(token, str) or not 16 <= len(token) <= 100:
            raise WebhookRefusedError("its signature has no time and token")
        expected = hmac.new(key, f"{timestamp}{token}".encode("utf-8", "replace"), "sha256").hexdigest()
        # The events of a subaccount also have a signature of the parent account, with its own key.
        given = str(signed.get("signature", "")), str(signed.get("parent-signature", ""))
        if not any(constant_time_equal(signature, expected) for signature in given):
            raise WebhookRefusedError("its signature is not Mailgun's")
        require_recent(int(timestamp) * 1000, request.now_ms, window_ms)
        return VerifiedRequest(document=document, token=f"mailgun:{token}")

    return verify

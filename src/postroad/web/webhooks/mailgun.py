"""Mailgun signs an instant and a token, not what it says: so each token counts once (HMAC-SHA-256, RFC 2104).

https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks
"""

from __future__ import annotations

import hmac
import re

from postroad.settings import MailgunWebhook
from postroad.web.webhooks.call import (
    VerifiedRequest,
    Verify,
    WebhookRefusedError,
    WebhookRequest,
    read_json,
    require_recent,
    same,
)


def mailgun(settings: MailgunWebhook, window_ms: int) -> Verify:
    """Return what verifies the calls of Mailgun."""
    key = settings.signing_key.get_secret_value().encode()

    async def verify(call: WebhookRequest) -> VerifiedRequest:
        document = read_json(call.body)
        signed = document.get("signature") if isinstance(document, dict) else None
        if not isinstance(document, dict) or not isinstance(signed, dict):
            raise WebhookRefusedError("its body has no signature")
        timestamp, token = str(signed.get("timestamp", "")), signed.get("token")
        if not re.fullmatch(r"[0-9]{1,12}", timestamp) or not isinstance(token, str) or not 16 <= len(token) <= 100:
            raise WebhookRefusedError("its signature is of no instant and token")
        wanted = hmac.new(key, f"{timestamp}{token}".encode("utf-8", "replace"), "sha256").hexdigest()
        # Of a subaccount's events the account signs too, with its own key.
        given = str(signed.get("signature", "")), str(signed.get("parent-signature", ""))
        if not any(same(one, wanted) for one in given):
            raise WebhookRefusedError("its signature is not Mailgun's")
        require_recent(int(timestamp) * 1000, call.now_ms, window_ms)
        return VerifiedRequest(document=document, token=f"mailgun:{token}")

    return verify

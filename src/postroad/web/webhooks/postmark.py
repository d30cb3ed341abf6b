"""Postmark signs nothing: it shows what it was told to, a name and password (RFC 7617) or a field of the header.

https://postmarkapp.com/developer/webhooks/webhooks-overview
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

from postroad.settings import PostmarkWebhook
from postroad.web.webhooks.call import (
    CheckHeader,
    VerifiedRequest,
    WebhookRefusedError,
    WebhookRequest,
    read_json,
    same,
)


def check_postmark(settings: PostmarkWebhook) -> CheckHeader:
    """Return what looks for the secret, which it does before a body is read."""
    secret = settings.secret.get_secret_value()
    basic = b64encode(f"{settings.username}:{secret}".encode()).decode()
    header = settings.header.lower()

    def check(headers: Mapping[str, str]) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Both are compared each time, whichever is there.
        by_password = same(given.strip(), basic) and scheme.lower() == "basic"
        if not same(headers.get(header, ""), secret) and not by_password:
            raise WebhookRefusedError("it does not show the secret", 401)

    return check


async def postmark(call: WebhookRequest) -> VerifiedRequest:
    """Verify a call whose header was looked at."""
    document = read_json(call.body)
    if not isinstance(document, dict):
        raise WebhookRefusedError("its body is no event", 400)
    return VerifiedRequest(document=document)

"""Verifies Postmark requests, which have no signature: a user name and password (RFC 7617), or a header field.

https://postmarkapp.com/developer/webhooks/webhooks-overview
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

from postroad.settings import PostmarkWebhook
from postroad.web.webhooks.request import (
    CheckHeader,
    VerifiedRequest,
    WebhookRefusedError,
    WebhookRequest,
    constant_time_equal,
    parse_json,
)


def check_postmark(settings: PostmarkWebhook) -> CheckHeader:
    """Return the check for the secret, which precedes the reading of the body."""
    secret = settings.secret.get_secret_value()
    basic = b64encode(f"{settings.username}:{secret}".encode()).decode()
    header = settings.header.lower()

    def check(headers: Mapping[str, str]) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Both are always compared, so that the time does not depend on which one is present.
        by_password = constant_time_equal(given.strip(), basic) and scheme.lower() == "basic"
        if not constant_time_equal(headers.get(header, ""), secret) and not by_password:
            raise WebhookRefusedError("the secret is missing or wrong", 401)

    return check


async def postmark(request: WebhookRequest) -> VerifiedRequest:
    """Verify a request whose header was checked."""
    document = parse_json(request.body)
    if not isinstance(document, dict):
        raise WebhookRefusedError("its body is not an event", 400)
    return VerifiedRequest(document=document)

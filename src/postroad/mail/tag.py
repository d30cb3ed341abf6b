"""The tag that a mail service stores with a message and returns with each of its events.

Some services replace the Message-ID, so that events do not contain ours. The tag is the token of our Message-ID, which
is not a secret from the recipient. The services remove these header fields, or show them to no recipient.
"""

from __future__ import annotations

from typing import assert_never

from postroad.mail.header import raw_field
from postroad.settings import Service

TAG = "postroad"


def tag_field(service: Service, token: str) -> bytes:
    """Return the header field that makes a service store a token, with its CRLF."""
    match service:
        case Service.SES:
            return raw_field("X-SES-MESSAGE-TAGS", [f"{TAG}={token}"])
        case Service.SENDGRID:
            return raw_field("X-SMTPAPI", ['{"unique_args":', f'{{"{TAG}": "{token}"}}}}'])
        case Service.POSTMARK:
            return raw_field(f"X-PM-Metadata-{TAG}", [token])
        case Service.MAILGUN:
            return raw_field("X-Mailgun-Variables", [f'{{"{TAG}": "{token}"}}'])
        case other:
            assert_never(other)

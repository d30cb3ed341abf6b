"""The tag that a mail service notes beside a message, and brings back with each event of it.

Some services give a message a Message-ID of their own, so that ours does not come back. The tag is the token of our
Message-ID, which whoever has the message knows anyway. The services take these fields away, or show them to nobody.
"""

from __future__ import annotations

from typing import assert_never

from postroad.mail.header import raw_field
from postroad.settings import Service

TAG = "postroad"


def tag_field(service: Service, token: str) -> bytes:
    """Return the field that has a service note a token, with its CRLF."""
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

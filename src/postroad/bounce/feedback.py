"""Parses feedback reports (ARF, RFC 5965): complaints of recipients about a message."""

from __future__ import annotations

from postroad.bounce.mime import Headers, split_header
from postroad.bounce.patterns import first_address
from postroad.bounce.report import OriginalMessage, RecipientStatus

TYPES = ("message/feedback-report",)


def parse_feedback(octets: bytes, returned: OriginalMessage) -> tuple[dict[str, str], str, RecipientStatus]:
    """Parse the machine-readable part of a feedback report (RFC 5965 §3).

    Args:
        octets: Decoded body of the part.
        returned: Header of the message that the report returns.

    Returns:
        The fields, the feedback type, and the recipient. Names of fields are in lower case, and the values of a
        repeated field are joined by commas. The recipient has no address if the provider hides it; the touch is then
        matched by the returned message.
    """
    headers = Headers(split_header(octets.lstrip(b"\n"))[0])
    fields = {name: ", ".join(values) for name, values in headers.fields.items()}
    address = first_address(headers.get("original-rcpt-to")) or first_address(headers.get("removal-recipient"))
    feedback_type = headers.get("feedback-type").strip().lower() or "abuse"
    return fields, feedback_type, RecipientStatus(address=address or returned.recipient or None)

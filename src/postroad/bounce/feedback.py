"""Feedback reports (RFC 5965): somebody called a message of ours spam."""

from __future__ import annotations

from postroad.bounce.mime import Headers, split_header
from postroad.bounce.report import OriginalMessage, RecipientStatus
from postroad.bounce.words import first_address

TYPES = ("message/feedback-report",)


def read_feedback(octets: bytes, returned: OriginalMessage) -> tuple[dict[str, str], str, RecipientStatus]:
    """Its fields (names in lower case; several of a name joined by commas), its type, and the recipient if it is told.

    Many providers hide the recipient; then what came back of the message tells the touch, and this has no address.
    """
    headers = Headers(split_header(octets.lstrip(b"\n"))[0])
    fields = {name: ", ".join(values) for name, values in headers.fields.items()}
    address = first_address(headers.get("original-rcpt-to")) or first_address(headers.get("removal-recipient"))
    kind = headers.get("feedback-type").strip().lower() or "abuse"
    return fields, kind, RecipientStatus(address=address or returned.recipient or None)

"""How much of a mail is kept: the beginning says it all, but a report that is attached is packed, and needs its end."""

from __future__ import annotations

from postroad.bounce.mime import MAX_MESSAGE_BYTES, Part, read_message
from postroad.dns.reports.read import may_be_report
from postroad.dns.reports.unpack import MAX_PACKED_BYTES

MAX_REPORT_MAIL_BYTES = 2 * MAX_PACKED_BYTES
"""Of a mail with reports: one of the largest size that is unpacked has a third more as base64."""

MAX_PAGE_BYTES = 50 * MAX_MESSAGE_BYTES
"""Of mails that a source hands out together; the last may go beyond."""


def attached_reports(mail: Part) -> list[Part]:
    """Parts that look like reports, by their media type or their name."""
    return [part for part in mail.walk() if not part.parts and may_be_report(part.content_type, part.file_name)]


def kept_bytes(beginning: bytes) -> int:
    """How many octets are kept of a mail that begins so, with its first MAX_MESSAGE_BYTES."""
    if len(beginning) < MAX_MESSAGE_BYTES:
        return MAX_MESSAGE_BYTES
    return MAX_REPORT_MAIL_BYTES if attached_reports(read_message(beginning)) else MAX_MESSAGE_BYTES


def kept(raw: bytes) -> bytes:
    """Return as much of a mail as is kept."""
    return raw if len(raw) <= MAX_MESSAGE_BYTES else raw[: kept_bytes(raw[:MAX_MESSAGE_BYTES])]

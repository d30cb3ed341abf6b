"""Truncates stored mail: to 1 MiB, or to twice the largest report if a DMARC or TLS report is attached."""

from __future__ import annotations

from postroad.bounce.mime import MAX_MESSAGE_BYTES, Part, parse_message
from postroad.dns.reports.read import may_be_report
from postroad.dns.reports.unpack import MAX_PACKED_BYTES

MAX_REPORT_MAIL_BYTES = 2 * MAX_PACKED_BYTES
"""Maximum size of a mail with reports. Base64 adds a third to the largest report that is unpacked."""

MAX_PAGE_BYTES = 50 * MAX_MESSAGE_BYTES
"""Maximum total size of the mails that a source returns in one page. The last mail may exceed it."""


def attached_reports(mail: Part) -> list[Part]:
    """Return the parts that look like DMARC or TLS reports, by their media type or file name."""
    return [part for part in mail.walk() if not part.parts and may_be_report(part.content_type, part.file_name)]


def truncated_length(beginning: bytes) -> int:
    """Return how many bytes of a mail are stored.

    Args:
        beginning: First MAX_MESSAGE_BYTES of the mail.

    Returns:
        Maximum length of the stored mail, in bytes.
    """
    if len(beginning) < MAX_MESSAGE_BYTES:
        return MAX_MESSAGE_BYTES
    return MAX_REPORT_MAIL_BYTES if attached_reports(parse_message(beginning)) else MAX_MESSAGE_BYTES


def truncate(raw: bytes) -> bytes:
    """Return the part of a mail that is stored."""
    return raw if len(raw) <= MAX_MESSAGE_BYTES else raw[: truncated_length(raw[:MAX_MESSAGE_BYTES])]

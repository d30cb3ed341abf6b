"""Parses bounces in free text: finds the failed recipients, and the text about each."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec

from postroad.bounce.patterns import (
    collapse_whitespace,
    drop_field_lines,
    find_addresses,
    find_phase,
    find_quoted,
    find_reply_code,
    find_status,
    first_address,
)
from postroad.bounce.report import OriginalMessage, RecipientStatus
from postroad.bounce.tables import formats, signs
from postroad.smtp.reply import Phase

MAX_BOUNCE_TEXT = 16_000
"""Maximum characters of a free-text bounce that are parsed."""
MAX_RECIPIENTS = 100
"""Maximum recipients of one report. Further recipients are ignored."""
MAX_ADDRESSES = 1_000
"""Maximum addresses of header fields."""
MAX_FIELD = 32_000
"""Maximum characters of one field that are searched for addresses."""

_HEADER_LINE = re.compile(
    r"^[ \t]*(?:Return-Path|Received|Message-ID|X-Originating-IP|DKIM-Signature|MIME-Version|X-Mailer|Reply-To)"
    r"[ \t]*:[ \t]*\S",
    re.MULTILINE | re.IGNORECASE,
)
_RETURNED_FIELD = re.compile(
    r"^[ \t>]*(message-id|return-path|from|to)[ \t]*:[ \t]*([^\n]*(?:\n[ \t][^\n:]*$)?)",
    re.IGNORECASE | re.MULTILINE,
)
_ALIAS = re.compile(r"\((?:expanded|generated) from:?[ \t]*([^)\n]{3,320})\)", re.IGNORECASE)  # sendmail, Exim
_AT_DATA = re.compile(r">>> data", re.IGNORECASE)
_ROLE_ADDRESS = re.compile(r"(?:mailer-daemon|postmaster|abuse|noreply|no-reply)@", re.IGNORECASE)


def split_returned(text: str) -> tuple[str, str]:
    """Split a bounce into the server's text and the returned message.

    The returned message begins at the line that announces it, or at its header.

    Returns:
        The server's text, and the returned message, which may be empty.
    """
    markers = signs().returned
    position = 0
    for line in text.splitlines(keepends=True):
        bare = line.strip().lower()
        if bare and (bare.startswith(markers) or (position and _HEADER_LINE.match(line))):
            return text[:position][:MAX_BOUNCE_TEXT], text[position:]
        position += len(line)
    return text[:MAX_BOUNCE_TEXT], ""


def parse_returned_header(header: str) -> OriginalMessage:
    """Parse the header of the returned message, as far as the text contains it."""
    if not header:
        return OriginalMessage()
    fields: dict[str, str] = {}
    for match in _RETURNED_FIELD.finditer(header[:MAX_BOUNCE_TEXT]):
        fields.setdefault(match[1].lower(), " ".join(match[2].split()))
    return OriginalMessage(
        message_id=fields.get("message-id", ""),
        return_path=first_address(fields.get("return-path", "")) or "",
        sender=first_address(fields.get("from", "")) or "",
        recipient=first_address(fields.get("to", "")) or "",
    )


def parse_recipients(
    text: str, listed: Sequence[str], ignored: Collection[str]
) -> tuple[str, tuple[RecipientStatus, ...]]:
    """Find the failed recipients in the text of a bounce, at most MAX_RECIPIENTS.

    Args:
        text: The server's text.
        listed: Recipients that a header field lists.
        ignored: Addresses that are not failed recipients, in lower case.

    Returns:
        The name of the format that matched, and the status of each recipient. Both are empty if no format matched.
    """
    if listed:
        return "X-Failed-Recipients", statuses_from_text(text, listed[:MAX_RECIPIENTS])
    for bounce_format, pattern in formats():
        by_lower_case: dict[str, str] = {}
        for match in pattern.finditer(text):
            address = match["address"].strip("'").lstrip("=")
            if address.lower() not in ignored and not _ROLE_ADDRESS.match(address):
                by_lower_case.setdefault(address.lower(), address)
            if len(by_lower_case) >= MAX_RECIPIENTS:
                break
        addresses = list(by_lower_case.values())
        if addresses and bounce_format.whole_line:
            return bounce_format.name, _statuses_from_transcript(text, addresses)
        if addresses:
            return bounce_format.name, statuses_from_text(text, addresses)
    return "", ()


def statuses_from_text(text: str, addresses: Sequence[str]) -> tuple[RecipientStatus, ...]:
    """Return the status of each recipient, from the text about it. Takes time proportional to lines times addresses."""
    parsed: dict[str, RecipientStatus] = {}  # All recipients have the same text if the lines do not name them.
    statuses = []
    for address, about in zip(addresses, _texts_about(text, addresses), strict=True):
        if about not in parsed:
            parsed[about] = status_from_text(None, about)
        statuses.append(msgspec.structs.replace(parsed[about], address=address))
    return tuple(statuses)


def _statuses_from_transcript(text: str, addresses: Sequence[str]) -> tuple[RecipientStatus, ...]:
    """Return the statuses from a transcript, each line of which is a reply: to RCPT, unless DATA was sent."""
    default_phase = Phase.DOT if _AT_DATA.search(text) else Phase.RCPT
    lines = [(line, line.lower()) for line in text.splitlines() if "@" in line]
    statuses = []
    for address in addresses:
        lower_case = address.lower()
        status = status_from_text(address, "\n".join(line for line, low in lines if lower_case in low))
        statuses.append(msgspec.structs.replace(status, phase=status.phase or default_phase))
    return tuple(statuses)


def status_from_text(address: str | None, text: str) -> RecipientStatus:
    """Return the status of one recipient, with the codes in the text about it."""
    alias = _ALIAS.search(text)
    return RecipientStatus(
        address=address,
        original=first_address(alias[1]) if alias else None,
        status=find_status(text),
        reply_code=find_reply_code(text),
        diagnostic=collapse_whitespace(drop_field_lines(text)),
        quoted=find_quoted(text),
        phase=find_phase(text),
    )


def text_about(text: str, address: str) -> str:
    """Return a text about a single address, rotated: from the line that contains the address, then the lines before."""
    start = text.rfind("\n", 0, max(text.lower().find(address.lower()), 0)) + 1
    return f"{text[start:]}\n{text[:start]}"


def _texts_about(text: str, addresses: Sequence[str]) -> list[str]:
    """Return the text about each address: the lines that contain it, and the lines up to one that contains another.

    The whole text is about a single address.
    """
    if len(addresses) == 1:
        return [text_about(text, addresses[0])]
    names = [address.lower() for address in addresses]
    lines_about: list[list[str]] = [[] for _ in names]
    current: list[int] = []
    for line in text.splitlines():
        low = line.lower()
        current = [number for number, name in enumerate(names) if name in low] or current
        for number in current:
            lines_about[number].append(line)
    # Where the lines have nothing but the address, a transcript has the reason for all, so the whole text counts.
    return [
        about if len(about := "\n".join(lines)) > len(address) * max(len(lines), 1) + 8 else text
        for address, lines in zip(addresses, lines_about, strict=True)
    ]


def addresses_in(values: Sequence[str]) -> list[str]:
    """Return the addresses of header field values, in order, at most MAX_ADDRESSES."""
    return [address for value in values for address in find_addresses(value[:MAX_FIELD])][:MAX_ADDRESSES]

"""Bounces in a server's own words: who was not reached, and what was said of each."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec

from postroad.bounce.report import OriginalMessage, RecipientStatus
from postroad.bounce.tables import formats, signs
from postroad.bounce.words import (
    drop_field_lines,
    find_addresses,
    find_phase,
    find_quoted,
    find_reply_code,
    find_status,
    first_address,
    squeeze,
)
from postroad.smtp.reply import Phase

MAX_WORDS = 16_000
"""Characters of a server's own words that are read."""
MAX_RECIPIENTS = 100
"""Recipients of one report that are read. The first count; of the rest nothing is known."""
MAX_ADDRESSES = 1_000
"""Addresses of the fields of a header that are read."""
MAX_FIELD = 32_000
"""Characters of one field that are searched for addresses."""

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
_OURS = re.compile(r"(?:mailer-daemon|postmaster|abuse|noreply|no-reply)@", re.IGNORECASE)


def split_returned(text: str) -> tuple[str, str]:
    """The server's own words, and what it returns of the message: from the line that announces that, or its header."""
    markers = signs().returned
    position = 0
    for line in text.splitlines(keepends=True):
        bare = line.strip().lower()
        if bare and (bare.startswith(markers) or (position and _HEADER_LINE.match(line))):
            return text[:position][:MAX_WORDS], text[position:]
        position += len(line)
    return text[:MAX_WORDS], ""


def read_returned(header: str) -> OriginalMessage:
    """What the header of the returned message tells of it."""
    if not header:
        return OriginalMessage()
    found: dict[str, str] = {}
    for match in _RETURNED_FIELD.finditer(header[:MAX_WORDS]):
        found.setdefault(match[1].lower(), " ".join(match[2].split()))
    return OriginalMessage(
        message_id=found.get("message-id", ""),
        return_path=first_address(found.get("return-path", "")) or "",
        sender=first_address(found.get("from", "")) or "",
        recipient=first_address(found.get("to", "")) or "",
    )


def read_plain(words: str, listed: Sequence[str], ours: Collection[str]) -> tuple[str, tuple[RecipientStatus, ...]]:
    """The name of the format that read it, and what is said of each recipient.

    ``listed``: recipients that a header field names. ``ours``: addresses that are no failed recipient, in lower case.
    Of more than MAX_RECIPIENTS the first are read.
    """
    if listed:
        return "X-Failed-Recipients", reported_each(words, listed[:MAX_RECIPIENTS])
    for one, pattern in formats():
        found: dict[str, str] = {}
        for match in pattern.finditer(words):
            address = match["address"].strip("'").lstrip("=")
            if address.lower() not in ours and not _OURS.match(address):
                found.setdefault(address.lower(), address)
            if len(found) >= MAX_RECIPIENTS:
                break
        if found and one.whole_line:
            return one.name, _answered(words, list(found.values()))
        if found:
            return one.name, reported_each(words, list(found.values()))
    return "", ()


def reported_each(words: str, addresses: Sequence[str]) -> tuple[RecipientStatus, ...]:
    """Return each of these recipients with what a text says of it. The cost is that of lines times addresses."""
    read: dict[str, RecipientStatus] = {}  # Where nothing tells them apart, the same text is about each.
    reported = []
    for address, said in zip(addresses, said_of_each(words, addresses), strict=True):
        if said not in read:
            read[said] = reported_of(None, said)
        reported.append(msgspec.structs.replace(read[said], address=address))
    return tuple(reported)


def _answered(words: str, addresses: Sequence[str]) -> tuple[RecipientStatus, ...]:
    """Recipients of a transcript, each line of which is an answer: to RCPT TO, unless it says otherwise."""
    answers = Phase.DOT if _AT_DATA.search(words) else Phase.RCPT
    lines = [(line, line.lower()) for line in words.splitlines() if "@" in line]
    answered = []
    for address in addresses:
        mine = address.lower()
        reported = reported_of(address, "\n".join(line for line, low in lines if mine in low))
        answered.append(msgspec.structs.replace(reported, phase=reported.phase or answers))
    return tuple(answered)


def reported_of(address: str | None, said: str) -> RecipientStatus:
    """One recipient, with the codes that what is said of it holds."""
    origin = _ALIAS.search(said)
    return RecipientStatus(
        address=address,
        original=first_address(origin[1]) if origin else None,
        status=find_status(said),
        reply_code=find_reply_code(said),
        diagnostic=squeeze(drop_field_lines(said)),
        quoted=find_quoted(said),
        phase=find_phase(said),
    )


def said_of_one(words: str, address: str) -> str:
    """Return a text that is about one address: from the line that names it, and then what stands before that."""
    at = words.rfind("\n", 0, max(words.lower().find(address.lower()), 0)) + 1
    return f"{words[at:]}\n{words[:at]}"


def said_of_each(words: str, addresses: Sequence[str]) -> list[str]:
    """Return what a text says of each address: the lines that name it, and those below up to one that names another.

    Of a single address all of it is said.
    """
    if len(addresses) == 1:
        return [said_of_one(words, addresses[0])]
    names = [address.lower() for address in addresses]
    kept: list[list[str]] = [[] for _ in names]
    about: list[int] = []
    for line in words.splitlines():
        low = line.lower()
        about = [number for number, name in enumerate(names) if name in low] or about
        for number in about:
            kept[number].append(line)
    # Names alone, and the reason in a transcript for all: then all of it is said of each.
    return [
        said if len(said := "\n".join(lines)) > len(address) * max(len(lines), 1) + 8 else words
        for address, lines in zip(addresses, kept, strict=True)
    ]


def addresses_in(values: Sequence[str]) -> list[str]:
    """Return the addresses of some fields, in order; of many the first MAX_ADDRESSES."""
    return [address for value in values for address in find_addresses(value[:MAX_FIELD])][:MAX_ADDRESSES]

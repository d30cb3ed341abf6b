"""Bounces in a server's own words: who was not reached, and what was said of each."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec

from postroad.bounce.report import Reported, Returned
from postroad.bounce.tables import formats, signs
from postroad.bounce.words import answers_rcpt, find_addresses, find_reply_code, find_status, first_address, squeeze

MAX_WORDS = 16_000
"""Characters of a server's own words that are read."""
MAX_RECIPIENTS = 100

_HEADER_LINE = re.compile(
    r"^[ \t]*(?:Return-Path|Received|Message-ID|X-Originating-IP|DKIM-Signature|MIME-Version|X-Mailer|Reply-To)"
    r"[ \t]*:[ \t]*\S",
    re.MULTILINE | re.IGNORECASE,
)
_RETURNED_FIELD = re.compile(
    r"^[ \t>]*(message-id|return-path|from|to)[ \t]*:[ \t]*([^\n]*(?:\n[ \t]+[^\n:]*$)?)",
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


def read_returned(header: str) -> Returned:
    """What the header of the returned message tells of it."""
    if not header:
        return Returned()
    found: dict[str, str] = {}
    for match in _RETURNED_FIELD.finditer(header[:MAX_WORDS]):
        found.setdefault(match[1].lower(), " ".join(match[2].split()))
    return Returned(
        message_id=found.get("message-id", ""),
        return_path=first_address(found.get("return-path", "")) or "",
        sender=first_address(found.get("from", "")) or "",
        recipient=first_address(found.get("to", "")) or "",
    )


def read_plain(words: str, listed: Sequence[str], ours: Collection[str]) -> tuple[str, tuple[Reported, ...]]:
    """The name of the format that read it, and what is said of each recipient.

    ``listed``: recipients that a header field names. ``ours``: addresses that are no failed recipient, in lower case.
    """
    if listed:
        return "X-Failed-Recipients", _reported(words, list(listed))
    for one, pattern in formats():
        found: dict[str, str] = {}
        for match in pattern.finditer(words):
            address = match["address"].strip("'").lstrip("=")
            if address.lower() not in ours and not _OURS.match(address):
                found.setdefault(address.lower(), address)
            if len(found) >= MAX_RECIPIENTS:
                break
        if found and one.whole_line:
            return one.name, tuple(_answered(words, address) for address in found.values())
        if found:
            return one.name, _reported(words, list(found.values()))
    return "", ()


def _reported(words: str, addresses: list[str]) -> tuple[Reported, ...]:
    return tuple(reported_of(address, said_of(words, address, addresses)) for address in addresses)


def _answered(words: str, address: str) -> Reported:
    """One recipient of a transcript, each line of which is an answer: to RCPT TO, unless it says otherwise."""
    said = "\n".join(line for line in words.splitlines() if address.lower() in line.lower())
    reported = reported_of(address, said)
    return msgspec.structs.replace(reported, at_rcpt=reported.at_rcpt or not _AT_DATA.search(words))


def reported_of(address: str | None, said: str) -> Reported:
    """One recipient, with the codes that what is said of it holds."""
    origin = _ALIAS.search(said)
    return Reported(
        address=address,
        original=first_address(origin[1]) if origin else None,
        status=find_status(said),
        reply_code=find_reply_code(said),
        diagnostic=squeeze(said),
        at_rcpt=answers_rcpt(said),
    )


def said_of(words: str, address: str, addresses: Sequence[str]) -> str:
    """What a text says of one address: its own lines and those below, and, where there is no other, then the rest."""
    if len(addresses) == 1:
        at = words.rfind("\n", 0, max(words.lower().find(address.lower()), 0)) + 1
        return f"{words[at:]}\n{words[:at]}"
    mine, others = address.lower(), [other.lower() for other in addresses if other.lower() != address.lower()]
    kept: list[str] = []
    follows = False
    for line in words.splitlines():
        low = line.lower()
        if mine in low:
            follows = True
        elif any(other in low for other in others):
            follows = False
        if follows:
            kept.append(line)
    said = "\n".join(kept)
    # Names alone, and the reason in a transcript for all: then all of it is said of each.
    return said if len(said) > len(address) * max(len(kept), 1) + 8 else words


def addresses_in(values: Sequence[str]) -> list[str]:
    """Every address of some fields, in order."""
    return [address for value in values for address in find_addresses(value)]

"""Finds addresses, status codes, SMTP phases and quoted replies in free text. All parsers share these patterns."""

from __future__ import annotations

import re

from postroad.smtp.reply import Phase

# Repetitions are bounded, so that matching takes linear time. Old bounces have domains of a single label.
ADDRESS = re.compile(
    r"(?<![\w.+-])([\w!#$%&'*+/=?^`{|}~-][\w.!#$%&'*+/=?^`{|}~-]{0,63}@(?:[\w-]{1,63}\.){0,8}[\w-]{1,63})(?![\w@-])"
)
_QUOTED_ADDRESS = re.compile(r'("(?:[^"\\\n]|\\.){1,62}"@(?:[\w-]{1,63}\.){0,8}[\w-]{1,63})')
_STATUS = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?!\.?\d)", re.ASCII)  # RFC 3463 §2
_REPLY = re.compile(r"(?<![\d.#/:-])([245][0-5]\d)(?:(?=[ \-:)\],;<]|$))(?!\.\d)", re.ASCII | re.MULTILINE)
_XTEXT = re.compile(r"\+([0-9A-F]{2})", re.ASCII)  # RFC 3461 §4
_UNITEXT = re.compile(r"\\x\{([0-9A-F]{2,6})\}", re.ASCII)  # RFC 6533 §3
_RCPT = re.compile(
    r"rcpt[ _]to|after rcpt|to rcpt|>>> rcpt|our rcpt|smtp:rcpt|does not like recipient|\[rcpt", re.IGNORECASE
)
# Replies with an address, as Postfix and sendmail write them, are replies to RCPT.
_NAMES_ADDRESS = re.compile(r"(?:^|[\s:])5[05]\d[ -](?:5\.[013-9]\.\d+ )?<[^<>\s@]+@[^<>\s@]+>", re.MULTILINE)
_DATA = re.compile(r"end of data|>>> data|to data\b|after data|\[data|in reply to message|>>> \.", re.IGNORECASE)
_MAIL = re.compile(r"(?:reply to|>>>|after|to|smtp:) ?mail(?:[ _]from)?\b(?: command)?[:) \n<]", re.IGNORECASE)
MAX_DIAGNOSTIC = 2_000
"""Maximum characters of a diagnostic that are stored and classified."""


def find_addresses(text: str) -> list[str]:
    """Return each distinct address of a text, ignoring case, in order."""
    by_lower_case: dict[str, str] = {}
    for match in ADDRESS.finditer(text):
        address = match[1].lstrip("'=").rstrip("'.")
        if not address.startswith("@") and not address.endswith("@"):
            by_lower_case.setdefault(address.lower(), address)
    return list(by_lower_case.values())


def first_address(text: str) -> str | None:
    """Return the first address of a field, or None."""
    if '"@' in text and (quoted := _QUOTED_ADDRESS.search(text)):
        return quoted[1]
    addresses = find_addresses(text)
    return addresses[0] if addresses else None


def names_local_part(text: str, address: str) -> bool:
    """Return whether a text contains the local part of an address as a word, as in "User ada unknown"."""
    local = address.rpartition("@")[0]
    return (
        bool(local) and re.search(rf"(?<![\w.+@-]){re.escape(local)}(?![\w+@-]|\.\w)", text, re.IGNORECASE) is not None
    )


def parse_typed_address(value: str) -> str | None:
    """Return the decoded address of ``rfc822; address`` or ``utf-8; address`` (RFC 3464 §2.1.2, RFC 6533 §3)."""
    address_type, semicolon, address = value.partition(";")
    address_type = address_type.strip().lower()
    if not semicolon:
        address_type, address = "rfc822", value
    address = address.strip().strip("<>").strip()
    if address_type.startswith("utf-8"):
        address = _UNITEXT.sub(lambda match: _character(match[1]), decode_xtext(address))
    elif address_type in ("system", "x-local", "unknown") or "@" not in address:
        embedded = first_address(address)
        return embedded if embedded or not address or " " in address else address
    return first_address(address) or address or None


def _character(digits: str) -> str:
    number = int(digits, 16)
    return chr(number) if number <= 0x10FFFF and not 0xD800 <= number <= 0xDFFF else ""


def decode_xtext(text: str) -> str:
    """Decode xtext (RFC 3461 §4): ``+2B`` is a plus sign. Other characters stay unchanged."""
    if not _XTEXT.search(text):
        return text
    return _XTEXT.sub(lambda match: chr(int(match[1], 16)), text)


def find_status(text: str) -> str | None:
    """Return the first 4.y.z or 5.y.z of a text except x.0.0, else the first code but x.0.0, else the first."""
    codes: list[str] = _STATUS.findall(text)
    specific = [code for code in codes if not code.endswith(".0.0")]
    failures = [code for code in specific if code[0] != "2"]
    return next(iter(failures or specific or codes), None)


def find_reply_code(text: str) -> int | None:
    """Return the first 4yz or 5yz reply code (RFC 5321 §4.2) of a text, else its first reply code."""
    codes = [int(code) for code in _REPLY.findall(text)]
    return next((code for code in codes if code >= 400), codes[0] if codes else None)


def find_phase(text: str) -> Phase | None:
    """Return the SMTP command that the reported reply answers: end of data, RCPT or MAIL. None if not stated."""
    if _DATA.search(text):
        return Phase.DOT
    if _RCPT.search(text) or _NAMES_ADDRESS.search(text):
        return Phase.RCPT
    return Phase.MAIL if _MAIL.search(text) else None


_QUOTED = re.compile(r"(?<![\d.#/:-])[45][0-5]\d(?:[ -]|: ?)(?=\S)", re.ASCII)
_FIELD_LINE = re.compile(r"^[ \t]*(?:[\w-]{1,30}(?: [\w-]{1,20}){0,2}):(?:\s|$)")
_REPLY_LINE = re.compile(r"^[ \t]*[45][0-5]\d[ -]")


def find_quoted(text: str) -> str:
    """Return the SMTP reply that a text quotes, from its code to the end of the paragraph. Empty if it quotes none.

    A header field ends the reply, because the text after it is about the message.
    """
    match = _QUOTED.search(text)
    if match is None:
        return ""
    first, *rest = text[match.start() :].split("\n")
    lines = [first]
    for line in rest:
        if not line.strip() or (_FIELD_LINE.match(line) and not _REPLY_LINE.match(line)):
            break
        lines.append(line)
    return collapse_whitespace("\n".join(lines))


_FAILURE = re.compile(
    r"(?<![\w.])[45][0-5]\d[ -][45]\.\d{1,3}\.\d{1,3}(?![\w.])|\(in reply to [a-z ]{3,12} command\)", re.IGNORECASE
)


def quotes_failure(text: str) -> bool:
    """Return whether a text quotes a 4yz or 5yz reply: with both codes, or with Postfix's note of the command."""
    return _FAILURE.search(text) is not None


def drop_field_lines(text: str) -> str:
    """Return a text without the header fields that it contains."""
    return "\n".join(line for line in text.split("\n") if not _HEADER_LINE.match(line))


_HEADER_LINE = re.compile(
    r"^[ \t>]*(?:subject|from|to|cc|bcc|date|sent|sent date|message-id|sender|mail from|return-path|reply-to|received"
    r"|x-[\w-]{1,40}|size \(in bytes\)|number of lines)[ \t]*:",
    re.IGNORECASE,
)


def collapse_whitespace(text: str) -> str:
    """Return a text on one line, cut to MAX_DIAGNOSTIC characters."""
    return " ".join(text[: MAX_DIAGNOSTIC * 2].split())[:MAX_DIAGNOSTIC]

"""Addresses, codes and fields in a text: the small grammar that every reader here shares."""

from __future__ import annotations

import re

from postroad.smtp.reply import Phase

# Bounded, so that no text makes it slow. Domains may be single words: old bounces name hosts as their networks do.
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
# Of all replies, those to RCPT name the address, as Postfix and sendmail write them.
_NAMES_ADDRESS = re.compile(r"(?:^|[\s:])5[05]\d[ -](?:5\.[013-9]\.\d+ )?<[^<>\s@]+@[^<>\s@]+>", re.MULTILINE)
_DATA = re.compile(r"end of data|>>> data|to data\b|after data|\[data|in reply to message|>>> \.", re.IGNORECASE)
_MAIL = re.compile(r"(?:reply to|>>>|after|to|smtp:) ?mail(?:[ _]from)?\b(?: command)?[:) \n<]", re.IGNORECASE)
MAX_DIAGNOSTIC = 2_000
"""Characters of what a server said that are kept and judged."""


def find_addresses(text: str) -> list[str]:
    """Every address in a text, in order, each once whatever its case."""
    found: dict[str, str] = {}
    for match in ADDRESS.finditer(text):
        address = match[1].lstrip("'=").rstrip("'.")
        if not address.startswith("@") and not address.endswith("@"):
            found.setdefault(address.lower(), address)
    return list(found.values())


def first_address(text: str) -> str | None:
    """The first address of a field."""
    if '"@' in text and (quoted := _QUOTED_ADDRESS.search(text)):
        return quoted[1]
    found = find_addresses(text)
    return found[0] if found else None


def names_local_part(text: str, address: str) -> bool:
    """Whether a text names an address by its local part alone, as in "User ada unknown"."""
    local = address.rpartition("@")[0]
    return (
        bool(local) and re.search(rf"(?<![\w.+@-]){re.escape(local)}(?![\w+@-]|\.\w)", text, re.IGNORECASE) is not None
    )


def read_typed_address(value: str) -> str | None:
    """Address of ``rfc822; address`` or ``utf-8; address`` (RFC 3464 §2.1.2, RFC 6533 §3), its encoding undone."""
    kind, semicolon, address = value.partition(";")
    kind = kind.strip().lower()
    if not semicolon:
        kind, address = "rfc822", value
    address = address.strip().strip("<>").strip()
    if kind.startswith("utf-8"):
        address = _UNITEXT.sub(lambda match: _character(match[1]), decode_xtext(address))
    elif kind in ("system", "x-local", "unknown") or "@" not in address:
        found = first_address(address)
        return found if found or not address or " " in address else address
    return first_address(address) or address or None


def _character(digits: str) -> str:
    number = int(digits, 16)
    return chr(number) if number <= 0x10FFFF and not 0xD800 <= number <= 0xDFFF else ""


def decode_xtext(text: str) -> str:
    """Undo xtext (RFC 3461 §4): ``+2B`` is a plus sign. What is not xtext stays as it is."""
    if not _XTEXT.search(text):
        return text
    return _XTEXT.sub(lambda match: chr(int(match[1], 16)), text)


def find_status(text: str) -> str | None:
    """The most telling enhanced code of a text: the first of class 5 or 4 that is not X.0.0, else the first."""
    found: list[str] = _STATUS.findall(text)
    telling = [status for status in found if not status.endswith(".0.0")]
    failing = [status for status in telling if status[0] != "2"]
    return next(iter(failing or telling or found), None)


def find_reply_code(text: str) -> int | None:
    """The first reply code (RFC 5321 §4.2) of a text that tells of a failure, else the first."""
    found = [int(code) for code in _REPLY.findall(text)]
    return next((code for code in found if code >= 400), found[0] if found else None)


def find_phase(text: str) -> Phase | None:
    """Return what a text says was answered: the message, RCPT TO or MAIL FROM. None: it does not say."""
    if _DATA.search(text):
        return Phase.DOT
    if _RCPT.search(text) or _NAMES_ADDRESS.search(text):
        return Phase.RCPT
    return Phase.MAIL if _MAIL.search(text) else None


_QUOTED = re.compile(r"(?<![\d.#/:-])[45][0-5]\d(?:[ -]|: ?)(?=\S)", re.ASCII)
_FIELD_LINE = re.compile(r"^[ \t]*(?:[\w-]{1,30}(?: [\w-]{1,20}){0,2}):(?:\s|$)")
_REPLY_LINE = re.compile(r"^[ \t]*[45][0-5]\d[ -]")


def find_quoted(text: str) -> str:
    """Return the reply that a text quotes: from its code to the end of its paragraph. Empty: it quotes none.

    A line of a header ends it, for what follows is about the message.
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
    return squeeze("\n".join(lines))


_FAILURE = re.compile(
    r"(?<![\w.])[45][0-5]\d[ -][45]\.\d{1,3}\.\d{1,3}(?![\w.])|\(in reply to [a-z ]{3,12} command\)", re.IGNORECASE
)


def quotes_failure(text: str) -> bool:
    """Return whether a text quotes a reply that refuses: both codes, or Postfix's note of the command."""
    return _FAILURE.search(text) is not None


def drop_field_lines(text: str) -> str:
    """Return a text without the lines of a header that it repeats."""
    return "\n".join(line for line in text.split("\n") if not _HEADER_LINE.match(line))


_HEADER_LINE = re.compile(
    r"^[ \t>]*(?:subject|from|to|cc|bcc|date|sent|sent date|message-id|sender|mail from|return-path|reply-to|received"
    r"|x-[\w-]{1,40}|size \(in bytes\)|number of lines)[ \t]*:",
    re.IGNORECASE,
)


def squeeze(text: str) -> str:
    """Text on one line, cut to what is kept of it."""
    return " ".join(text[: MAX_DIAGNOSTIC * 2].split())[:MAX_DIAGNOSTIC]

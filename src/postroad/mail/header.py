"""Header fields: encoded by RFC 2047 and RFC 2231, folded by RFC 5322 §2.2.3, safe against header injection."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote

# Line breaks and other control characters would end the field and start an injected one (header injection).
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")
MAX_LINE = 78  # RFC 5322 §2.1.1, characters, without CRLF
_MAX_PLAIN = MAX_LINE - 20  # what fits into a line after the field name; longer words are encoded, to be foldable
_MAX_WORD = 75  # RFC 2047 §2
_FRAME = len("=?utf-8?b??=")
_QUOTABLE = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")  # as a quoted-string (RFC 5322 §3.2.4) for any parser
_MAX_SEGMENT = 50  # characters of a parameter's value in one line, without its name and number


def clean(value: str) -> str:
    """Return a value with every run of control characters replaced by one space."""
    return value.strip() if value.isprintable() else _CONTROLS.sub(" ", value).strip()


def _needs_encoding(value: str) -> bool:
    # Folding between several blanks could make a line of blanks only (obsolete, RFC 5322 §4.2).
    if not value.isascii() or "=?" in value or "  " in value:
        return True
    return len(value) > _MAX_PLAIN and any(len(word) > _MAX_PLAIN for word in value.split(" "))


def _encoded_words(value: str, first_width: int) -> list[str]:
    """Return encoded words (RFC 2047 §5.3) that split no character, the first at most ``first_width`` characters."""
    words: list[str] = []
    chunk = b""
    capacity = (min(max(first_width, _FRAME + 8), _MAX_WORD) - _FRAME) // 4 * 3
    for character in value:
        octets = character.encode()
        if len(chunk) + len(octets) > capacity:
            words.append(f"=?utf-8?b?{b64encode(chunk).decode()}?=")
            chunk, capacity = b"", (_MAX_WORD - _FRAME) // 4 * 3
        chunk += octets
    words.append(f"=?utf-8?b?{b64encode(chunk).decode()}?=")
    return words


def _fold(name: str, parts: list[str]) -> bytes:
    line = f"{name}: {' '.join(parts)}\r\n"
    if len(line) <= MAX_LINE + 2:  # the common case
        return line.encode()
    lines = [f"{name}:"]
    for number, part in enumerate(parts):
        if number and len(lines[-1]) + 1 + len(part) > MAX_LINE:
            lines.append("")
        lines[-1] += f" {part}"
    return ("\r\n".join(lines) + "\r\n").encode()


def text_field(name: str, value: str) -> bytes:
    """Return an unstructured field (RFC 5322 §2.2.1), such as Subject, with its CRLF."""
    value = clean(value)
    if _needs_encoding(value):
        return _fold(name, _encoded_words(value, MAX_LINE - len(name) - 2))
    return _fold(name, value.split(" "))


def address_field(name: str, address: str, display_name: str = "") -> bytes:
    """Return a field of one mailbox (RFC 5322 §3.4), with its CRLF."""
    display_name, mailbox = clean(display_name), f"<{clean(address)}>"
    if not display_name:
        return _fold(name, [clean(address)])
    if not _needs_encoding(display_name):
        if _ATOMS.fullmatch(display_name):
            return _fold(name, [*display_name.split(" "), mailbox])
        quoted = display_name.replace("\\", "\\\\").replace('"', '\\"')
        if len(quoted) <= _MAX_PLAIN:
            return _fold(name, [f'"{quoted}"', mailbox])
    return _fold(name, [*_encoded_words(display_name, MAX_LINE - len(name) - 2), mailbox])


def raw_field(name: str, parts: list[str]) -> bytes:
    """Return a field of trusted ASCII parts, folded between them, with its CRLF."""
    return _fold(name, parts)


def parameter(name: str, value: str) -> str:
    """Return a parameter of a MIME field, in as many lines as needed (RFC 2231 §3, §4).

    Args:
        name: The parameter's name.
        value: The value. If it is safe in quotes, it is quoted. Otherwise it is percent-encoded UTF-8.

    Returns:
        The parameter. Each line has at most 78 characters, and no character is split.
    """
    value = _CONTROLS.sub(" ", value)
    if _QUOTABLE.fullmatch(value):
        line = f'{name}="{value}"'
        if len(line) < MAX_LINE - 1:
            return line
        segments = [f'"{segment}"' for segment in _segments(list(value))]
        return ";\r\n ".join(f"{name}*{number}={segment}" for number, segment in enumerate(segments))
    line = f"{name}*=utf-8''{quote(value, safe='')}"
    if len(line) < MAX_LINE - 1:
        return line
    encoded = _segments(["utf-8''", *(quote(character, safe="") for character in value)])
    return ";\r\n ".join(f"{name}*{number}*={segment}" for number, segment in enumerate(encoded))


def _segments(atoms: list[str]) -> Iterator[str]:
    """Join atoms into segments that fit into a line with the parameter's name, number and quotes."""
    segment = ""
    for atom in atoms:
        if len(segment) + len(atom) > _MAX_SEGMENT:
            yield segment
            segment = ""
        segment += atom
    yield segment

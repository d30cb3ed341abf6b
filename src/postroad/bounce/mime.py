"""Parses MIME from untrusted senders: never raises, and bounds time, memory, depth and the number of parts.

The standard library's parser recurses to the full depth of a message, stores all of it, and raises on some malformed
input. This parser supports what bounces need (RFC 5322 §2.2, RFC 2045 §5, RFC 2046 §5.1), in one pass per level.
"""

from __future__ import annotations

import codecs
import re
from base64 import b64decode
from binascii import Error as Base64Error
from binascii import a2b_qp
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

MAX_MESSAGE_BYTES = 1 << 20
"""The rest is ignored: the content of a report comes before the message that it returns."""
MAX_HEADER_BYTES = 1 << 17
MAX_TEXT_BYTES = 1 << 16
"""Maximum bytes of a part that are decoded as text."""
MAX_PARTS = 64
MAX_DEPTH = 8

_HEADER = re.compile(rb"(?:[!-9;-~]+[ \t]*:[^\n]*(?:\n|\Z)|[ \t][^\n]*(?:\n|\Z))+")
_FIELD_NAME = re.compile(rb"[ \t]*([!-9;-~]+)[ \t]*:")
_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^\s;]+))', re.ASCII)
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,40})\?([bBqQ])\?([^?]{0,2000})\?=(?:\s+(?==\?))?")
_TAG = re.compile(r"<[^<>]*>")
_BLOCK = re.compile(r"(?i)<(?:br|/?p|/?div|/?tr|/?li|/?h\d|/?table)\b[^<>]*>")
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&#64;": "@", "&#39;": "'", "&nbsp;": " ", "&amp;": "&"}
# Delimiter of a multipart whose header has no boundary, or a different one.
_GUESSED_DELIMITER = re.compile(rb"^--([^\n]{1,100})\n(?=content-)", re.MULTILINE | re.IGNORECASE)
MAX_BOUNDARY_BYTES = 200  # RFC 2046 §5.1.1 says 70
_CHARSET = re.compile(r"[\w.:-]{1,40}", re.ASCII)
# Codecs of Python that are not MIME charsets. The first two take quadratic time.
_NO_CHARSETS = frozenset({"punycode", "idna", "unicode_escape", "raw_unicode_escape", "undefined"})


def decode_octets(octets: bytes, charset: str) -> str:
    """Decode octets by a charset, or by UTF-8 if the charset fails or is unknown, or by Latin-1, which never fails."""
    for name in (charset or "utf-8", "utf-8"):
        try:
            if name != "utf-8" and not _is_charset(name):
                continue
            return octets.decode(name)
        except (LookupError, UnicodeError, ValueError):
            continue
    return octets.decode("latin-1")


def _is_charset(name: str) -> bool:
    return _CHARSET.fullmatch(name) is not None and codecs.lookup(name).name not in _NO_CHARSETS


def _decode_word(match: re.Match[str]) -> str:
    charset, encoding, text = match[1].partition("*")[0], match[2], match[3]
    try:
        octets = b64decode(text + "=" * (-len(text) % 4)) if encoding in "bB" else a2b_qp(text, header=True)
    except (Base64Error, ValueError):
        return match[0]
    return decode_octets(octets, charset)


def decode_words(value: str) -> str:
    """Decode the encoded words (RFC 2047 §2) of a header field."""
    return _ENCODED_WORD.sub(_decode_word, value) if "=?" in value else value


class Headers:
    """Unfolded fields of one header, by lower-case name. A missing field is an empty string."""

    def __init__(self, block: bytes) -> None:
        self.fields: dict[str, list[str]] = {}
        for name, value in _fields(block):
            self.fields.setdefault(name.decode("ascii").lower(), []).append(decode_octets(value, "utf-8"))

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def get(self, name: str) -> str:
        """Return the first value of a field. The name is in lower case."""
        values = self.fields.get(name)
        return values[0] if values else ""

    def all(self, *names: str) -> list[str]:
        """Return all values of these fields."""
        return [value for name in names for value in self.fields.get(name, ())]


def _fields(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and unfolded value of each field. A continuation line before the first field is ignored."""
    name, lines = b"", list[bytes]()
    for line in block.split(b"\n"):
        if name and line[:1] in (b" ", b"\t"):
            lines.append(line)
        elif match := _FIELD_NAME.match(line):
            if name:
                yield name, _unfolded(lines)
            name, lines = match[1], [line[match.end() :]]
    if name:
        yield name, _unfolded(lines)


def _unfolded(lines: list[bytes]) -> bytes:
    return lines[0].strip() if len(lines) == 1 else b" ".join(b" ".join(lines).split())


@dataclass(frozen=True, eq=False)
class Part:
    """One MIME entity: header, encoded body with LF line ends, and nested parts."""

    headers: Headers
    body: bytes
    depth: int
    parts: list[Part] = field(default_factory=list)

    @cached_property
    def content_type(self) -> str:
        """Media type in lower case; text/plain if the header has none (RFC 2045 §5.2)."""
        given = _TYPE.match(self.headers.get("content-type"))
        return given[0].lower() if given else "text/plain"

    def parameter(self, name: str) -> str:
        """Return a parameter of the content type, or an empty string."""
        return _parameter(self.headers.get("content-type"), name)

    @cached_property
    def file_name(self) -> str:
        """Suggested file name (RFC 2183 §2.3), or an empty string."""
        return _parameter(self.headers.get("content-disposition"), "filename") or self.parameter("name")

    @cached_property
    def octets(self) -> bytes:
        """Body without its transfer encoding, decoded as far as possible and cut to MAX_TEXT_BYTES."""
        body = self.body[: MAX_TEXT_BYTES * 2]
        match self.headers.get("content-transfer-encoding").lower().strip():
            case "base64":
                letters = re.sub(rb"[^A-Za-z0-9+/]", b"", body)
                try:
                    body = b64decode(letters[: len(letters) // 4 * 4] + _padded(letters[len(letters) // 4 * 4 :]))
                except Base64Error:
                    body = self.body
                body = body.replace(b"\r\n", b"\n")
            case "quoted-printable":
                body = a2b_qp(body)
            case _:
                pass
        return body[:MAX_TEXT_BYTES]

    @cached_property
    def text(self) -> str:
        """Decoded text of the body, without HTML tags."""
        text = decode_octets(self.octets, self.parameter("charset"))
        return _without_tags(text) if self.content_type == "text/html" else text

    def walk(self) -> list[Part]:
        """Return this part and all nested parts, in depth-first order."""
        parts = [self]
        for part in self.parts:
            parts += part.walk()
        return parts


def _parameter(value: str, name: str) -> str:
    for match in _PARAMETER.finditer(value):
        if match[1].lower() == name:
            return match[2] if match[2] is not None else match[3]
    return ""


def _padded(rest: bytes) -> bytes:
    return rest + b"=" * (4 - len(rest)) if len(rest) in (2, 3) else b""


def _without_tags(html: str) -> str:
    text = _TAG.sub(" ", _BLOCK.sub("\n", html.replace("\n", " ")))
    if "&" in text:
        for entity, character in _ENTITIES.items():
            text = text.replace(entity, character)
    return text


def split_header(content: bytes) -> tuple[bytes, bytes]:
    """Split an entity into header and body. The body begins after an empty line, or at a line that is not a field."""
    match = _HEADER.match(content[:MAX_HEADER_BYTES])
    end = match.end() if match else 0
    return content[:end], content[end + 1 :] if content[end : end + 1] == b"\n" else content[end:]


class _PartReader:
    """Parses the parts of one message, and limits their total number whatever the nesting."""

    def __init__(self) -> None:
        self.left = MAX_PARTS

    def read(self, content: bytes, depth: int) -> Part:
        self.left -= 1
        header, body = split_header(content)
        part = Part(Headers(header), body, depth)
        if depth < MAX_DEPTH and part.content_type.startswith("multipart/"):
            for piece in _pieces(part):
                if self.left <= 0:
                    break
                part.parts.append(self.read(piece, depth + 1))
        return part


def _pieces(part: Part) -> list[bytes]:
    """Return the contents of the parts of a multipart, in order. Empty if no delimiter is found."""
    boundary = part.parameter("boundary").encode("utf-8", "replace").rstrip()
    ranges = _part_ranges(part.body, boundary) if 0 < len(boundary) <= MAX_BOUNDARY_BYTES else []
    if not ranges:
        guess = _guessed_boundary(part.body)
        ranges = _part_ranges(part.body, guess) if guess else []
    return [part.body[start:end] for start, end in ranges]


def _guessed_boundary(body: bytes) -> bytes:
    for match in _GUESSED_DELIMITER.finditer(body):
        boundary = match[1].rstrip(b" \t")
        if boundary not in (b"", b"-") and len(boundary) <= 70 and not boundary[:1].isspace():
            return boundary
    return b""


def _part_ranges(body: bytes, boundary: bytes) -> list[tuple[int, int]]:
    delimiters = re.finditer(rb"^--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\n|\Z)", body, re.MULTILINE)
    ranges: list[tuple[int, int]] = []
    start: int | None = None
    for match in delimiters:
        if start is not None:
            ranges.append((start, max(match.start() - 1, start)))
        start = None if match[1] else match.end()
        if len(ranges) >= MAX_PARTS:
            return ranges
    if start is not None:
        ranges.append((start, len(body)))  # The closing delimiter is missing, as in a truncated message.
    return ranges


def parse_message(raw: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> Part:
    """Parse at most ``max_bytes`` of a message. Any input yields a part."""
    content = raw[:max_bytes].replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\0", b"")
    content = content.removeprefix(b"\xef\xbb\xbf").lstrip(b"\n")
    if content.startswith((b"From ", b">From ")):  # of a mailbox file (RFC 4155)
        content = content.partition(b"\n")[2]
    return _PartReader().read(content, 0)

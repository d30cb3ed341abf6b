"""A body that is encoded in advance as one ``%`` pattern, into which most merge fields are inserted without encoding.

Quoted-printable (RFC 2045 §6.7) allows a soft line break anywhere. A line is broken before a merge field if a value of
the reserved width would make it too long. Some values do not fit the pattern: longer ones, empty ones, and those whose
encoding depends on the text around them (blanks at the ends or in a row, line ends, "="). If a value does not fit, the
message is encoded line by line instead.
"""

from __future__ import annotations

import re
from binascii import b2a_qp
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from markupsafe import escape

from postroad.mail.body import Chunk, StaticChunk, TemplateChunk
from postroad.mail.dkim import relaxed_lines
from postroad.mail.template import RESERVED, MessageTemplate, Slot

_FIELD_WIDTH = 36
"""Characters that are reserved for a merge field."""
_RESERVED_WIDTH = 72
"""Characters for a field that Postroad fills in, such as an address or a link."""
_LINE = 75  # RFC 2045 §6.7 (5): 76 characters, including the "=" of a soft line break
_PLAIN = re.compile(r"(?!\.)[^\x00-\x20=\x7f\ud800-\udfff]+(?: [^\x00-\x20=\x7f\ud800-\udfff]+)*")


@dataclass(frozen=True, kw_only=True)
class PrecompiledBody:
    """An encoded body as a ``%`` pattern.

    Attributes:
        slots: For each slot: merge field, default, whether the field is reserved, and whether the slot is in HTML.
        pattern: The body.
        canonical: The body in canonical form, see `relaxed_lines`.
        pick: Selects the values of a pattern from those of the slots.
    """

    slots: tuple[tuple[str, str | None, bool, bool], ...]
    pattern: bytes
    canonical: bytes
    pick: itemgetter[Any]

    def values(self, fields: Mapping[str, Any]) -> Any:
        """Return the operand of ``%`` for the patterns.

        Args:
            fields: The merge fields of a message.

        Returns:
            The encoded values. None if a value does not fit.

        Raises:
            KeyError: A merge field is missing.
        """
        values = []
        for field, default, reserved, html in self.slots:
            value = fields[field] if default is None else fields.get(field, default)
            # Values that many recipients share, such as a city or a plan, are encoded once.
            octets = _CACHE[html].get(value) if type(value) is str else None
            if octets is None:
                octets = _encode_value(value, reserved, html) if isinstance(value, str | int | float) else None
                if octets is None:
                    return None
                if not reserved and type(value) is str:
                    _remember(_CACHE[html], value, octets)
            values.append(octets)
        return self.pick(values)


_CACHE: tuple[dict[str, bytes], dict[str, bytes]] = ({}, {})  # by value, for text and for HTML
_MAX_CACHE = 4096


def _remember(cache: dict[str, bytes], value: str, octets: bytes) -> None:
    if len(cache) >= _MAX_CACHE:
        cache.clear()  # Frequent values are soon cached again.
    cache[value] = octets


def _encode_value(value: Any, reserved: bool, html: bool) -> bytes | None:
    """Return a value in quoted-printable, or None if it does not fit."""
    text = str(escape(value) if html else value)
    if len(text) > _RESERVED_WIDTH or not _PLAIN.fullmatch(text):
        return None
    octets = text.encode() if text.isascii() else b2a_qp(text.encode(), istext=False)
    return octets if len(octets) <= (_RESERVED_WIDTH if reserved else _FIELD_WIDTH) else None


def precompile(chunks: Sequence[Chunk]) -> PrecompiledBody | None:
    """Encode a body as a pattern. Returns None if one of its templates has logic, or if there is no merge field."""
    templates: list[MessageTemplate] = []
    patterns: list[tuple[bytes, bytes]] = []
    slots: list[tuple[MessageTemplate, Slot]] = []
    for chunk in chunks:
        match chunk:
            case StaticChunk(encoded=encoded, canonical=canonical):
                patterns.append((encoded.replace(b"%", b"%%"), canonical.replace(b"%", b"%%")))
            case TemplateChunk(template=template, segments=segments):
                if template not in templates:
                    templates.append(template)
                slots += [(template, segment) for segment in segments if isinstance(segment, Slot)]
                pattern = _encode_lines(segments)
                patterns.append((pattern, relaxed_lines(pattern)))
            case _:
                return None
    if not slots:
        return None
    order = [(template.html, slot) for template in templates for slot in template.slots]
    index_of = {slot: index for index, slot in enumerate(order)}
    return PrecompiledBody(
        slots=tuple((slot.field, slot.default, slot.field in RESERVED, html) for html, slot in order),
        pattern=b"".join(pattern for pattern, _ in patterns),
        canonical=b"".join(canonical for _, canonical in patterns),
        pick=itemgetter(*(index_of[template.html, slot] for template, slot in slots)),
    )


def _encode_lines(segments: Sequence[str | Slot]) -> bytes:
    """Encode lines of literals and slots, each slot as ``%b``. Line ends become CRLF, and no line begins with a dot."""
    lines: list[bytes] = []
    line, width = b"", 0
    for atom, atom_width in _atoms(segments):
        if atom == b"\r\n":
            lines.append(line + atom)
            line, width = b"", 0
            continue
        if width + atom_width > _LINE:
            lines.append(line + b"=\r\n")
            line, width = b"", 0
        # Some servers end the message at a dot at the beginning of a line (RFC 2049 §3).
        line, width = (b"=2E", 3) if atom == b"." and not line else (line + atom, width + atom_width)
    return b"".join([*lines, line])


def _atoms(segments: Sequence[str | Slot]) -> Iterator[tuple[bytes, int]]:
    """Yield each sequence of octets that must not be split, and its width."""
    for number, segment in enumerate(segments):
        if isinstance(segment, Slot):
            yield b"%b", _RESERVED_WIDTH if segment.field in RESERVED else _FIELD_WIDTH
            continue
        octets = segment.encode(errors="replace").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        for index, octet in enumerate(octets):
            at_end = index + 1 == len(octets) and number + 1 == len(segments)
            yield _atom(octet, before_line_end=at_end or octets[index + 1 : index + 2] == b"\n")


def _atom(octet: int, *, before_line_end: bool) -> tuple[bytes, int]:
    match octet:
        case 0x0A:
            return b"\r\n", 0
        case 0x25:
            return b"%%", 1
        case 0x09 | 0x20 if not before_line_end:
            return bytes([octet]), 1
        case 0x3D:
            return b"=3D", 3
        case _ if 0x21 <= octet <= 0x7E:
            return bytes([octet]), 1
        case _:
            return b"=%02X" % octet, 3

"""A body laid out ahead: one pattern for all of it, into which the merge fields of most messages go as they are.

Quoted-printable (RFC 2045 §6.7) lets a line be broken anywhere, so lines are broken where a merge field would not fit
behind what stands before it, for any value of a moderate length. A value does not fit that is longer than its room, or
empty, or has to be encoded with an eye on its neighbours (blanks at its ends or in a row, line ends, "="): its message
is encoded line by line.
"""

from __future__ import annotations

import re
from binascii import b2a_qp
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from markupsafe import escape

from postroad.mail.body import Piece, StaticChunk, TemplateChunk
from postroad.mail.dkim import relaxed_lines
from postroad.mail.template import RESERVED, MessageTemplate, Slot

_ROOM = 36
_OUR_ROOM = 72  # for the merge fields that we fill in: an address, a link
_LINE = 75  # RFC 2045 §6.7 (5): 76 characters, the "=" of a soft line break among them
_PLAIN = re.compile(r"(?!\.)[^\x00-\x20=\x7f\ud800-\udfff]+(?: [^\x00-\x20=\x7f\ud800-\udfff]+)*")


@dataclass(frozen=True, kw_only=True)
class PrecompiledBody:
    """A pattern of octets, and the values that go into it. ``canonical``: what becomes of it, see `relaxed_lines`.

    ``wanted``: field, default, whether it is ours to fill in, and whether it is for HTML.
    """

    wanted: tuple[tuple[str, str | None, bool, bool], ...]
    pattern: bytes
    canonical: bytes
    pick: itemgetter[Any]

    def values(self, fields: Mapping[str, Any]) -> Any:
        """What the patterns take, as ``%`` wants it; None: a value does not fit. Raises KeyError for a missing one."""
        values = []
        for field, default, ours, html in self.wanted:
            value = fields[field] if default is None else fields.get(field, default)
            # What a campaign's recipients have in common, such as a city or a plan, is looked at once.
            octets = _SEEN[html].get(value) if type(value) is str else None
            if octets is None:
                octets = _fitting(value, ours, html) if isinstance(value, str | int | float) else None
                if octets is None:
                    return None
                if not ours and type(value) is str:
                    _remember(_SEEN[html], value, octets)
            values.append(octets)
        return self.pick(values)


_SEEN: tuple[dict[str, bytes], dict[str, bytes]] = ({}, {})
_MAX_SEEN = 4096


def _remember(seen: dict[str, bytes], value: str, octets: bytes) -> None:
    if len(seen) >= _MAX_SEEN:
        seen.clear()  # What is common is soon back.
    seen[value] = octets


def _fitting(value: Any, ours: bool, html: bool) -> bytes | None:
    text = str(escape(value) if html else value)
    if len(text) > _OUR_ROOM or not _PLAIN.fullmatch(text):
        return None
    octets = text.encode() if text.isascii() else b2a_qp(text.encode(), istext=False)
    return octets if len(octets) <= (_OUR_ROOM if ours else _ROOM) else None


def layout_of(pieces: Sequence[Piece]) -> PrecompiledBody | None:
    """Lay a body out; None: one of its templates has logic, or none has a merge field."""
    templates: list[MessageTemplate] = []
    patterns: list[tuple[bytes, bytes]] = []
    slots: list[tuple[MessageTemplate, Slot]] = []
    for piece in pieces:
        match piece:
            case StaticChunk(wire=wire, canonical=canonical):
                patterns.append((wire.replace(b"%", b"%%"), canonical.replace(b"%", b"%%")))
            case TemplateChunk(template=template, segments=segments):
                if template not in templates:
                    templates.append(template)
                slots += [(template, segment) for segment in segments if isinstance(segment, Slot)]
                pattern = lay_out(segments)
                patterns.append((pattern, relaxed_lines(pattern)))
            case _:
                return None
    if not slots:
        return None
    order = [(template.html, slot) for template in templates for slot in template.slots]
    places = {each: place for place, each in enumerate(order)}
    return PrecompiledBody(
        wanted=tuple((slot.field, slot.default, slot.field in RESERVED, html) for html, slot in order),
        pattern=b"".join(pattern for pattern, _ in patterns),
        canonical=b"".join(canonical for _, canonical in patterns),
        pick=itemgetter(*(places[template.html, slot] for template, slot in slots)),
    )


def lay_out(segments: Sequence[str | Slot]) -> bytes:
    """Encode lines of literals and slots, each slot as ``%b``. Line ends are CRLF, and no line begins with a dot."""
    lines: list[bytes] = []
    line, width = b"", 0
    for atom, room in _atoms(segments):
        if atom == b"\r\n":
            lines.append(line + atom)
            line, width = b"", 0
            continue
        if width + room > _LINE:
            lines.append(line + b"=\r\n")
            line, width = b"", 0
        # With a dot at the beginning of a line, some servers end the message (RFC 2049 §3).
        line, width = (b"=2E", 3) if atom == b"." and not line else (line + atom, width + room)
    return b"".join([*lines, line])


def _atoms(segments: Sequence[str | Slot]) -> Iterator[tuple[bytes, int]]:
    """What may not be broken, and how wide it is."""
    for number, segment in enumerate(segments):
        if isinstance(segment, Slot):
            yield b"%b", _OUR_ROOM if segment.field in RESERVED else _ROOM
            continue
        octets = segment.encode(errors="replace").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        for place, octet in enumerate(octets):
            last = octets[place + 1 : place + 2] == b"\n" or (place + 1 == len(octets) and number + 1 == len(segments))
            yield _atom(octet, before_line_end=last)


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

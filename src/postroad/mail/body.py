"""Bodies, encoded ahead: what is the same in every message of a step is encoded once, and merge fields go between.

A body is a row of pieces. Quoted-printable (RFC 2045 §6.7) knows nothing beyond the line, so that lines without a
merge field are exact before the field is known; lines with one are encoded when they are merged.
"""

from __future__ import annotations

import re
from base64 import encodebytes
from binascii import b2a_qp
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from postroad.mail.dkim import relaxed_lines
from postroad.mail.header import parameter
from postroad.mail.template import MessageTemplate, Slot, require_length

_TOO_LONG = re.compile(rb"^(.{74,})(=20|=09)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class File:
    """An attachment, or an image that the HTML shows by ``cid:`` and its content id (RFC 2392)."""

    name: str
    media_type: str
    octets: bytes
    content_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class StaticChunk:
    """What is the same in every message: as it leaves, and as DKIM hashes it."""

    wire: bytes
    canonical: bytes


class Values:
    """Merge fields of one message, each made octets once, however many lines it stands in."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields
        self._octets: dict[bool, list[bytes]] = {}  # by whether it is for HTML
        self._length: dict[bool, int] = {}  # of all lines that were merged, in bytes

    def of(self, template: MessageTemplate) -> list[bytes]:
        """What goes into each of a template's slots, in their order. Raises KeyError for a missing field."""
        octets = self._octets.get(template.html)
        if octets is None:
            octets = [template.value(slot, self.fields).encode(errors="replace") for slot in template.slots]
            self._octets[template.html] = octets
        return octets

    def require_room(self, template: MessageTemplate, length: int) -> None:
        """Raises DataError where a template makes more bytes than it may, now that it makes so many more."""
        self._length[template.html] = length = self._length.get(template.html, 0) + length
        require_length(length, template.name)


@dataclass(frozen=True, kw_only=True)
class TemplateChunk:
    """Lines of a template that merge fields go into: a pattern, and which of the template's slots it takes."""

    template: MessageTemplate
    segments: tuple[str | Slot, ...]
    pattern: bytes
    pick: itemgetter[Any]

    def encode(self, values: Values) -> bytes:
        """Raises KeyError for a missing field, DataError for more than a template may make."""
        picked = self.pick(values.of(self.template))
        length = len(picked) if isinstance(picked, bytes) else sum(map(len, picked))
        values.require_room(self.template, len(self.pattern) + length)
        return _quoted(self.pattern % picked)


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """All of a template that has logic."""

    template: MessageTemplate

    def encode(self, values: Values) -> bytes:
        """Raises DataError."""
        return quoted_printable(self.template.render(values.fields))


Piece = StaticChunk | TemplateChunk | Rendered


@dataclass(frozen=True, kw_only=True)
class Entity:
    """A MIME entity (RFC 2045 §2.4): its header fields, each with its CRLF, and its body."""

    header: tuple[bytes, ...]
    body: tuple[Piece, ...]


def message_entity(text: MessageTemplate, html: MessageTemplate | None, files: Sequence[File]) -> Entity:
    """Return the body of a message (RFC 2046 §5.1, RFC 2387): alternatives, images within the HTML's, attachments."""
    entity = _text_entity("plain", text)
    if html is not None:
        shown = _text_entity("html", html)
        images = [_file_entity(file) for file in files if file.content_id is not None]
        if images:
            shown = _multipart("related", [shown, *images], b'; type="text/html"')
        entity = _multipart("alternative", [entity, shown])
    attachments = [_file_entity(file) for file in files if file.content_id is None]
    if attachments:
        entity = _multipart("mixed", [entity, *attachments])
    return Entity(header=entity.header, body=tuple(_joined(entity.body)))


def _text_entity(subtype: str, template: MessageTemplate) -> Entity:
    header = (
        f"Content-Type: text/{subtype}; charset=utf-8\r\n".encode(),
        b"Content-Transfer-Encoding: quoted-printable\r\n",
    )
    return Entity(header=header, body=tuple(_pieces(template)))


def _file_entity(file: File) -> Entity:
    disposition = "attachment" if file.content_id is None else "inline"
    header = [
        f"Content-Type: {file.media_type}\r\n".encode(),
        b"Content-Transfer-Encoding: base64\r\n",
        f"Content-Disposition: {disposition};\r\n {parameter('filename', file.name)}\r\n".encode(),
    ]
    if file.content_id is not None:
        header.append(f"Content-ID: <{file.content_id}>\r\n".encode())
    return Entity(header=tuple(header), body=(_fixed(encodebytes(file.octets).replace(b"\n", b"\r\n")),))


def _multipart(subtype: str, entities: Sequence[Entity], parameters: bytes = b"") -> Entity:
    # "=_" can stand in no line of quoted-printable or base64, so the boundary can stand in no part.
    boundary = f"=_postroad_{subtype}".encode()
    body: list[Piece] = []
    for entity in entities:
        body += [_fixed(b"--" + boundary + b"\r\n" + b"".join(entity.header) + b"\r\n"), *entity.body, _fixed(b"\r\n")]
    body.append(_fixed(b"--" + boundary + b"--\r\n"))
    header = b'Content-Type: multipart/%b; boundary="%b"%b\r\n' % (subtype.encode(), boundary, parameters)
    return Entity(header=(header,), body=tuple(body))


def _fixed(wire: bytes) -> StaticChunk:
    canonical = relaxed_lines(wire)
    return StaticChunk(wire=wire, canonical=wire if canonical == wire else canonical)


def _pieces(template: MessageTemplate) -> Iterator[Piece]:
    if template.segments is None:
        yield Rendered(template=template)
        return
    # A call for each line would cost more than the line does.
    for merged, lines in groupby(_lines(template.segments), key=lambda line: any(isinstance(s, Slot) for s in line)):
        segments = [segment for line in lines for segment in line]
        yield _merged(template, segments) if merged else _fixed(quoted_printable(template.fill(segments, {})))


def _merged(template: MessageTemplate, segments: Sequence[str | Slot]) -> TemplateChunk:
    pattern = b"".join(
        [b"%b" if isinstance(part, Slot) else part.encode(errors="replace").replace(b"%", b"%%") for part in segments]
    )
    order = {slot: place for place, slot in enumerate(template.slots)}
    places = [order[part] for part in segments if isinstance(part, Slot)]
    return TemplateChunk(template=template, segments=tuple(segments), pattern=pattern, pick=itemgetter(*places))


def _lines(segments: Iterable[str | Slot]) -> Iterator[list[str | Slot]]:
    """Cut segments behind every line end of their literals, which Jinja has made LF."""
    line: list[str | Slot] = []
    for segment in segments:
        if isinstance(segment, Slot):
            line.append(segment)
            continue
        *ended, rest = segment.split("\n")
        for part in ended:
            yield [*line, f"{part}\n"]
            line = []
        if rest:
            line.append(rest)
    if line:
        yield line


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Make one of all that is fixed in a row."""
    waiting: list[StaticChunk] = []
    for piece in pieces:
        if isinstance(piece, StaticChunk):
            waiting.append(piece)
            continue
        if waiting:
            yield _one(waiting)
            waiting = []
        yield piece
    if waiting:
        yield _one(waiting)


def _one(pieces: list[StaticChunk]) -> StaticChunk:
    wire, canonical = b"".join(p.wire for p in pieces), b"".join(p.canonical for p in pieces)
    return StaticChunk(wire=wire, canonical=wire if canonical == wire else canonical)


def canonical_lines(pieces: Sequence[Piece], wires: Sequence[bytes]) -> bytes:
    """Canonical lines of a merged body (see `relaxed_lines`); ``wires``: what its pieces became."""
    return b"".join(
        piece.canonical if isinstance(piece, StaticChunk) else relaxed_lines(wire)
        for piece, wire in zip(pieces, wires, strict=True)
    )


def quoted_printable(text: str) -> bytes:
    """Encode a text (RFC 2045 §6.7): any line end becomes CRLF, lines are at most 76 characters, all is ASCII."""
    return _quoted(text.encode(errors="replace"))


def _quoted(octets: bytes) -> bytes:
    if b"\r" in octets:
        octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    encoded = b2a_qp(octets, quotetabs=False, istext=True, header=False)
    if b"=20\n" in encoded or b"=09\n" in encoded:
        # A blank at the end of a full line is encoded without regard to the line's length.
        encoded = _TOO_LONG.sub(rb"\1=\n\2", encoded)
    return encoded.replace(b"\n", b"\r\n")

"""MIME bodies, encoded in advance: parts that are the same in every message of a step are encoded once.

A body is a sequence of chunks. Quoted-printable (RFC 2045 §6.7) encodes each line independently, so lines without a
merge field are encoded when the step is compiled. Lines with one are encoded for each message.
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
    """An attachment, or an image that the HTML references by ``cid:`` and its content id (RFC 2392)."""

    name: str
    media_type: str
    octets: bytes
    content_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class StaticChunk:
    """Octets that are the same in every message: encoded for sending, and canonicalised for DKIM."""

    encoded: bytes
    canonical: bytes


class MergeValues:
    """The merge fields of one message. Each is encoded once, however often it occurs."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields
        self._octets: dict[bool, list[bytes]] = {}  # by whether the template is HTML
        self._length: dict[bool, int] = {}  # of all merged lines, in bytes, by the same

    def of(self, template: MessageTemplate) -> list[bytes]:
        """Return the encoded value of each of a template's slots, in order. Raises KeyError for a missing field."""
        octets = self._octets.get(template.html)
        if octets is None:
            octets = [template.value(slot, self.fields).encode(errors="replace") for slot in template.slots]
            self._octets[template.html] = octets
        return octets

    def add_length(self, template: MessageTemplate, length: int) -> None:
        """Add to a template's output length, in bytes. Raises DataError if it exceeds the limit."""
        self._length[template.html] = length = self._length.get(template.html, 0) + length
        require_length(length, template.name)


@dataclass(frozen=True, kw_only=True)
class TemplateChunk:
    """Lines of a template with merge fields: a ``%`` pattern, and the slots whose values it takes."""

    template: MessageTemplate
    segments: tuple[str | Slot, ...]
    pattern: bytes
    pick: itemgetter[Any]

    def encode(self, values: MergeValues) -> bytes:
        """Merge and encode the lines.

        Args:
            values: The merge fields of the message.

        Returns:
            The lines in quoted-printable.

        Raises:
            KeyError: A merge field is missing.
            DataError: The template makes more than a template may.
        """
        picked = self.pick(values.of(self.template))
        length = len(picked) if isinstance(picked, bytes) else sum(map(len, picked))
        values.add_length(self.template, len(self.pattern) + length)
        return _quoted(self.pattern % picked)


@dataclass(frozen=True, kw_only=True)
class RenderedChunk:
    """A whole template with logic, which Jinja renders for each message."""

    template: MessageTemplate

    def encode(self, values: MergeValues) -> bytes:
        """Render and encode the template. Raises DataError if the rendering fails."""
        return quoted_printable(self.template.render(values.fields))


Chunk = StaticChunk | TemplateChunk | RenderedChunk


@dataclass(frozen=True, kw_only=True)
class MimeEntity:
    """A MIME entity (RFC 2045 §2.4): its header fields, each with its CRLF, and its body."""

    header: tuple[bytes, ...]
    body: tuple[Chunk, ...]


def message_entity(text: MessageTemplate, html: MessageTemplate | None, files: Sequence[File]) -> MimeEntity:
    """Build the MIME structure of a message (RFC 2046 §5.1, RFC 2387).

    Args:
        text: The plain text.
        html: The HTML alternative, if any.
        files: Images, which become related parts of the HTML, and attachments.

    Returns:
        The top-level entity.
    """
    entity = _text_entity("plain", text)
    if html is not None:
        html_entity = _text_entity("html", html)
        images = [_file_entity(file) for file in files if file.content_id is not None]
        if images:
            html_entity = _multipart("related", [html_entity, *images], b'; type="text/html"')
        entity = _multipart("alternative", [entity, html_entity])
    attachments = [_file_entity(file) for file in files if file.content_id is None]
    if attachments:
        entity = _multipart("mixed", [entity, *attachments])
    return MimeEntity(header=entity.header, body=tuple(_merge_static(entity.body)))


def _text_entity(subtype: str, template: MessageTemplate) -> MimeEntity:
    header = (
        f"Content-Type: text/{subtype}; charset=utf-8\r\n".encode(),
        b"Content-Transfer-Encoding: quoted-printable\r\n",
    )
    return MimeEntity(header=header, body=tuple(_chunks(template)))


def _file_entity(file: File) -> MimeEntity:
    disposition = "attachment" if file.content_id is None else "inline"
    header = [
        f"Content-Type: {file.media_type}\r\n".encode(),
        b"Content-Transfer-Encoding: base64\r\n",
        f"Content-Disposition: {disposition};\r\n {parameter('filename', file.name)}\r\n".encode(),
    ]
    if file.content_id is not None:
        header.append(f"Content-ID: <{file.content_id}>\r\n".encode())
    return MimeEntity(header=tuple(header), body=(_static_chunk(encodebytes(file.octets).replace(b"\n", b"\r\n")),))


def _multipart(subtype: str, entities: Sequence[MimeEntity], parameters: bytes = b"") -> MimeEntity:
    # "=_" cannot occur in quoted-printable or base64, so the boundary cannot occur in a part.
    boundary = f"=_postroad_{subtype}".encode()
    body: list[Chunk] = []
    for entity in entities:
        body += [
            _static_chunk(b"--" + boundary + b"\r\n" + b"".join(entity.header) + b"\r\n"),
            *entity.body,
            _static_chunk(b"\r\n"),
        ]
    body.append(_static_chunk(b"--" + boundary + b"--\r\n"))
    header = b'Content-Type: multipart/%b; boundary="%b"%b\r\n' % (subtype.encode(), boundary, parameters)
    return MimeEntity(header=(header,), body=tuple(body))


def _static_chunk(encoded: bytes) -> StaticChunk:
    canonical = relaxed_lines(encoded)
    return StaticChunk(encoded=encoded, canonical=encoded if canonical == encoded else canonical)


def _chunks(template: MessageTemplate) -> Iterator[Chunk]:
    if template.segments is None:
        yield RenderedChunk(template=template)
        return
    # Lines are grouped, because a call for each line costs more than encoding the line.
    for has_slot, lines in groupby(_lines(template.segments), key=lambda line: any(isinstance(s, Slot) for s in line)):
        segments = [segment for line in lines for segment in line]
        if has_slot:
            yield _template_chunk(template, segments)
        else:
            yield _static_chunk(quoted_printable(template.fill(segments, {})))


def _template_chunk(template: MessageTemplate, segments: Sequence[str | Slot]) -> TemplateChunk:
    pattern = b"".join(
        [b"%b" if isinstance(part, Slot) else part.encode(errors="replace").replace(b"%", b"%%") for part in segments]
    )
    index_of = {slot: index for index, slot in enumerate(template.slots)}
    indexes = [index_of[part] for part in segments if isinstance(part, Slot)]
    return TemplateChunk(template=template, segments=tuple(segments), pattern=pattern, pick=itemgetter(*indexes))


def _lines(segments: Iterable[str | Slot]) -> Iterator[list[str | Slot]]:
    """Split segments after every line end of their literals, which Jinja has converted to LF."""
    line: list[str | Slot] = []
    for segment in segments:
        if isinstance(segment, Slot):
            line.append(segment)
            continue
        *complete, rest = segment.split("\n")
        for part in complete:
            yield [*line, f"{part}\n"]
            line = []
        if rest:
            line.append(rest)
    if line:
        yield line


def _merge_static(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Merge adjacent static chunks."""
    for is_static, group in groupby(chunks, key=lambda chunk: isinstance(chunk, StaticChunk)):
        if is_static:
            adjacent = [chunk for chunk in group if isinstance(chunk, StaticChunk)]
            encoded = b"".join(chunk.encoded for chunk in adjacent)
            canonical = b"".join(chunk.canonical for chunk in adjacent)
            yield StaticChunk(encoded=encoded, canonical=encoded if canonical == encoded else canonical)
        else:
            yield from group


def canonical_lines(chunks: Sequence[Chunk], encoded_chunks: Sequence[bytes]) -> bytes:
    """Return the canonical lines of a merged body, see `relaxed_lines`.

    Args:
        chunks: The chunks of the body.
        encoded_chunks: Each chunk, merged and encoded.

    Returns:
        The lines. The empty lines at the end are still there, see `relaxed_body`.
    """
    return b"".join(
        chunk.canonical if isinstance(chunk, StaticChunk) else relaxed_lines(encoded)
        for chunk, encoded in zip(chunks, encoded_chunks, strict=True)
    )


def quoted_printable(text: str) -> bytes:
    """Encode a text (RFC 2045 §6.7): in ASCII, with CRLF for any line end, and lines of at most 76 characters."""
    return _quoted(text.encode(errors="replace"))


def _quoted(octets: bytes) -> bytes:
    if b"\r" in octets:
        octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    encoded = b2a_qp(octets, quotetabs=False, istext=True, header=False)
    if b"=20\n" in encoded or b"=09\n" in encoded:
        # b2a_qp encodes a blank at the end of a full line without breaking the line, which is then too long.
        encoded = _TOO_LONG.sub(rb"\1=\n\2", encoded)
    return encoded.replace(b"\n", b"\r\n")

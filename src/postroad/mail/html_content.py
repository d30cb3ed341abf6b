"""Reads an HTML body: its links, its images without an alternative text, and its words.

`read_html` reads a message, `read_template` a template: there all branches of its logic are read, and elements have
the lines of the template. Untrusted or very large HTML is read in a child process: `postroad.mail.html_reader`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from typing import Final

import msgspec

from postroad.mail.placeholders import unused
from postroad.mail.plain_text import HtmlTextReader
from postroad.mail.template import tokens

MAX_ELEMENTS: Final = 2_000
"""Maximum number of links, and of images, that are returned."""
_MAX_SHOWN: Final = 300
_MAX_URL: Final = 4_000


class HtmlLink(msgspec.Struct, frozen=True, array_like=True):
    """A link: its address, the text that is shown for it, and its line. Jinja code of a template is in both."""

    href: str
    shown: str
    line: int


class HtmlContent(msgspec.Struct, frozen=True, array_like=True):
    """The content of an HTML body.

    Attributes:
        text: The text that is shown, with the addresses of links.
        links: The links that are shown.
        no_alt: Lines of the first images that have no alternative text. An empty one is allowed: ``alt=""``.
        without_alt: Number of images that have no alternative text.
        images: Number of all images.
    """

    text: str
    links: tuple[HtmlLink, ...]
    no_alt: tuple[int, ...]
    without_alt: int
    images: int


Position = tuple[int, int]
"""Line, from 1, and column, from 0."""


def read_html(html: str) -> HtmlContent:
    """Read the HTML of a message."""
    return _read(html, lambda position: position[0])


def read_template(source: str) -> HtmlContent:
    """Read a template of HTML that compiles. Statements between elements are omitted. The text is not restored."""
    prefix, tags = unused("zq", source), _TagScanner()
    masked: dict[str, str] = {}
    pieces: list[str] = []
    # By token: its position in the HTML that is read, and its line in the template.
    starts: list[Position] = []
    lines: list[int] = []
    line, column = 1, 0
    for token in tokens(source):
        starts.append((line, column))
        lines.append(token.line)
        piece = token.source if token.kind == "data" else ""
        if token.kind == "expression" or (token.kind == "statement" and tags.in_tag):
            word = f"{prefix}{len(masked)}z"
            masked[word] = token.source
            piece = word if tags.in_value or token.kind == "expression" else f" {word} "
        tags.scan(piece)
        pieces.append(piece)
        line, column = _advance((line, column), piece)

    def line_of(position: Position) -> int:
        token = bisect_right(starts, position) - 1
        return lines[token] + position[0] - starts[token][0]

    content = _read("".join(pieces), line_of)
    pattern = re.compile(rf"{prefix}\d+z")

    def restore(text: str) -> str:
        return pattern.sub(lambda found: masked.get(found[0], found[0]), text)

    links = tuple(HtmlLink(restore(link.href), restore(link.shown), link.line) for link in content.links)
    return msgspec.structs.replace(content, text="", links=links)


class _TagScanner:
    """Scans HTML in parts, and remembers whether its end is in a tag, and in a quoted value there."""

    _CHANGES: Final = re.compile(r"<(?=[A-Za-z/])|[>\"']")

    def __init__(self) -> None:
        self.in_tag = False
        self._quote = ""

    @property
    def in_value(self) -> bool:
        return bool(self._quote)

    def scan(self, html: str) -> None:
        for found in self._CHANGES.finditer(html):
            match found[0]:
                case "<":
                    self.in_tag = self.in_tag or not self._quote
                case ">" if not self._quote:
                    self.in_tag = False
                case quote if self.in_tag and quote in (
                    "'",
                    '"',
                ):
                    self._quote = "" if quote == self._quote else self._quote or quote
                case _:
                    pass


def _advance(position: Position, text: str) -> Position:
    newlines = text.count("\n")
    if not newlines:
        return position[0], position[1] + len(text)
    return position[0] + newlines, len(text) - text.rindex("\n") - 1


def _read(html: str, line_of: Callable[[Position], int]) -> HtmlContent:
    reader = _ContentReader(line_of)
    reader.feed(html)
    reader.close()
    return HtmlContent(reader.text(), tuple(reader.found), tuple(reader.no_alt), reader.without_alt, reader.images)


class _ContentReader(HtmlTextReader):
    def __init__(self, line_of: Callable[[Position], int]) -> None:
        super().__init__()
        self.found: list[HtmlLink] = []
        self.no_alt: list[int] = []
        self.without_alt = self.images = 0
        self._line_of = line_of
        self._line: int | None = None  # of the open link, if it has an address

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" and self._links:
            self.handle_endtag("a")  # A link ends where the next one begins (WHATWG HTML §13.2.6.4.7).
        super().handle_starttag(tag, attrs)
        if self._unseen:
            return
        values = dict(attrs)
        match tag:
            case "a":
                # An element without an address is a target: <a name="top">.
                self._line = self._line_of(self.getpos()) if "href" in values else None
            case "area" if "href" in values:
                self._add(values["href"] or "", values.get("alt") or "", self._line_of(self.getpos()))
            case "img":
                self.images += 1
                if "alt" not in values:
                    self.without_alt += 1
                    if len(self.no_alt) < MAX_ELEMENTS:
                        self.no_alt.append(self._line_of(self.getpos()))
            case _:
                pass

    def close(self) -> None:
        super().close()
        if self._links and not self._unseen:
            self.handle_endtag("a")

    def _end_link(self, href: str, since: int) -> None:
        if self._line is not None:
            self._add(href, "".join(self._out[since:]).strip(), self._line)
        super()._end_link(href, since)

    def _add(self, href: str, shown: str, line: int) -> None:
        if len(self.found) < MAX_ELEMENTS:
            self.found.append(HtmlLink(href.strip()[:_MAX_URL], shown[:_MAX_SHOWN], line))

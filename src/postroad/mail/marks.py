"""Templates of HTML, made safe for tools that know HTML and not templates.

What Jinja would read becomes a mark: a comment, which may stand anywhere between tags (a text would be moved out of
a table), or a word, which may stand in an attribute, a style or a title. Behind the tool the marks are undone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import assert_never

from postroad.errors import ConfigError
from postroad.mail.template import tokens

_TAG = re.compile(r"<!--|<([A-Za-z][A-Za-z0-9-]*)|</[A-Za-z]|<[!?]")
_IN_TAG = re.compile(r"[\"'>]")
_TEXT_ONLY = frozenset({"style", "script", "title", "textarea", "mj-style", "mj-title", "mj-preview"})


@dataclass(frozen=True, kw_only=True)
class Placeholder:
    """One expression, statement or comment of a template. ``loose``: it may come out any number of times."""

    word: str
    source: str
    line: int
    statement: bool
    loose: bool

    @property
    def comment(self) -> str:
        """What the comment says. Not the word alone: that may stand in a comment of the template's own."""
        return f"{self.word}-c"


@dataclass(frozen=True, kw_only=True)
class MarkedHtml:
    """A template with marks for all that is Jinja's."""

    html: str
    marks: tuple[Placeholder, ...]

    @property
    def statements(self) -> re.Pattern[str]:
        """What finds a statement of the template."""
        words = "|".join(mark.word for mark in self.marks if mark.statement)
        return re.compile(words or r"(?!)")

    @property
    def has_dynamic_class(self) -> bool:
        """Whether an element has a class or an id that the template makes."""
        words = "|".join(mark.word for mark in self.marks)
        value = rf"""(?:"[^"]*?(?:{words})|'[^']*?(?:{words})|(?:{words}))"""
        return bool(words) and re.search(rf"\b(?:class|id)\s*=\s*{value}", self.html, re.IGNORECASE) is not None

    def undo(self, text: str, *, name: str, remedy: str) -> str:
        """Put what the marks stand for back into what a tool made. Raises ConfigError where it lost one.

        A statement must come out once, and in its order: else loops would end before they begin.
        """
        if not self.marks:
            return text
        by_word = {mark.word: mark for mark in self.marks}
        pattern = re.compile(f"<!--({'|'.join(by_word)})-c-->|({'|'.join(by_word)})")
        found = [by_word[match[1] or match[2]] for match in pattern.finditer(text)]
        statements = [mark for mark in self.marks if mark.statement]
        lost = next((mark for mark in self.marks if not mark.loose and mark not in found), None)
        if lost is None and [mark for mark in found if mark.statement] != statements:
            lost = statements[0]
        if lost is not None:
            raise ConfigError(
                f"{lost.source} stands where it cannot be kept", where=f"{name}, line {lost.line}", remedy=remedy
            )
        return pattern.sub(lambda match: by_word[match[1] or match[2]].source, text)


def unused(prefix: str, source: str) -> str:
    """Return letters that a text does not contain: these, or more of them."""
    while prefix in source:
        prefix += prefix[-1]
    return prefix


def mark(source: str, *, name: str, comments: bool = True) -> MarkedHtml:
    """Mark a template. ``comments``: expressions between tags become comments too, and not words.

    Raises ConfigError for Jinja between the attributes of a tag, where no mark can stand.
    """
    prefix = unused("zq", source)
    reader, marks, html = _PlaceholderReader(), list[Placeholder](), [""]
    for token in tokens(source):
        if token.kind == "data":
            reader.read(token.source)
            html.append(token.source)
            continue
        found = Placeholder(
            word=f"{prefix}{len(marks)}z",
            source=token.source,
            line=token.line,
            statement=token.kind == "statement",
            loose=token.kind == "expression" and (reader.element == "style" or reader.place is _Place.COMMENT),
        )
        marks.append(found)
        if reader.place is _Place.TAG and not html[-1].rstrip().endswith("="):
            raise ConfigError(
                f"{token.source} stands between the attributes of a tag",
                where=f"{name}, line {token.line}",
                remedy="Put it into the value of an attribute, or around the whole tag.",
            )
        as_comment = reader.place is _Place.CONTENT and (comments or token.kind == "statement")
        html.append(f"<!--{found.comment}-->" if as_comment else found.word)
    return MarkedHtml(html="".join(html), marks=tuple(marks))


class _PlaceholderReader:
    """Reads HTML piece by piece, and knows where in it one is."""

    def __init__(self) -> None:
        self.place = _Place.CONTENT
        self.element = ""  # the last tag that began
        self._quote = ""

    def read(self, text: str) -> None:
        at: int | None = 0
        while at is not None:
            at = self._step(text, at)

    def _step(self, text: str, at: int) -> int | None:
        """Go to where the place changes, and return what is behind it; None: it does not change any more."""
        found = self._next(text, at)
        if found is None:
            return None
        match self.place:
            case _Place.CONTENT:
                self.element = (found[1] or "").lower()
                self.place = _Place.COMMENT if found[0] == "<!--" else _Place.TAG
            case _Place.TAG if found[0] != ">":
                self.place, self._quote = _Place.VALUE, found[0]
            case _Place.TAG:
                opens_text = self.element in _TEXT_ONLY and text[found.start() - 1 : found.start()] != "/"
                self.place = _Place.TEXT_ONLY if opens_text else _Place.CONTENT
            case _Place.VALUE:
                self.place = _Place.TAG
            case _Place.COMMENT:
                self.place = _Place.CONTENT
            case _Place.TEXT_ONLY:
                self.place, self.element = _Place.TAG, ""
            case other:
                assert_never(other)
        return found.end()

    def _next(self, text: str, at: int) -> re.Match[str] | None:
        match self.place:
            case _Place.CONTENT:
                return _TAG.search(text, at)
            case _Place.TAG:
                return _IN_TAG.search(text, at)
            case _Place.VALUE:
                return re.compile(self._quote).search(text, at)
            case _Place.COMMENT:
                return re.compile("-->").search(text, at)
            case _Place.TEXT_ONLY:
                return re.compile(f"</{self.element}", re.IGNORECASE).search(text, at)
            case other:
                assert_never(other)


class _Place(Enum):
    CONTENT = auto()
    TAG = auto()
    VALUE = auto()
    COMMENT = auto()
    TEXT_ONLY = auto()

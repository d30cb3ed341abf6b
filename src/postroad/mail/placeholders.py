"""Replaces Jinja code in HTML by placeholders, so that tools for HTML can process a template.

A placeholder is a comment or a word. A comment is allowed anywhere between tags (a text would be moved out of a
table). A word is allowed in an attribute, a style or a title. After the tool has run, the placeholders are replaced by
the Jinja code.
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
    """A placeholder for one expression or statement of a template.

    Attributes:
        word: The placeholder where it is a word.
        source: The Jinja code.
        line: Its line in the template.
        statement: Whether it is a statement.
        loose: Whether the tool's output may contain it any number of times.
    """

    word: str
    source: str
    line: int
    statement: bool
    loose: bool

    @property
    def comment(self) -> str:
        """The text of the placeholder comment. Not only the word, which may be inside an author's comment."""
        return f"{self.word}-c"


@dataclass(frozen=True, kw_only=True)
class MaskedHtml:
    """A template with placeholders for all Jinja code."""

    html: str
    placeholders: tuple[Placeholder, ...]

    @property
    def statements(self) -> re.Pattern[str]:
        """A pattern that matches the placeholder of any statement."""
        words = "|".join(placeholder.word for placeholder in self.placeholders if placeholder.statement)
        return re.compile(words or r"(?!)")

    @property
    def has_dynamic_class(self) -> bool:
        """Whether an element has a class or an id with Jinja code in it."""
        words = "|".join(placeholder.word for placeholder in self.placeholders)
        value = rf"""(?:"[^"]*?(?:{words})|'[^']*?(?:{words})|(?:{words}))"""
        return bool(words) and re.search(rf"\b(?:class|id)\s*=\s*{value}", self.html, re.IGNORECASE) is not None

    def unmask(self, text: str, *, name: str, remedy: str) -> str:
        """Replace the placeholders in the output of a tool by the Jinja code.

        Args:
            text: The output.
            name: The template's name, for errors.
            remedy: Advice for an error.

        Returns:
            The template.

        Raises:
            ConfigError: A placeholder is missing, or a statement does not occur exactly once and in order.
        """
        if not self.placeholders:
            return text
        by_word = {placeholder.word: placeholder for placeholder in self.placeholders}
        pattern = re.compile(f"<!--({'|'.join(by_word)})-c-->|({'|'.join(by_word)})")
        found = [by_word[match[1] or match[2]] for match in pattern.finditer(text)]
        statements = [placeholder for placeholder in self.placeholders if placeholder.statement]
        lost = next((wanted for wanted in self.placeholders if not wanted.loose and wanted not in found), None)
        if lost is None and [placeholder for placeholder in found if placeholder.statement] != statements:
            lost = statements[0]
        if lost is not None:
            raise ConfigError(
                f"{lost.source} is in a place where it would be lost", where=f"{name}, line {lost.line}", remedy=remedy
            )
        return pattern.sub(lambda match: by_word[match[1] or match[2]].source, text)


def unused(prefix: str, source: str) -> str:
    """Return letters that a text does not contain: the prefix, with its last letter repeated as needed."""
    while prefix in source:
        prefix += prefix[-1]
    return prefix


def mask(source: str, *, name: str, comments: bool = True) -> MaskedHtml:
    """Replace the Jinja code of a template by placeholders.

    Args:
        source: The template.
        name: Its name, for errors.
        comments: Whether expressions between tags become comments. Otherwise they become words.

    Returns:
        The template with placeholders.

    Raises:
        ConfigError: Jinja code is between the attributes of a tag, where HTML allows no placeholder.
    """
    prefix = unused("zq", source)
    scanner, placeholders, html = _HtmlScanner(), list[Placeholder](), [""]
    for token in tokens(source):
        if token.kind == "data":
            scanner.scan(token.source)
            html.append(token.source)
            continue
        placeholder = Placeholder(
            word=f"{prefix}{len(placeholders)}z",
            source=token.source,
            line=token.line,
            statement=token.kind == "statement",
            loose=token.kind == "expression" and (scanner.element == "style" or scanner.state is _State.COMMENT),
        )
        placeholders.append(placeholder)
        if scanner.state is _State.TAG and not html[-1].rstrip().endswith("="):
            raise ConfigError(
                f"{token.source} is between the attributes of a tag",
                where=f"{name}, line {token.line}",
                remedy="Put it into the value of an attribute, or around the whole tag.",
            )
        as_comment = scanner.state is _State.CONTENT and (comments or token.kind == "statement")
        html.append(f"<!--{placeholder.comment}-->" if as_comment else placeholder.word)
    return MaskedHtml(html="".join(html), placeholders=tuple(placeholders))


class _HtmlScanner:
    """Scans HTML in parts. Its state is the context at the end of what was scanned."""

    def __init__(self) -> None:
        self.state = _State.CONTENT
        self.element = ""  # name of the last start tag
        self._quote = ""

    def scan(self, text: str) -> None:
        position: int | None = 0
        while position is not None:
            position = self._step(text, position)

    def _step(self, text: str, position: int) -> int | None:
        """Advance to the next change of state. Return the position after it, or None if there is no further change."""
        found = self._next_delimiter(text, position)
        if found is None:
            return None
        match self.state:
            case _State.CONTENT:
                self.element = (found[1] or "").lower()
                self.state = _State.COMMENT if found[0] == "<!--" else _State.TAG
            case _State.TAG if found[0] != ">":
                self.state, self._quote = _State.VALUE, found[0]
            case _State.TAG:
                opens_text = self.element in _TEXT_ONLY and text[found.start() - 1 : found.start()] != "/"
                self.state = _State.TEXT_ONLY if opens_text else _State.CONTENT
            case _State.VALUE:
                self.state = _State.TAG
            case _State.COMMENT:
                self.state = _State.CONTENT
            case _State.TEXT_ONLY:
                self.state, self.element = _State.TAG, ""
            case other:
                assert_never(other)
        return found.end()

    def _next_delimiter(self, text: str, position: int) -> re.Match[str] | None:
        match self.state:
            case _State.CONTENT:
                return _TAG.search(text, position)
            case _State.TAG:
                return _IN_TAG.search(text, position)
            case _State.VALUE:
                return re.compile(self._quote).search(text, position)
            case _State.COMMENT:
                return re.compile("-->").search(text, position)
            case _State.TEXT_ONLY:
                return re.compile(f"</{self.element}", re.IGNORECASE).search(text, position)
            case other:
                assert_never(other)


class _State(Enum):
    CONTENT = auto()
    TAG = auto()
    VALUE = auto()
    COMMENT = auto()
    TEXT_ONLY = auto()

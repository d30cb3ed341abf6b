"""What the pages say, in the language that the reader asks for."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files

DEFAULT_LANGUAGE = "en"
MAX_HEADER_CHARACTERS = 500


class Notice(StrEnum):
    """What a page is about."""

    ASK = "ask"
    DONE = "done"
    INVALID = "invalid"
    AWAY = "away"
    HURRY = "hurry"


@dataclass(frozen=True, kw_only=True)
class Translations:
    """The words of one notice in one language. ``button``: only of what asks."""

    title: str
    text: str
    button: str = ""


Language = str
Book = dict[Language, dict[Notice, Translations]]


def read_words() -> Book:
    """Read words.toml: every notice in every language that it has."""
    book = tomllib.loads((files("postroad.web") / "words.toml").read_text(encoding="utf-8"))
    return {language: {notice: Translations(**book[language][notice]) for notice in Notice} for language in book}


def choose_language(accept_language: str, known: Book) -> Language:
    """Return the best of the languages known (RFC 9110 §12.5.4; RFC 4647 §3.4), else English."""
    best, best_weight = DEFAULT_LANGUAGE, 0.0
    for part in accept_language[:MAX_HEADER_CHARACTERS].split(","):
        wanted, _, parameter = part.partition(";")
        language = wanted.strip().lower().partition("-")[0]
        weight = _weight(parameter)
        if language in known and weight > best_weight:
            best, best_weight = language, weight
    return best


def _weight(parameter: str) -> float:
    name, equals, value = parameter.strip().partition("=")
    if not equals:
        return 1.0
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if name.strip().lower() == "q" and 0 <= weight <= 1 else 0.0

"""Translations of the pages, and the choice of a language."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files

DEFAULT_LANGUAGE = "en"
MAX_HEADER_CHARACTERS = 500


class Notice(StrEnum):
    """Kind of a page."""

    ASK = "ask"
    DONE = "done"
    INVALID = "invalid"
    AWAY = "away"
    HURRY = "hurry"
    PROOF = "proof"


@dataclass(frozen=True, kw_only=True)
class NoticeText:
    """Texts of one notice in one language. ``button`` is empty if the page has no form."""

    title: str
    text: str
    button: str = ""


Language = str
Translations = dict[Language, dict[Notice, NoticeText]]


def read_translations() -> Translations:
    """Read translations.toml: every notice in each of its languages."""
    tables = tomllib.loads((files("postroad.web") / "translations.toml").read_text(encoding="utf-8"))
    return {language: {notice: NoticeText(**table[notice]) for notice in Notice} for language, table in tables.items()}


def choose_language(accept_language: str, available: Translations) -> Language:
    """Return the best available language by Accept-Language (RFC 9110 §12.5.4; RFC 4647 §3.4), else English."""
    best, best_weight = DEFAULT_LANGUAGE, 0.0
    for part in accept_language[:MAX_HEADER_CHARACTERS].split(","):
        tag, _, parameter = part.partition(";")
        language = tag.strip().lower().partition("-")[0]
        weight = _weight(parameter)
        if language in available and weight > best_weight:
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

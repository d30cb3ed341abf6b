"""Finds in the cleaned words of a server what they are evidence of. The words are a table: `evidence.toml`."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Final

from msgspec import Struct

from postroad.classify.text import SENTENCE_END, clean

MAX_GAP: Final = 4
"""Words that ``...`` in a phrase may stand for."""
_NEGATIONS: Final = frozenset(
    {
        *("no", "not", "never", "isnt", "arent", "wasnt", "without", "nor", "non"),
        *("nicht", "kein", "keine", "keinen", "ne", "pas", "sin", "nao", "não", "nie", "не", "нет"),
    }
)
_NEGATION_REACH: Final = 2


class Evidence(StrEnum):
    """What words are evidence of; the tables of `evidence.toml`."""

    NO_MAILBOX = "no-mailbox"
    NO_DOMAIN = "no-domain"
    NO_MAIL = "no-mail"
    MOVED = "moved"
    MAILBOX_UNAVAILABLE = "mailbox-unavailable"
    MAILBOX_FULL = "mailbox-full"
    INACTIVE = "inactive"
    NOT_WANTED = "not-wanted"
    SENDER_AUTHENTICATION = "sender-authentication"
    SENDER_ADDRESS = "sender-address"
    SENDER_NAME = "sender-name"
    REPUTATION = "reputation"
    RATE = "rate"
    CONTENT = "content"
    POLICY = "policy"
    RELAYING = "relaying"
    RELAY_ACCOUNT = "relay-account"
    TOO_BIG = "too-big"
    MALFORMED = "malformed"
    GREYLISTED = "greylisted"
    TEMPORARY = "temporary"
    SYSTEM = "system"
    NETWORK = "network"
    LOOP = "loop"
    PROTOCOL = "protocol"


HARD: Final = frozenset({Evidence.NO_MAILBOX, Evidence.NO_DOMAIN, Evidence.NO_MAIL, Evidence.MOVED})
"""Words that say that the recipient is not there."""


class Phrase(Struct, frozen=True):
    """One phrase of the table. ``words``: each a whole word, one that ends in ``*``, or ``...``.

    ``weight``: how many words it has, or what its table says.
    """

    evidence: Evidence
    text: str
    words: tuple[str, ...]
    weight: int


class Found(Struct, frozen=True):
    """A phrase that a text contains. ``weight``: how many words of it."""

    evidence: Evidence
    phrase: str
    weight: int


@cache
def _tables() -> tuple[Mapping[str, Sequence[Phrase]], Sequence[tuple[str, Phrase]], Sequence[tuple[str, Phrase]]]:
    """Return phrases by their first word, those whose first word has any ending, and those that match anywhere."""
    content = tomllib.loads(files("postroad.classify").joinpath("evidence.toml").read_text(encoding="utf-8"))
    by_word: dict[str, list[Phrase]] = defaultdict(list)
    by_stem: list[tuple[str, Phrase]] = []
    anywhere: list[tuple[str, Phrase]] = []
    for kind, table in content.items():
        for text in table["phrases"]:
            words = tuple(text.casefold().split())
            weight = table.get("weight") or sum(1 for word in words if word != "...")
            phrase = Phrase(Evidence(kind), text, words, weight)
            if _has_no_spaces(text):
                anywhere.append((clean(text), phrase))
            elif phrase.words[0].endswith("*"):
                by_stem.append((phrase.words[0].rstrip("*"), phrase))
            else:
                by_word[phrase.words[0]].append(phrase)
    return by_word, by_stem, anywhere


def _has_no_spaces(text: str) -> bool:
    """Whether a phrase is in a script that puts no spaces between words: Thai, Chinese, Japanese, Korean endings."""
    return any("\u0e00" <= character <= "\u0e7f" or "\u3040" <= character <= "\ud7ff" for character in text)


def find_evidence(cleaned: str) -> tuple[Found, ...]:
    """Return the phrases that a cleaned text contains, each once, but for those that a negation comes before."""
    by_word, by_stem, anywhere = _tables()
    words = cleaned.split(" ")
    found: dict[str, Found] = {}
    for position, word in enumerate(words):
        candidates = [*by_word.get(word, ()), *(phrase for stem, phrase in by_stem if word.startswith(stem))]
        for phrase in candidates:
            length = _match(phrase.words, words, position)
            if length and not _is_negated(phrase, words, position):
                found.setdefault(phrase.text, Found(phrase.evidence, phrase.text, phrase.weight))
    if not cleaned.isascii():
        for characters, phrase in anywhere:
            if characters in cleaned:
                found.setdefault(phrase.text, Found(phrase.evidence, phrase.text, 2))
    return tuple(found.values())


def _match(pattern: Sequence[str], words: Sequence[str], position: int) -> int:
    """Return how many words from this position on the pattern covers. 0: it does not match there."""
    at = position
    for place, wanted in enumerate(pattern):
        if wanted == "...":
            rest = pattern[place + 1 :]
            for gap in _gaps(words, at):
                length = _match(rest, words, at + gap)
                if length:
                    return at + gap + length - position
            return 0
        if at >= len(words) or not _same(wanted, words[at]):
            return 0
        at += 1
    return at - position


def _gaps(words: Sequence[str], at: int) -> Iterator[int]:
    for gap in range(MAX_GAP + 1):
        yield gap
        if at + gap >= len(words) or words[at + gap] == SENTENCE_END:
            return


def _same(wanted: str, word: str) -> bool:
    return word.startswith(wanted[:-1]) if wanted.endswith("*") else word == wanted


def _is_negated(phrase: Phrase, words: Sequence[str], position: int) -> bool:
    """Whether a negation comes shortly before, in the same sentence. Words for a missing mailbox are one themselves."""
    if phrase.evidence in HARD or phrase.evidence is Evidence.MAILBOX_UNAVAILABLE:
        return False
    for word in reversed(words[max(position - _NEGATION_REACH, 0) : position]):
        if word == SENTENCE_END:
            return False
        if word in _NEGATIONS:
            return True
    return False

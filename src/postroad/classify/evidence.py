"""Finds in the cleaned words of a server what they are evidence of. The words are a table: `evidence.toml`."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any, Final

from msgspec import Struct

from postroad.classify.text import SENTENCE_END, clean

MAX_GAP: Final = 4
"""Words that ``...`` in a phrase may stand for."""
STEM_KEY: Final = 2
"""Characters by which phrases with any ending are looked up; no stem is shorter."""
_NEGATIONS: Final = frozenset(
    {
        *("no", "not", "never", "isnt", "arent", "wasnt", "without", "nor", "non"),
        *("nicht", "kein", "keine", "keinen", "ne", "pas", "sin", "nao", "não", "nie", "не", "нет"),
    }
)
_NEGATION_REACH: Final = 2
_HEDGES: Final = frozenset({"may", "might", "whether", "if", "peut", "können", "möglicherweise", "podría", "potrebbe"})
"""Words that make a statement a guess: "it may not exist"."""


class Evidence(StrEnum):
    """What words are evidence of; the tables of `evidence.toml`."""

    NO_MAILBOX = "no-mailbox"
    MISSING = "missing"
    NO_DOMAIN = "no-domain"
    NO_MAIL = "no-mail"
    MOVED = "moved"
    MAILBOX_UNAVAILABLE = "mailbox-unavailable"
    MAILBOX_FULL = "mailbox-full"
    OTHER_THING = "other-thing"
    INACTIVE = "inactive"
    NOT_WANTED = "not-wanted"
    SENDER_AUTHENTICATION = "sender-authentication"
    SENDER_ADDRESS = "sender-address"
    SENDER_NAME = "sender-name"
    REPUTATION = "reputation"
    RATE = "rate"
    CONTENT = "content"
    POLICY = "policy"
    REFUSED = "refused"
    RELAYING = "relaying"
    RELAY_ACCOUNT = "relay-account"
    RELAY_SENDER = "relay-sender"
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

_SUBJECTS: Final = frozenset(
    {
        *(Evidence.SENDER_ADDRESS, Evidence.SENDER_AUTHENTICATION, Evidence.SENDER_NAME, Evidence.OTHER_THING),
        *(Evidence.NOT_WANTED, Evidence.RELAYING, Evidence.RELAY_ACCOUNT, Evidence.GREYLISTED),
    }
)
"""Evidence whose words name what a reply is about: "no valid sender" and "not whitelisted" are about it as well."""

Word = str | frozenset[str]


class Phrase(Struct, frozen=True):
    """One phrase of the table. ``words``: each a whole word, one that ends in ``*``, ``...``, or the words of a class.

    ``weight``: how many words it has, or what its table says. ``needed``: words that a text with the phrase contains.
    """

    evidence: Evidence
    text: str
    words: tuple[Word, ...]
    weight: int
    needed: frozenset[str]


class FoundEvidence(Struct, frozen=True):
    """A phrase that a text contains. ``weight``: how many words of it."""

    evidence: Evidence
    phrase: str
    weight: int


@cache
def _content() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files("postroad.classify").joinpath("evidence.toml").read_text(encoding="utf-8"))


@cache
def _subjects() -> tuple[frozenset[str], frozenset[str]]:
    """Return words that name a recipient, and words that name nothing."""
    classes = _content()["classes"]
    return frozenset(classes["recipient"]) | frozenset(classes["named"]), frozenset(classes["empty"])


@cache
def _neutral() -> frozenset[str]:
    """Return English words that name a recipient, a failure or nothing."""
    classes = _content()["classes"]
    return frozenset(word for name in ("recipient", "named", "empty", "kind", "neutral") for word in classes[name])


@cache
def _tables() -> tuple[
    Mapping[str, Sequence[Phrase]], Mapping[str, Sequence[tuple[str, Phrase]]], Sequence[tuple[str, Phrase]]
]:
    """Return phrases by their first word, those whose first word has any ending, and those that match anywhere.

    Those whose first word has any ending are by its first `STEM_KEY` characters.
    """
    content = _content()
    classes = {f"{{{name}}}": frozenset(words) for name, words in content["classes"].items()}
    by_word: dict[str, list[Phrase]] = defaultdict(list)
    by_stem: dict[str, list[tuple[str, Phrase]]] = defaultdict(list)
    anywhere: list[tuple[str, Phrase]] = []
    for kind, table in content.items():
        for text in table.get("phrases", ()):
            words = tuple(classes.get(word, word) for word in text.casefold().split())
            weight = table.get("weight") or sum(1 for word in words if word not in ("...", SENTENCE_END))
            literal = (word for word in words if isinstance(word, str) and word != "..." and not word.endswith("*"))
            phrase = Phrase(Evidence(kind), text, words, weight, frozenset(literal))
            first = words[0]
            if _has_no_spaces(text):
                anywhere.append((clean(text), phrase))
            elif isinstance(first, frozenset):
                for word in first:
                    by_word[word].append(phrase)
            elif first.endswith("*"):
                by_stem[first[:STEM_KEY]].append((first.rstrip("*"), phrase))
            else:
                by_word[first].append(phrase)
    return by_word, by_stem, anywhere


def _has_no_spaces(text: str) -> bool:
    """Whether a phrase is in a script that puts no spaces between words: Thai, Chinese, Japanese, Korean endings."""
    return any("\u0e00" <= character <= "\u0e7f" or "\u3040" <= character <= "\ud7ff" for character in text)


def find_evidence(cleaned: str) -> tuple[FoundEvidence, ...]:
    """Return the phrases that a cleaned text contains, each once, but for those after a negation or a guess."""
    found: dict[str, FoundEvidence] = {}
    for sentence in cleaned.split(SENTENCE_END):
        if sentence.strip():
            for one in _in_sentence(sentence.strip()):
                found.setdefault(one.phrase, one)
    return tuple(found.values())


def _in_sentence(sentence: str) -> list[FoundEvidence]:
    """Return what one sentence is evidence of. One that names another thing says of no recipient that it is missing."""
    found = [one for one, _ in _matches([*sentence.split(" "), SENTENCE_END])]
    if not sentence.isascii():
        found += [FoundEvidence(phrase.evidence, phrase.text, 2) for text, phrase in _tables()[2] if text in sentence]
    mailbox = {Evidence.NO_MAILBOX, Evidence.MOVED}
    names_other = any(one.evidence is Evidence.OTHER_THING for one in found)
    says_missing = any(one.evidence in mailbox or one.evidence is Evidence.MISSING for one in found)
    dropped = {Evidence.MISSING} | (mailbox if names_other else set())
    if not says_missing:
        dropped.add(Evidence.OTHER_THING)
    return [one for one in found if one.evidence not in dropped]


def _matches(words: Sequence[str]) -> Iterator[tuple[FoundEvidence, int]]:
    """Yield what the phrases in the words of a sentence are evidence of, and at which word each begins."""
    by_word, by_stem, _ = _tables()
    contained = frozenset(words)
    matches = [
        (phrase, position, position + length)
        for position, word in enumerate(words)
        for phrase in (
            *by_word.get(word, ()),
            *(phrase for stem, phrase in by_stem.get(word[:STEM_KEY], ()) if word.startswith(stem)),
        )
        if phrase.needed <= contained and (length := _match(phrase.words, words, position))
    ]
    ends = [end for phrase, _, end in matches if _is_negation(phrase)]
    for phrase, position, _ in matches:
        # "mailbox not found blacklisted": the negation is part of the words before, and takes back none after them.
        begin = max((end for end in ends if end <= position), default=0)
        if not _is_taken_back(phrase, words[begin:position]):
            yield FoundEvidence(_evidence(phrase, words[:position]), phrase.text, phrase.weight), position


def find_other_subject(cleaned: str) -> str:
    """Return words of a cleaned text, which is no evidence of a missing recipient, that say something else.

    They are the name of another thing, "the certificate" with words that it is missing, "invalid character", or an
    English sentence with a word that is neither for a recipient nor for a failure. Of a language that the tables do not
    have, nothing is known.

    Returns:
        The first such words. Empty: there are none.
    """
    sentences = (sentence.split() for sentence in cleaned.split(SENTENCE_END))
    return next(filter(None, map(_other_subject, sentences)), "")


_ARTICLES: Final = frozenset({"the", "this", "that", "a", "an", "your", "our", "its"})
_QUALITIES: Final = frozenset(
    {"unknown", "invalid", "bad", "illegal", "wrong", "incorrect", "unsupported", "missing", "such"}
)
_MIN_ENGLISH: Final = 2
"""Words of the table that make a sentence an English one."""


def _other_subject(words: Sequence[str]) -> str:
    found = list(_matches([*words, SENTENCE_END]))
    other = next((one.phrase for one, _ in found if one.evidence is Evidence.OTHER_THING), "")
    if other:
        return other
    for one, position in found:
        if one.evidence is Evidence.MISSING:
            return "" if _ARTICLES.isdisjoint(words[:position]) else one.phrase
    neutral = _neutral()
    strange = [word for word in words if word not in neutral and word.isascii() and word.isalpha()]
    if any(word in _QUALITIES and noun in strange for word, noun in pairwise(words)):
        return strange[0]
    known = sum(1 for word in words if word in neutral)
    return strange[0] if strange and known >= _MIN_ENGLISH else ""


def _evidence(phrase: Phrase, before: Sequence[str]) -> Evidence:
    """Return what a phrase is evidence of, after these words of its sentence.

    That something is missing means the recipient where the words before it name one, or name nothing.
    """
    if phrase.evidence is not Evidence.MISSING:
        return phrase.evidence
    recipients, empty = _subjects()
    is_recipient = any(word in recipients for word in before) or all(word in empty for word in before)
    return Evidence.NO_MAILBOX if is_recipient else Evidence.MISSING


def _match(pattern: Sequence[Word], words: Sequence[str], position: int) -> int:
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


def _same(wanted: Word, word: str) -> bool:
    if isinstance(wanted, frozenset):
        return word in wanted
    return word.startswith(wanted[:-1]) if wanted.endswith("*") else word == wanted


def _is_taken_back(phrase: Phrase, before: Sequence[str]) -> bool:
    """Whether a negation comes shortly before, in the same sentence.

    Words for a missing mailbox are a negation themselves: what takes them back is a word that makes them a guess.
    """
    if phrase.evidence in _SUBJECTS:
        return False
    takes_back = _HEDGES if _is_negation(phrase) else _NEGATIONS
    return any(word in takes_back for word in before[-_NEGATION_REACH:])


def _is_negation(phrase: Phrase) -> bool:
    return phrase.evidence in HARD or phrase.evidence in (Evidence.MISSING, Evidence.MAILBOX_UNAVAILABLE)

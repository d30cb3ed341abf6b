"""Finds phrases that are evidence of a cause in the cleaned text of a server. The table is `evidence.toml`."""

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
"""Maximum words that ``...`` in a phrase matches."""
STEM_KEY: Final = 2
"""Characters of a stem that index the phrases with a wildcard ending. No stem is shorter."""
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
    """Kinds of evidence: the tables of `evidence.toml`."""

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
"""Evidence that the recipient does not exist."""

_SUBJECTS: Final = frozenset(
    {
        *(Evidence.SENDER_ADDRESS, Evidence.SENDER_AUTHENTICATION, Evidence.SENDER_NAME, Evidence.OTHER_THING),
        *(Evidence.NOT_WANTED, Evidence.RELAYING, Evidence.RELAY_ACCOUNT, Evidence.GREYLISTED),
    }
)
"""Evidence that names the subject of a reply. A negation keeps the subject: "no valid sender", "not whitelisted"."""

Word = str | frozenset[str]


class Phrase(Struct, frozen=True):
    """One phrase of the table.

    Attributes:
        evidence: Kind of evidence.
        text: The phrase as in the table.
        words: Each a whole word, a stem that ends in ``*``, ``...``, or the words of a class.
        weight: Number of words, unless the table has a weight.
        needed: Words that every text with the phrase contains.
    """

    evidence: Evidence
    text: str
    words: tuple[Word, ...]
    weight: int
    needed: frozenset[str]


class FoundEvidence(Struct, frozen=True):
    """A phrase that a text contains. ``weight``: weight of the phrase, in words."""

    evidence: Evidence
    phrase: str
    weight: int


@cache
def _content() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files("postroad.classify").joinpath("evidence.toml").read_text(encoding="utf-8"))


@cache
def _subjects() -> tuple[frozenset[str], frozenset[str]]:
    """Return the words that name a recipient, and the words without a subject."""
    classes = _content()["classes"]
    return frozenset(classes["recipient"]) | frozenset(classes["named"]), frozenset(classes["empty"])


@cache
def _neutral() -> frozenset[str]:
    """Return the English words that name a recipient, a failure or no subject."""
    classes = _content()["classes"]
    return frozenset(word for name in ("recipient", "named", "empty", "kind", "neutral") for word in classes[name])


@cache
def _tables() -> tuple[
    Mapping[str, Sequence[Phrase]], Mapping[str, Sequence[tuple[str, Phrase]]], Sequence[tuple[str, Phrase]]
]:
    """Return the indexed phrases.

    Returns:
        Phrases by their first word; phrases that begin with a stem, by its first `STEM_KEY` characters; and phrases
        that match anywhere in a sentence.
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
    """Return whether a phrase is in a script without spaces between words: Thai, Chinese, Japanese, Korean endings."""
    return any("\u0e00" <= character <= "\u0e7f" or "\u3040" <= character <= "\ud7ff" for character in text)


def find_evidence(cleaned: str) -> tuple[FoundEvidence, ...]:
    """Return the phrases that a cleaned text contains, each once, except phrases after a negation or a hedge."""
    by_phrase: dict[str, FoundEvidence] = {}
    for sentence in cleaned.split(SENTENCE_END):
        if sentence.strip():
            for hit in _in_sentence(sentence.strip()):
                by_phrase.setdefault(hit.phrase, hit)
    return tuple(by_phrase.values())


def _in_sentence(sentence: str) -> list[FoundEvidence]:
    """Return the evidence in one sentence. If it names another thing, "missing" is not about the recipient."""
    hits = [hit for hit, _ in _matches([*sentence.split(" "), SENTENCE_END])]
    if not sentence.isascii():
        hits += [FoundEvidence(phrase.evidence, phrase.text, 2) for text, phrase in _tables()[2] if text in sentence]
    mailbox = {Evidence.NO_MAILBOX, Evidence.MOVED}
    names_other = any(hit.evidence is Evidence.OTHER_THING for hit in hits)
    has_missing = any(hit.evidence in mailbox or hit.evidence is Evidence.MISSING for hit in hits)
    dropped = {Evidence.MISSING} | (mailbox if names_other else set())
    if not has_missing:
        dropped.add(Evidence.OTHER_THING)
    return [hit for hit in hits if hit.evidence not in dropped]


def _matches(words: Sequence[str]) -> Iterator[tuple[FoundEvidence, int]]:
    """Yield the evidence in the words of a sentence, and the position of the first word of each phrase."""
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
    gone = [(position, end) for phrase, position, end in matches if phrase.evidence is Evidence.NO_MAILBOX]
    for phrase, position, end in matches:
        # "mailbox closed permanently" is not also "mailbox closed", which may be opened again.
        if phrase.evidence is Evidence.INACTIVE and any(first <= position and end <= last for first, last in gone):
            continue
        # "mailbox not found blacklisted": the negation belongs to the phrase before it, and does not negate the next.
        begin = max((end for end in ends if end <= position), default=0)
        if not _is_negated(phrase, words[begin:position]):
            yield FoundEvidence(_evidence(phrase, words[:position]), phrase.text, phrase.weight), position


def only_refuses(cleaned: str) -> bool:
    """Return whether a text has English words of a refusal and no word for a recipient: "Message rejected".

    Blocked senders also get a code for a missing mailbox with such words.

    Args:
        cleaned: A cleaned text without evidence of a missing recipient.
    """
    words, classes = set(cleaned.split()), _content()["classes"]
    return not words.isdisjoint(classes["refusal"]) and words.isdisjoint(classes["recipient"])


def find_other_subject(cleaned: str) -> str:
    """Return words of a cleaned text that are about another subject than a missing recipient.

    Such words are the name of another thing, a missing thing with an article ("the certificate"), "invalid character",
    or a word of an English sentence that means neither a recipient nor a failure. In a language that the tables lack,
    no words are found.

    Args:
        cleaned: A cleaned text without evidence of a missing recipient.

    Returns:
        The first such words, or an empty string.
    """
    sentences = (sentence.split() for sentence in cleaned.split(SENTENCE_END))
    return next(filter(None, map(_other_subject, sentences)), "")


_ARTICLES: Final = frozenset({"the", "this", "that", "a", "an", "your", "our", "its"})
_QUALITIES: Final = frozenset(
    {"unknown", "invalid", "bad", "illegal", "wrong", "incorrect", "unsupported", "missing", "such"}
)
_MIN_ENGLISH: Final = 2
"""Number of words of the table by which a sentence counts as English."""


def _other_subject(words: Sequence[str]) -> str:
    hits = list(_matches([*words, SENTENCE_END]))
    other = next((hit.phrase for hit, _ in hits if hit.evidence is Evidence.OTHER_THING), "")
    if other:
        return other
    for hit, position in hits:
        if hit.evidence is Evidence.MISSING:
            return "" if _ARTICLES.isdisjoint(words[:position]) else hit.phrase
    neutral = _neutral()
    unknown = [word for word in words if word not in neutral and word.isascii() and word.isalpha()]
    if any(word in _QUALITIES and noun in unknown for word, noun in pairwise(words)):
        return unknown[0]
    known = sum(1 for word in words if word in neutral)
    return unknown[0] if unknown and known >= _MIN_ENGLISH else ""


_READER: Final = (("you", "are"), ("youre",), ("you", "were"), ("your", "address", "is"), ("your", "domain", "is"))
"""Subjects of a sentence about the reader of the reply, who is the sender."""


def _evidence(phrase: Phrase, before: Sequence[str]) -> Evidence:
    """Return the evidence of a phrase, given the words before it in its sentence.

    "Missing" is about the recipient if the words before it name a recipient, or no subject at all. What the reader is
    not ("you are not in the list") is about the sender.
    """
    if phrase.evidence in HARD | {Evidence.MISSING} and any(
        tuple(before[-len(subject) :]) == subject for subject in _READER
    ):
        return Evidence.POLICY
    if phrase.evidence is not Evidence.MISSING:
        return phrase.evidence
    recipients, empty = _subjects()
    is_recipient = any(word in recipients for word in before) or all(word in empty for word in before)
    return Evidence.NO_MAILBOX if is_recipient else Evidence.MISSING


def _match(pattern: Sequence[Word], words: Sequence[str], position: int) -> int:
    """Return the number of words that the pattern matches at this position, or 0."""
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


def _is_negated(phrase: Phrase, before: Sequence[str]) -> bool:
    """Return whether a negation precedes the phrase in the same sentence, within `_NEGATION_REACH` words.

    Words for a missing mailbox contain a negation themselves. They are negated by a hedge instead.
    """
    if phrase.evidence in _SUBJECTS:
        return False
    negating = _HEDGES if _is_negation(phrase) else _NEGATIONS
    return any(word in negating for word in before[-_NEGATION_REACH:])


def _is_negation(phrase: Phrase) -> bool:
    return phrase.evidence in HARD or phrase.evidence in (Evidence.MISSING, Evidence.MAILBOX_UNAVAILABLE)

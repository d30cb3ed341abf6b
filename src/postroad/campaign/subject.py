"""Checks the subject of a step as recipients see it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from postroad.campaign.finding import PreflightCode, PreflightFinding, step_finding

MAX_SHOWN: Final = 78
"""Longest subject without a finding, in characters: one line of a header (RFC 5322 §2.1.1)."""
_REPLY: Final = re.compile(
    r"\s*(?:re|fwd?|aw|wg|antw|sv|vs|tr|rv|enc|odp|ynt|回复|回覆|答复|转发|轉寄|返信|転送)\s*(?:\[\d+\]|\(\d+\))?\s*[:：]",
    re.IGNORECASE,
)
_EMOJI: Final = re.compile("[\u2600-\u27bf\u2b50\u2b55\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff]")
_SKIN_TONE: Final = re.compile("[\U0001f3fb-\U0001f3ff]")
_MIN_CAPITALS: Final = 6
_SHOWN: Final = 100


def subject_findings(where: str, subjects: Sequence[str]) -> Iterator[PreflightFinding]:
    """Yield what is wrong with the subjects of a step. Each finding names the first subject with the problem.

    Args:
        where: The campaign and the step.
        subjects: Subjects of some of its messages.
    """
    for code, matches, what, remedy in _CHECKS:
        subject = next((subject for subject in subjects if matches(subject)), None)
        if subject is not None:
            shown = subject if len(subject) <= _SHOWN else f"{subject[:_SHOWN]}…"
            numbers = {"length": len(subject), "emoji": count_emoji(subject)}
            yield step_finding(code, where, what.format(shown=repr(shown), **numbers), remedy, part="subject")


def count_emoji(subject: str) -> int:
    """Return the number of emoji. A flag of two letters counts as two."""
    return len(_EMOJI.findall(_SKIN_TONE.sub("", subject)))


def is_in_capitals(subject: str) -> bool:
    """Return whether all letters are capitals. A few letters may be a name: NASA."""
    capitals = sum(letter.isupper() for letter in subject)
    return capitals >= _MIN_CAPITALS and not any(letter.islower() for letter in subject)


_CHECKS: Final[tuple[tuple[PreflightCode, Callable[[str], object], str, str], ...]] = (
    (PreflightCode.SUBJECT_EMPTY, lambda subject: not subject.strip(), "it is empty", "Write a subject."),
    (
        PreflightCode.SUBJECT_LONG,
        lambda subject: len(subject) > MAX_SHOWN,
        f"it has {{length}} characters, and programs show at most {MAX_SHOWN}: {{shown}}",
        "Shorten it, or begin with what matters.",
    ),
    (
        PreflightCode.SUBJECT_REPLY,
        _REPLY.match,
        "it looks like a reply or a forwarded mail: {shown}",
        "Remove the prefix: a campaign is not a reply.",
    ),
    (
        PreflightCode.SUBJECT_CAPITALS,
        is_in_capitals,
        "it is in capitals: {shown}",
        "Write it as a sentence.",
    ),
    (
        PreflightCode.SUBJECT_EMOJI,
        count_emoji,
        "it has {emoji} emoji: {shown}",
        "No action is required.",
    ),
)

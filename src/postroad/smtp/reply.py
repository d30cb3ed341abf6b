"""Replies (RFC 5321 §4.2) and their enhanced status codes (RFC 2034, RFC 3463)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)", re.ASCII)
_IN_TEXT = re.compile(r"#([45]\.\d{1,3}\.\d{1,3})(?!\.?\d)", re.ASCII)  # as qmail and IronPort write it: (#5.1.1)
# Characters that control a terminal, that a database rejects (NUL), or that UTF-8 cannot encode (surrogates).
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


class Phase(StrEnum):
    """The step of a session or transaction to which a command and its reply belong (RFC 5321 §3.3)."""

    CONNECT = "connect"
    EHLO = "ehlo"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's reply, and the phase in which it was sent."""

    phase: Phase
    code: int
    enhanced: str | None
    text: str
    ours: bool = False  # made by Postroad: no server sent it

    @property
    def positive(self) -> bool:
        return 200 <= self.code < 400

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


def clean(text: str) -> str:
    """Return a server's text with every run of control characters replaced by one space."""
    return text if text.isprintable() else _CONTROLS.sub(" ", text).strip()


def parse_reply(phase: Phase, code: int, lines: Sequence[str]) -> Reply:
    """Join the lines of a reply and split off the enhanced status code, which each line repeats.

    Args:
        phase: The phase of the command.
        code: The reply code (RFC 5321 §4.2).
        lines: The texts of the lines, without the code.

    Returns:
        The reply. Its text is one line.
    """
    enhanced: str | None = None
    texts: list[str] = []
    for line in map(clean, lines):
        match = _ENHANCED.match(line)
        # RFC 2034 §4: the class must equal the reply's first digit. Otherwise it is part of the text.
        if match is not None and match[1][0] == str(code)[0]:
            enhanced = enhanced or match[1]
            line = line[match.end() :]  # noqa: PLW2901
        texts.append(line.strip())
    text = " ".join(text for text in texts if text)
    if enhanced is None and (match := _IN_TEXT.search(text)) is not None and match[1][0] == str(code)[0]:
        enhanced = match[1]
    return Reply(phase, code, enhanced, text)

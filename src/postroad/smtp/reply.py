"""Replies (RFC 5321 §4.2) and their enhanced status codes (RFC 2034, RFC 3463)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")


class Phase(StrEnum):
    """How far a transaction had come (RFC 5321 §3.3): what is asked, and answered, in it."""

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
    """What a server answered, and in which phase."""

    phase: Phase
    code: int
    enhanced: str | None
    text: str

    @property
    def positive(self) -> bool:
        return 200 <= self.code < 400

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


def parse_reply(phase: Phase, code: int, lines: list[str]) -> Reply:
    """Join the lines of a reply. The enhanced code, which each line repeats, is taken out of the text."""
    enhanced: str | None = None
    texts: list[str] = []
    for line in lines:
        match = _ENHANCED.match(line)
        # RFC 2034 §4: its class must be the reply's own; one that is not is part of the text.
        if match is not None and match[1][0] == str(code)[0]:
            enhanced = enhanced or match[1]
            line = line[match.end() :]  # noqa: PLW2901
        texts.append(line.strip())
    return Reply(phase, code, enhanced, " ".join(text for text in texts if text))

"""Replies (RFC 5321 §4.2) and their enhanced status codes (RFC 2034, RFC 3463)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)", re.ASCII)
_REMARKED = re.compile(r"#([45]\.\d{1,3}\.\d{1,3})(?!\.?\d)", re.ASCII)  # as qmail and IronPort write it: (#5.1.1)
# What a terminal would obey, a database refuse (NUL), or UTF-8 has no octets for.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


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
    ours: bool = False  # no server said it: it stands for what we found out ourselves

    @property
    def positive(self) -> bool:
        return 200 <= self.code < 400

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


def clean(text: str) -> str:
    """Return a server's words with every run of control characters made one space."""
    return text if text.isprintable() else _CONTROLS.sub(" ", text).strip()


def parse_reply(phase: Phase, code: int, lines: Sequence[str]) -> Reply:
    """Join the lines of a reply. The enhanced code, which each line repeats, is taken out of the text."""
    enhanced: str | None = None
    texts: list[str] = []
    for line in map(clean, lines):
        match = _ENHANCED.match(line)
        # RFC 2034 §4: its class must be the reply's own; one that is not is part of the text.
        if match is not None and match[1][0] == str(code)[0]:
            enhanced = enhanced or match[1]
            line = line[match.end() :]  # noqa: PLW2901
        texts.append(line.strip())
    text = " ".join(text for text in texts if text)
    if enhanced is None and (remark := _REMARKED.search(text)) is not None and remark[1][0] == str(code)[0]:
        enhanced = remark[1]
    return Reply(phase, code, enhanced, text)

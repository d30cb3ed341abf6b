"""Loads the package's tables of phrases and formats, once, on first use."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from msgspec import Struct


class Signs(Struct, frozen=True):
    """Content of `signs.toml`: phrases in lower case, by their place in a mail and the kind that they indicate."""

    daemons: frozenset[str]
    unattended: frozenset[str]
    roles: frozenset[str]
    personal_words: frozenset[str]
    receipt_text: tuple[str, ...]
    daemon_names: tuple[str, ...]
    returned: tuple[str, ...]
    subject: dict[str, tuple[str, ...]]
    body: dict[str, tuple[str, ...]]


class Format(Struct, frozen=True):
    """One format in which servers write the address of a failed recipient. In ``pattern``, ADDR stands for an address.

    ``whole_line``: the text about an address is on the line that contains it, and on no other line.
    """

    name: str
    pattern: str
    example: str
    whole_line: bool = False

    def compiled(self) -> re.Pattern[str]:
        """Return the compiled pattern, with the address in the group ``address``."""
        address = r"(?P<address>[\w.!#$%&*+/=?^`{|}~'-]{1,64}@(?:[\w-]{1,63}\.){0,8}[\w-]{1,63})(?![\w@-])"
        return re.compile(self.pattern.replace("ADDR", address), re.IGNORECASE | re.MULTILINE)


def read_table(name: str) -> dict[str, Any]:
    """Return the content of a TOML file of this package."""
    return tomllib.loads(files("postroad.bounce").joinpath(name).read_text(encoding="utf-8"))


@cache
def signs() -> Signs:
    """Return the signs."""
    return msgspec.convert(read_table("signs.toml"), Signs)


@cache
def formats() -> tuple[tuple[Format, re.Pattern[str]], ...]:
    """Return the formats, each with its compiled pattern."""
    table = msgspec.convert(read_table("formats.toml")["format"], tuple[Format, ...])
    return tuple((entry, entry.compiled()) for entry in table)


def contains_any(text: str, phrases: tuple[str, ...]) -> bool:
    """Return whether a text contains one of the phrases. All are in lower case."""
    return any(phrase in text for phrase in phrases)

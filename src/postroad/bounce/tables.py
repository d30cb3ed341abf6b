"""The tables that ship with the package, read when they are asked for, and once."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from msgspec import Struct


class Signs(Struct, frozen=True):
    """What `signs.toml` holds: phrases in lower case, by where they stand and what they are a sign of."""

    daemons: frozenset[str]
    nobody: frozenset[str]
    roles: frozenset[str]
    personal_words: frozenset[str]
    receipt_text: tuple[str, ...]
    daemon_names: tuple[str, ...]
    returned: tuple[str, ...]
    subject: dict[str, tuple[str, ...]]
    body: dict[str, tuple[str, ...]]


class Format(Struct, frozen=True):
    """One way of writing down an address. In ``pattern``, ADDR stands for an address.

    ``whole_line``: what is said of an address stands on the line that names it, and on no other.
    """

    name: str
    pattern: str
    example: str
    whole_line: bool = False

    def compiled(self) -> re.Pattern[str]:
        address = r"(?P<address>[\w.!#$%&*+/=?^`{|}~'-]{1,64}@(?:[\w-]{1,63}\.){0,8}[\w-]{1,63})(?![\w@-])"
        return re.compile(self.pattern.replace("ADDR", address), re.IGNORECASE | re.MULTILINE)


def read_table(name: str) -> dict[str, Any]:
    """Content of a table of this package."""
    return tomllib.loads(files("postroad.bounce").joinpath(name).read_text(encoding="utf-8"))


@cache
def signs() -> Signs:
    """The signs, as shipped."""
    return msgspec.convert(read_table("signs.toml"), Signs)


@cache
def formats() -> tuple[tuple[Format, re.Pattern[str]], ...]:
    """The formats, as shipped, each with its pattern compiled."""
    listed = msgspec.convert(read_table("formats.toml")["format"], tuple[Format, ...])
    return tuple((one, one.compiled()) for one in listed)

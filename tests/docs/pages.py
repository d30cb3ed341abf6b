"""Commands as the pages of the documentation write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs/tutorial").glob("*.md"), *(ROOT / "docs/how-to").glob("*.md")])

_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_HEREDOC = re.compile(r"<<(\w+)\s*$", re.MULTILINE)


class Typed(NamedTuple):
    """What a reader types, and the output that the page shows below it."""

    command: str
    output: str


def typed_on(page: Path) -> Iterator[Typed]:
    """Return the commands of a page, in order, with their heredocs."""
    for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            end = 1
            if marker := _HEREDOC.search(part.split("\n", 1)[0]):
                end = part.split("\n").index(marker[1]) + 1
            lines = part.split("\n")
            yield Typed("\n".join(lines[:end]).rstrip(), "\n".join(lines[end:]).strip())


def mentioned_in(text: str) -> set[str]:
    """Return the calls of `postroad` in a text: inline, or in a block."""
    inline = {" ".join(words.split()) for words in re.findall(r"`(postroad [^`]+)`", text)}
    return inline | set(re.findall(r"^\$ (?:(?:docker|kubectl exec) .* )?(postroad .*)$", text, re.MULTILINE))

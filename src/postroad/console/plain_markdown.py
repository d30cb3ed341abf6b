"""Turns the Markdown that Postroad writes for Prefect into plain text, for a page that shows text only."""

from __future__ import annotations

import re

_MARK = re.compile(r"\\([!-/:-@\[-`{-~])|\*\*")
_RULE = re.compile(r"\|( -+:? \|)+")
_BAR = re.compile(r"(?<!\\)\|")


def plain_text(markdown: str) -> str:
    """Return the text of Markdown with paragraphs, lists, bold words and tables.

    Args:
        markdown: As `postroad.forecast.summary` and `postroad.printable.escape_markdown` write it.

    Returns:
        The text without escapes, marks of bold words, and lines of tables. Cells are separated by two spaces.
    """
    return "\n".join(_line(line) for line in markdown.split("\n") if not _RULE.fullmatch(line))


def _line(line: str) -> str:
    if line.startswith("|"):
        line = "  ".join(cell.strip() for cell in _BAR.split(line)[1:-1])
    return _MARK.sub(lambda mark: mark[1] or "", line)

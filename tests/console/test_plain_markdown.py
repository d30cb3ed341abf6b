"""Markdown that Postroad writes for Prefect is read as plain text in the console."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postroad.console.plain_markdown import plain_text
from postroad.printable import escape_markdown, printable

SUMMARY = (
    "**353** people get **1,027** messages.\n\n* step first\\-steps: 176 messages\n"
    "* held by a \\| b \\(cap 5\\): 2 hours\n\n"
    "| day (UTC) | messages |\n| --- | --- |\n| 2026-12-03 | 202 |"
)
PLAIN = (
    "353 people get 1,027 messages.\n\n* step first-steps: 176 messages\n* held by a | b (cap 5): 2 hours\n\n"
    "day (UTC)  messages\n2026-12-03  202"
)


def test_marks_escapes_and_lines_of_tables_are_gone() -> None:
    assert plain_text(SUMMARY) == PLAIN


@given(st.text())
def test_an_escaped_text_is_read_as_it_was(text: str) -> None:
    words = " ".join(text.split())
    assert plain_text(f"* warn: {escape_markdown(text)}") == f"* warn: {printable(words)}"
    assert plain_text(f"| {escape_markdown(text)} | 1 |").endswith("  1")

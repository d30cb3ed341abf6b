"""Each format reads its own example, and none before it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.bounce.heuristics import parse_recipients
from postroad.bounce.tables import Format, formats, signs

DOCS = Path(__file__).parents[2] / "docs"


def test_phrases_are_in_the_form_that_they_are_looked_for_in() -> None:
    every = [phrase for table in (signs().subject, signs().body) for phrases in table.values() for phrase in phrases]
    assert [phrase for phrase in every if phrase != phrase.lower() or "  " in phrase or not phrase.strip()] == []


@pytest.mark.parametrize("one", [one for one, _ in formats()], ids=lambda one: one.name)
def test_a_format_reads_its_example(one: Format) -> None:
    name, recipients = parse_recipients(one.example, [], set())
    assert (name, recipients[0].address) == (one.name, "ada@example.org")


def test_every_format_is_in_the_reference() -> None:
    text = (DOCS / "reference/bounce-rules.md").read_text(encoding="utf-8")
    for one, _ in formats():
        assert f"| {one.name} |" in text

"""Prose and names use the field's words, not words of our own: the list is in language.py."""

from __future__ import annotations

import pytest

from tests.docs.language import ROOT, files, unreleased, uses

CHECKED = ("src", "flows", "tasks", "deployments", "tests", "docs", "README.md", "CHANGELOG.md", "benchmarks")


@pytest.mark.parametrize("root", CHECKED)
def test_no_avoided_word_is_used(root: str) -> None:
    checked = [file for file in files(ROOT / root) if file.name != "language_example.md"]
    assert [f"{use.file}:{use.line}: {use.word}: {use.text}" for file in checked for use in uses(file)] == []


def test_unreleased_changes_are_one_line_each() -> None:
    lines = unreleased((ROOT / "CHANGELOG.md").read_text()).splitlines()[1:]
    assert [line for line in lines if line and not line.startswith(("* ", "### "))] == []


def test_the_list_finds_words_of_prose_and_not_of_code() -> None:
    found = {use.word.lower() for file in files(ROOT / "tests/docs/language_example.md") for use in uses(file)}
    assert found == {"behind", "told", "mended", "nobody"}

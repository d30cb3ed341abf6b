"""Each rule and each format reads its own example, and none before it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.bounce.judge import Rule, Verdict, decide, rules
from postroad.bounce.plain import read_plain, reported_of
from postroad.bounce.tables import Format, formats, signs

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_a_rule_decides_its_example(rule: Rule) -> None:
    assert decide(reported_of("ada@example.org", rule.example)) == (rule.verdict, rule.name)


@pytest.mark.parametrize("rule", [rule for rule in rules() if rule.verdict is Verdict.HARD], ids=lambda rule: rule.name)
def test_a_temporary_status_is_never_hard(rule: Rule) -> None:
    said = reported_of("ada@example.org", rule.example.replace("5.", "4.").replace("55", "45"))
    verdict, _ = decide(said)
    assert said.status is None or verdict is not Verdict.HARD


def test_names_of_rules_are_their_own() -> None:
    names = [rule.name for rule in rules()]
    assert len(set(names)) == len(names)


def test_phrases_are_in_the_form_that_they_are_looked_for_in() -> None:
    every = [phrase for rule in rules() for phrase in (*rule.phrases, *rule.unless)]
    every += [phrase for table in (signs().subject, signs().body) for phrases in table.values() for phrase in phrases]
    assert [phrase for phrase in every if phrase != phrase.lower() or "  " in phrase or not phrase.strip()] == []


@pytest.mark.parametrize("one", [one for one, _ in formats()], ids=lambda one: one.name)
def test_a_format_reads_its_example(one: Format) -> None:
    name, recipients = read_plain(one.example, [], set())
    assert (name, recipients[0].address) == (one.name, "ada@example.org")


def test_every_rule_is_in_the_reference() -> None:
    text = (DOCS / "reference/bounce-rules.md").read_text(encoding="utf-8")
    for rule in rules():
        assert f"| {rule.name} | {rule.verdict} |" in text
    for one, _ in formats():
        assert f"| {one.name} |" in text

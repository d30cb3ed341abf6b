"""Every command that a page, a help text or an error names exists, with the options that are named."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile

import pytest

from tests.cli.enumerate import commands
from tests.docs.pages import ROOT, mentioned_in

GROUPS = {" ".join(words.split()[:n]) for words in commands() for n in (1, 2)}
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PYTHON = sorted(path for folder in ("src", "tasks", "flows", "deployments") for path in (ROOT / folder).rglob("*.py"))
_OF_ROOT = {"--help", "--version", "--config", "--install-completion", "--show-completion"}


def _mentions() -> Iterator[tuple[str, str]]:
    for path in (*PAGES, *PYTHON):
        if path.name in ("CHANGELOG.md", "commands.md"):
            continue
        text = path.read_text(encoding="utf-8")
        for words in mentioned_in(text if path.suffix == ".md" else re.sub(r'"\s*\n\s*f?"', "", text)):
            yield str(path.relative_to(ROOT)), words


def _wrong(mention: str) -> str | None:
    """Say what of a call does not exist."""
    plain = re.sub(r"\s#.*$|[…|].*$|\s(and|or)\s.*$", "", mention).replace("'", "").replace('"', "")
    words = shlex.split(plain)[1:]
    path = list(takewhile(re.compile(r"[a-z][a-z-]*$").match, words))
    depth = next((n for n in (3, 2, 1) if len(path) >= n and " ".join(path[:n]) in commands()), None)
    if depth is None:
        return None if not path or " ".join(path) in GROUPS else "no such command"
    options = {option for p in commands()[" ".join(words[:depth])].params for option in (*p.opts, *p.secondary_opts)}
    named = {word.partition("=")[0] for word in words[depth:] if re.fullmatch(r"--[a-z][\w-]*(=.*)?", word)}
    unknown = named - options - _OF_ROOT
    return f"no such option: {', '.join(sorted(unknown))}" if unknown else None


def test_every_command_that_is_mentioned_exists() -> None:
    found = [f"{where}: {words}: {wrong}" for where, words in sorted(set(_mentions())) if (wrong := _wrong(words))]
    assert not found


def test_every_option_of_an_error_exists() -> None:
    """An error of the library names no option that only some other program would have."""
    every = {
        option for command in commands().values() for p in command.params for option in (*p.opts, *p.secondary_opts)
    }
    for path in PYTHON:
        if "/queue/" in str(path):
            for option in re.findall(r"(?<![\w-])--[a-z][\w-]+", path.read_text(encoding="utf-8")):
                assert option in every | _OF_ROOT, f"{path.name}: {option}"


@pytest.mark.parametrize("words", ["postroad queue gate stop x", "postroad queue stats --sum", "postroad fly"])
def test_a_command_that_does_not_exist_is_found(words: str) -> None:
    assert _wrong(words)

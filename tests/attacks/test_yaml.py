"""A campaign.yaml costs little, whatever is in it: aliases, merge keys, nesting, numbers, size."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from postroad.campaign.definition import read_campaign
from postroad.campaign.yaml_file import load_yaml
from postroad.errors import ConfigError
from tests.attacks.limits import cost_ratio, run_limited
from tests.campaign.project import CAMPAIGN, TEXT


def _laughs(kind: str) -> str:
    ring = {"list": "[{}]", "mapping": "{{a: [{}]}}", "merge": "{{<<: [{}]}}"}[kind]
    first = "a0: &a0 {x: y, z: w}\n"
    return first + "".join(f"a{n}: &a{n} {ring.format(', '.join([f'*a{n - 1}'] * 9))}\n" for n in range(1, 40))


ATTACKS = {
    "aliases in lists": _laughs("list"),
    "aliases in mappings": _laughs("mapping"),
    "merge keys": _laughs("merge"),
    "merge keys of wide mappings": "a: &a {"
    + ", ".join(f"k{n}: v" for n in range(900))
    + "}\n"
    + "".join(f"b{n}:\n  <<: [{', '.join(['*a'] * 9)}]\n" for n in range(200)),
    "a chain of merge keys": "a0: &a0 {x: y}\n"
    + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}, k{n}: v}}\n" for n in range(1, 900)),
    "a chain of aliases": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 900)),
    "an alias within itself": "a: &a [*a]\n",
    "a merge key within itself": "a: &a {<<: *a}\n",
    "flow nesting": "a: " + "[" * 90_000,
    "mapping nesting": "a: " + "{a: " * 45_000,
    "block nesting": "- " * 90_000,
    "key nesting": "? " * 90_000,
    "indentation": "".join(" " * n + "a:\n" for n in range(600)),
    "values": "a: [" + "x, " * 60_000 + "]",
    "keys": "".join(f"k{n}: v\n" for n in range(15_000)),
    "a long key": "a" * 190_000 + ": b",
    "a long number": "name: " + "9" * 190_000,
    "a tagged number": "name: !!int " + "9" * 190_000,
    "a number of base 60": "name: !!int " + "1:" * 90_000 + "1",
    "a float": "name: !!float 1e400",
    "a tagged date": "name: !!timestamp 2026-99-99",
    "binary": "name: !!binary " + "A" * 100_000,
    "an object": "name: !!python/object/apply:os.system [id]",
    "a set": "name: !!set {a, b}",
    "quotes": "name: '" + "''" * 90_000,
    "escapes": 'name: "' + "\\x41" * 45_000,
    "anchors": "".join(f"- &a{n} x\n" for n in range(12_000)),
    "documents": "---\n" * 40_000,
    "directives": "%TAG ! tag:x\n" * 10_000,
    "comments": "# x\n" * 45_000,
    "tabs": "\t" * 190_000,
    "question marks": "?" * 190_000,
    "colons": ":" * 190_000,
    "size": "# " + "x" * 2_000_000,
    "emails": "a@b " * 45_000,
}


def load(text: str) -> None:
    load_yaml(Path("campaign.yaml"), text)


def read_all(texts: dict[str, str], folder: str) -> dict[str, tuple[str, str, float]]:
    """Read each as a campaign. Return for each the class of its error, where that is, and what it cost."""
    found = {}
    for name, text in texts.items():
        path = Path(folder) / "campaign.yaml"
        path.write_text(text)
        begun = time.process_time()
        error: Exception | None = None
        try:
            read_campaign(path)
        except Exception as raised:
            error = raised
        where = getattr(error, "where", "") or ""
        found[name] = (type(error).__name__, f"{where}: {error}"[:300], time.process_time() - begun)
    return found


def test_a_hostile_campaign_file_is_an_error_that_costs_little(tmp_path: Path) -> None:
    outcome = run_limited("tests.attacks.test_yaml:read_all", ATTACKS, str(tmp_path), cpu_s=60, memory_mib=150)
    assert outcome.error is None, outcome.message
    for name, (error, said, cpu_s) in outcome.value.items():
        assert error == "ConfigError", (name, said)
        assert str(tmp_path / "campaign.yaml") in said, (name, said)
        assert cpu_s < 5, (name, cpu_s)


@pytest.mark.parametrize("part", ["- x\n", "k: [a, {b: c}]\n---\n", "'a' ", "&a x\n", "x y z\n", "? x\n", "[a, "])
def test_reading_grows_no_faster_than_the_text(part: str) -> None:
    def read(size: int) -> None:
        with suppress(ConfigError):
            load(part * (size // len(part)))

    assert cost_ratio(read, 3_000, 30_000) < 30


def test_anchors_and_merge_keys_within_the_bounds_work(tmp_path: Path) -> None:
    (tmp_path / "hello.txt").write_text(TEXT)
    path = tmp_path / "campaign.yaml"
    path.write_text(
        CAMPAIGN.replace("  - email: hello\n", "  - &first\n    email: hello\n")
        + "  - <<: *first\n    email: again\n    subject: Again\n"
    )
    steps = read_campaign(path).steps
    assert [(step.name, step.settings["subject"]) for step in steps] == [
        ("hello", "Hello {{ name|default('you') }}"),
        ("again", "Again"),
    ]

"""Every script's header matches its typed method, and the arguments that the script reads."""

from __future__ import annotations

import inspect
import re
from importlib.resources import files
from pathlib import Path
from typing import get_type_hints

import pytest

from postroad.queue.scripts import Scripts, source_of

FOLDER = Path(str(files("postroad.queue").joinpath("lua")))
NAMES = sorted(path.stem for path in FOLDER.glob("*.lua"))
METHODS = {name: method for name, method in inspect.getmembers(Scripts, inspect.isfunction) if not name.startswith("_")}


def header_of(name: str) -> list[str]:
    lines = (FOLDER / f"{name}.lua").read_text().splitlines()
    return [line for line in lines[: lines.index("")] if line.startswith("--")]


def arguments_of(name: str) -> list[str]:
    return [match.group(2) for line in header_of(name) if (match := re.match(r"-- ARGV\[(\d+)…?\] +(\w+)", line))]


def test_every_script_has_a_method_and_every_method_a_script() -> None:
    assert sorted(METHODS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_arguments_of_a_script_are_those_of_its_method(name: str) -> None:
    hints = get_type_hints(METHODS[name])
    _, *names = inspect.signature(METHODS[name]).parameters
    # A tuple stands for the arguments in its fields.
    parameters = [field for name in names for field in getattr(hints[name], "_fields", (name,))]
    assert arguments_of(name) == ["now_ms", *parameters]


@pytest.mark.parametrize("name", NAMES)
def test_a_header_has_purpose_uses_key_result_and_cost(name: str) -> None:
    header = header_of(name)
    fields = [line.split()[1] for line in header[1:]]
    numbers = [field for field in fields if field.startswith("ARGV")]
    assert header[0].endswith(".")
    assert [field for field in fields if not field.startswith("ARGV")] == [
        "uses",
        "KEYS[1]",
        "returns",
        "cost",
    ]
    assert [re.sub(r"\D", "", number) for number in numbers] == [str(n + 1) for n in range(len(numbers))]


@pytest.mark.parametrize("name", NAMES)
def test_a_script_reads_exactly_its_declared_arguments(name: str) -> None:
    body = source_of(name)
    read = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", re.sub("--.*", "", body))}
    last = len(arguments_of(name))
    variadic = any("…]" in line for line in header_of(name))
    assert read - set(range(1, last + 1)) == set()
    assert set(range(1, last + (not variadic))) <= read


@pytest.mark.parametrize("name", NAMES)
def test_no_script_scans_the_keyspace(name: str) -> None:
    assert not re.search(r"'(KEYS|SCAN|SMEMBERS)'", source_of(name)) or name in {"audit", "gates"}

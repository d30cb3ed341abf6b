"""Rules of the source that no linter has."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = [file for folder in ("src", "flows", "tasks", "deployments") for file in sorted((ROOT / folder).rglob("*.py"))]


def test_no_class_name_is_defined_twice() -> None:
    defined: defaultdict[str, list[str]] = defaultdict(list)
    for file in SOURCE:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                defined[node.name].append(str(file.relative_to(ROOT)))
    assert len(defined) > 500
    assert {name: files for name, files in defined.items() if len(files) > 1} == {}

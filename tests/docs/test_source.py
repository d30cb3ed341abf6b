"""Rules of the source that no linter has."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = [file for folder in ("src", "flows", "tasks", "deployments") for file in sorted((ROOT / folder).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def test_no_class_name_is_defined_twice() -> None:
    defined: defaultdict[str, list[str]] = defaultdict(list)
    for file in SOURCE:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                defined[node.name].append(str(file.relative_to(ROOT)))
    assert len(defined) > 500
    assert {name: files for name, files in defined.items() if len(files) > 1} == {}


MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 40
MAX_PARAMETERS = 7


def test_no_file_is_long() -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in (*SOURCE, *TESTS)}
    assert len(lengths) > 800
    long = {name: length for name, length in lengths.items() if length > MAX_FILE_LINES}
    assert long == {}


def test_no_function_is_long_or_has_many_parameters() -> None:
    large = {}
    for file in SOURCE:
        if "migrations" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_command(file, node):
                name = f"{file.relative_to(ROOT)}:{node.name}"
                lines, parameters = _lines(node), _parameters(node)
                if lines > MAX_FUNCTION_LINES or parameters > MAX_PARAMETERS:
                    large[name] = (lines, parameters)
    assert large == {}


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    assert node.end_lineno is not None
    first = node.body[0]
    documented = ast.get_docstring(node) is not None
    return node.end_lineno - node.lineno + 1 - ((first.end_lineno or 0) - first.lineno + 1 if documented else 0)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters of a function, without self and cls."""
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def _is_command(file: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function is a command, whose parameters are its options."""
    return "cli" in file.parts and ast.get_docstring(node) is not None and not node.name.startswith("_")


def test_migrations_are_numbered_in_sequence() -> None:
    files = sorted(Path(ROOT, "src/postroad/store/migrations/versions").glob("r*.py"))
    assert [file.name[1:5] for file in files] == [f"{number:04}" for number in range(1, len(files) + 1)]
    for number, file in enumerate(files, start=1):
        text = file.read_text()
        assert f'revision = "{number:04}"' in text
        before = f'"{number - 1:04}"' if number > 1 else "None"
        assert f"down_revision = {before}" in text

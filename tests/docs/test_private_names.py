"""Tests use the product as its callers do: no private attribute, function or method of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PRODUCT = {"postroad": ROOT / "src", "flows": ROOT, "tasks": ROOT, "deployments": ROOT}
# Public by their documentation, in spite of their names: of os, and of each NamedTuple.
DOCUMENTED = {"_exit", "_replace", "_asdict", "_fields"}
BY_NAME = {"setattr", "getattr", "delattr", "hasattr", "attrgetter", "methodcaller", "object"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED | {"_"}


def defined_in(tree: ast.AST) -> set[str]:
    """Return the private names that a module defines: functions, classes, variables, attributes of its own objects."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.Attribute(ctx=ast.Store()) if _is_own(node):
                names.add(node.attr)
    return {name for name in names if is_private(name)}


def _is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


@cache
def _file_of(module: str) -> Path | None:
    first, _, _ = module.partition(".")
    if first not in PRODUCT:
        return None
    path = PRODUCT[first].joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


@cache
def _private_names_of(module: str) -> frozenset[str]:
    file = _file_of(module)
    return frozenset(defined_in(ast.parse(file.read_text()))) if file is not None else frozenset()


def private_uses(source: str, inherited: frozenset[str] = frozenset()) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each use of a private name that is not the test's own.

    Args:
        source: Text of a test module.
        inherited: Private names of the test modules that it imports.
    """
    tree = ast.parse(source)
    own = defined_in(tree) | inherited
    imported = {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if is_private(name) and name not in own:
                yield node.lineno, ast.unparse(node)
            case ast.ImportFrom(module=str(module)) if _file_of(module) is not None:
                yield from ((node.lineno, alias.name) for alias in node.names if is_private(alias.name))
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called)) if called in BY_NAME:
                yield from _names_in(node, own)
            case ast.ClassDef():
                yield from _overridden(node, imported)


def _names_in(call: ast.Call, own: set[str]) -> Iterator[tuple[int, str]]:
    for argument in call.args:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            words = argument.value.split(".")
            if all(word.isidentifier() for word in words) and any(is_private(word) for word in set(words) - own):
                yield argument.lineno, argument.value


def _overridden(node: ast.ClassDef, imported: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Yield the private names of a product's class that a test's subclass of it uses or replaces."""
    modules = [imported.get(base.id, "") for base in node.bases if isinstance(base, ast.Name)]
    of_product = frozenset[str]().union(*map(_private_names_of, modules))
    for inner in ast.walk(node):
        match inner:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.Attribute(attr=name):
                if name in of_product:
                    yield inner.lineno, f"{node.name}.{name}"


def _imported_names(tree: ast.AST) -> frozenset[str]:
    """Return the private names of the test modules that a test module imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tests."):
            file = ROOT.joinpath(*node.module.split(".")).with_suffix(".py")
            if file.exists():
                names |= defined_in(ast.parse(file.read_text()))
    return frozenset(names)


def test_tests_use_no_private_name_of_the_product() -> None:
    found = []
    for file in TESTS:
        source = file.read_text()
        for line, text in private_uses(source, _imported_names(ast.parse(source))):
            found.append(f"{file.relative_to(ROOT)}:{line}: {text}")
    assert len(TESTS) > 300
    assert found == []


SUBCLASS = "from postroad.queue.queue import Queue\nclass Mine(Queue):\n"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("queue._log.read()", ["queue._log"]),
        ("queue._scripts._client", ["queue._scripts._client", "queue._scripts"]),
        ("queue._log = 1", ["queue._log"]),
        ("from postroad.queue.queue import _leases", ["_leases"]),
        ("from postroad.queue import queue\nqueue._leases([])", ["queue._leases"]),
        ("monkeypatch.setattr(queue, '_log', None)", ["_log"]),
        ("monkeypatch.setattr('postroad.queue.queue._leases', None)", ["postroad.queue.queue._leases"]),
        ("getattr(queue, '_log')", ["_log"]),
        (f"{SUBCLASS}    def _partition(self): ...", ["Mine._partition"]),
        (f"{SUBCLASS}    def f(self):\n        self._log = 1", ["Mine._log"]),
        ("class Mine:\n    def f(self):\n        self._own = 1\n        return Mine()._own", []),
        ("pair._replace(a=1)", []),
        ("_local = 1\nprint(_local, __file__)", []),
    ],
)
def test_every_way_to_a_private_name_is_found(source: str, found: list[str]) -> None:
    assert [text for _, text in private_uses(source)] == found

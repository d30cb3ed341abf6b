"""The public interface of the queue: one list, a map of its modules, and docstrings in one form."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

import postroad.queue
from postroad.queue import Lease, Queue, RetryPolicy, Verdict, Worker

ROOT = Path(__file__).parents[2]
MODULES = sorted(module.name for module in pkgutil.iter_modules(postroad.queue.__path__))
SUBMODULES = [
    module.name
    for module in pkgutil.walk_packages(postroad.queue.__path__, "postroad.queue.")
    if not module.name.endswith(".redis")
]
MAX_LINES = 350


def test_the_list_is_sorted_and_every_name_exists() -> None:
    names = postroad.queue.__all__
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(postroad.queue, name)] == []


def test_the_map_names_every_module() -> None:
    assert sorted(re.findall(r"^`(\w+)`  ", str(postroad.queue.__doc__), re.MULTILINE)) == MODULES


def test_other_packages_import_only_the_public_interface() -> None:
    found = [
        (str(path.relative_to(ROOT)), node.module)
        for folder in ("src", "flows", "tasks", "deployments", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if not path.is_relative_to(ROOT / "src/postroad/queue")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("postroad.queue.")
    ]
    assert {module for _, module in found} <= {"postroad.queue.metrics"}, found


@pytest.mark.parametrize("path", sorted((ROOT / "src/postroad/queue").rglob("*.*")), ids=lambda path: path.name)
def test_a_file_is_short(path: Path) -> None:
    if path.suffix in {".py", ".lua"}:
        assert len(path.read_text("utf-8").splitlines()) <= MAX_LINES


def public_functions() -> Iterator[tuple[str, FunctionType]]:
    """Yield functions, and methods of public classes, that the modules of the queue define."""
    for name in SUBMODULES:
        module = importlib.import_module(name)
        owner: Any
        for owner in (module, *(found for _, found in inspect.getmembers(module, inspect.isclass))):
            if getattr(owner, "__module__", name) != name or owner.__name__.startswith("_"):
                continue
            for attribute, value in vars(owner).items():
                function = inspect.unwrap(getattr(value, "__func__", value))
                if inspect.isfunction(function) and function.__module__ == name and not attribute.startswith("_"):
                    yield f"{owner.__name__}.{attribute}", function


def is_stub(name: str) -> bool:
    """Return whether a method runs one script, whose header is its documentation."""
    return name.startswith("Scripts.")


@pytest.mark.parametrize(("name", "function"), [pair for pair in public_functions() if not is_stub(pair[0])])
def test_a_docstring_begins_with_one_sentence(name: str, function: FunctionType) -> None:
    assert function.__doc__, f"{name} has no docstring"
    first = function.__doc__.splitlines()[0]
    assert first[0].isupper(), f"{name}: {first}"
    assert first.rstrip().endswith((".", ":")), f"{name}: {first}"


def arguments_of(function: FunctionType) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in {"self", "cls"}]


@pytest.mark.parametrize(
    ("name", "function"),
    [
        (name, function)
        for owner in (Queue, Worker)
        for name, value in inspect.getmembers(owner)
        if not name.startswith("_")
        and inspect.isfunction(function := inspect.unwrap(getattr(value, "__func__", value)))
    ],
)
def test_public_methods_document_arguments_and_errors(name: str, function: FunctionType) -> None:
    doc = inspect.cleandoc(function.__doc__ or "")
    section = doc.partition("\nArgs:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^    (\w+): \S", section, re.MULTILINE) == arguments_of(function)
    if inspect.iscoroutinefunction(function) and name not in {"run", "reconnect"}:
        assert "UnavailableError: " in doc.partition("\nRaises:\n")[2]


async def test_keywords_of_the_version_before_are_options_and_warn(redis_url: str) -> None:
    with pytest.warns(DeprecationWarning, match="ephemeral, retry: pass QueueOptions") as warned:
        opening = Queue.open(redis_url, "keywords", retry=RetryPolicy(attempts=2), ephemeral=True)
    assert warned[0].filename == __file__
    async with opening as queue:
        with pytest.warns(DeprecationWarning, match="lease_ms, name: pass WorkerOptions"):
            worker = Worker(queue, _never, name="w1", lease_ms=5_000)
        assert worker.name == "w1"
    unknown: dict[str, Any] = {"attempts": 2}
    with pytest.raises(TypeError, match="attempts"), pytest.warns(DeprecationWarning, match="attempts"):
        Queue.open(redis_url, "keywords", **unknown)


async def _never(lease: Lease) -> Verdict:
    raise AssertionError(lease)

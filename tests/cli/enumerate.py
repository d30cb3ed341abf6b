"""Every command that there is, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from typer.main import get_command

from postroad.cli.app import app


@cache
def commands() -> dict[str, Any]:
    """Every command by its words, such as ``queue gate set``, as the parser has it."""
    return dict(_below((), get_command(app), None))


def _below(words: tuple[str, ...], command: Any, parent: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "list_commands"):
        yield " ".join(words), command
        return
    context = command.context_class(command, parent=parent, info_name=words[-1] if words else "postroad")
    for name in command.list_commands(context):
        yield from _below((*words, name), command.get_command(context, name), context)

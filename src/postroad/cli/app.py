"""The command line: its groups, and what an error of ours looks like on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup
from typer.main import get_group

from postroad.errors import PostroadError
from postroad.settings import CONFIG_VARIABLE

COMMANDS: Mapping[str, str] = {
    "worker": "worker:worker",
    "recorder": "worker:recorder",
    "inbound": "inbound:inbound",
    "web": "web:web",
    "sandbox": "sandbox:sandbox",
    "rehearse": "rehearse:rehearse",
    "doctor": "doctor:doctor",
    "up": "local:up",
    "demo": "local:demo",
    "down": "local:down",
    "campaign": "campaign:app",
    "audience": "audience:app",
    "suppression": "suppression:app",
    "unknown": "unknown:app",
    "shaping": "shaping:app",
    "bounce": "bounce:app",
    "cohort": "cohort:app",
    "warmup": "warmup:app",
    "queue": "queue:app",
    "dkim": "dkim:app",
    "dns": "dns:app",
    "db": "database:app",
}
"""Commands and groups of them, in the order of the help: module of `postroad.cli`, and name in it."""


class Commands(TyperGroup):
    """Imports a command when it is asked for: what all of them need takes two seconds to import."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:  # A slip: the names that it may have meant are looked up among those imported.
            for name in COMMANDS:
                self.get_command(ctx, name)
        elif cmd_name not in self.commands:
            module, _, name = COMMANDS[cmd_name].partition(":")
            found = getattr(import_module(f"postroad.cli.{module}"), name)
            alone = typer.Typer(rich_markup_mode="markdown", pretty_exceptions_enable=False)
            if isinstance(found, typer.Typer):
                alone.add_typer(found, name=cmd_name)
            else:
                alone.command(cmd_name)(found)
            self.commands.update(get_group(alone).commands)
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    name="postroad",
    cls=Commands,
    help="Campaigns that people asked for, sent from infrastructure you own.\n\n"
    "Begin with `postroad demo`; `postroad doctor` checks every part and says how to mend it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"postroad {version('postroad')}")
        raise typer.Exit


@app.callback()
def root(
    config: Annotated[
        Path | None, typer.Option(help="Settings file; unset: POSTROAD_CONFIG, else postroad.toml here.", exists=True)
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config.resolve())


def main() -> None:
    """Run a command. An error of ours ends with its exit code: docs/reference/exit-codes.md."""
    try:
        app()
    except PostroadError as error:
        _end_with(error)
    except BaseExceptionGroup as group:
        # What runs beside other things fails in a group with them.
        ours = group.subgroup(PostroadError)
        if ours is None:
            raise
        _end_with(_first_of(ours))


def _end_with(error: PostroadError) -> NoReturn:
    print_error(error)
    sys.exit(error.exit_code)


def _first_of(group: BaseExceptionGroup[PostroadError]) -> PostroadError:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


def print_error(error: PostroadError) -> None:
    """Say what happened, where, and what to do next."""
    stderr = Console(stderr=True, highlight=False)
    where = f"{error.where}: " if error.where else ""
    stderr.print(f"[bold red]error[/] {_escape(where)}{_escape(error.message)}", soft_wrap=True)
    if error.remedy:
        stderr.print(f"      {_escape(error.remedy)}", soft_wrap=True)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")

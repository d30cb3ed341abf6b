"""The command line: its groups, and what an error of ours looks like on it."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from postroad.cli import (
    audience,
    bounce,
    campaign,
    cohort,
    database,
    dkim,
    dns,
    doctor,
    inbound,
    local,
    queue,
    rehearse,
    sandbox,
    shaping,
    suppression,
    unknown,
    warmup,
    web,
    worker,
)
from postroad.cli.output import console, print_error
from postroad.errors import PostroadError
from postroad.settings import CONFIG_VARIABLE

app = typer.Typer(
    name="postroad",
    help="Campaigns that people asked for, sent from infrastructure you own.\n\n"
    "Begin with `postroad demo`; `postroad doctor` checks every part and says how to mend it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(campaign.app, name="campaign")
app.add_typer(audience.app, name="audience")
app.add_typer(suppression.app, name="suppression")
app.add_typer(unknown.app, name="unknown")
app.add_typer(shaping.app, name="shaping")
app.add_typer(bounce.app, name="bounce")
app.add_typer(cohort.app, name="cohort")
app.add_typer(warmup.app, name="warmup")
app.add_typer(queue.app, name="queue")
app.add_typer(dkim.app, name="dkim")
app.add_typer(dns.app, name="dns")
app.add_typer(database.app, name="db")
app.command("worker")(worker.worker)
app.command("recorder")(worker.recorder)
app.command("inbound")(inbound.inbound)
app.command("web")(web.web)
app.command("sandbox")(sandbox.sandbox)
app.command("rehearse")(rehearse.rehearse)
app.command("doctor")(doctor.doctor)
app.command("up")(local.up)
app.command("demo")(local.demo)
app.command("down")(local.down)


def _show_version(value: bool) -> None:
    if value:
        console.print(f"postroad {version('postroad')}")
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
        print_error(error)
        sys.exit(error.exit_code)

"""postroad sandbox: a mail provider on loopback that misbehaves on request."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Annotated

import msgspec
import typer

from postroad.cli.options import parse_personas
from postroad.cli.output import print_json, print_line, print_table
from postroad.cli.signals import stop_on_signals
from postroad.sandbox import SandboxConfig, load_config, provider_replies, serve
from postroad.settings import Settings


def sandbox(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file with its rules; unset: a well-behaved provider.", exists=True)
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any that is free.", min=0, max=65535)] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Where mail is kept, as a Maildir and a ledger; unset: the state folder.")
    ] = None,
    persona: Annotated[
        str | None,
        typer.Option(help="Act as providers do, each for its share of the recipients' domains: gmail=0.6,outlook=0.3."),
    ] = None,
    require_authentication: Annotated[
        bool, typer.Option("--require-authentication", help="Let personas refuse what is unsigned or unaligned.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the chance that rules may leave things to.")] = 0,
    replies: Annotated[bool, typer.Option("--replies", help="List the providers' replies by name, and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Run a mail provider on this machine that accepts mail and stores it, until SIGTERM.

    It misbehaves on request: by the rules of its configuration, by the recipient's address, as in
    ada+550-5.1.1@example.com, bob+greylist-2@example.com, eve+drop-after-dot@example.com, or as a persona does (gmail,
    outlook, office365, yahoo, greylist). docs/reference/sandbox.md has them all. It only receives; nothing leaves this
    machine.
    """
    if replies:
        _list_replies(as_json=as_json)
        return
    chosen = load_config(config) if config else SandboxConfig(directory="")
    chosen = msgspec.structs.replace(
        chosen,
        port=port if port is not None else chosen.port or 2525,
        directory=str(directory or chosen.directory or Settings.load().state_dir / "sandbox"),
        personas=parse_personas(persona) if persona else chosen.personas,
        require_authentication=require_authentication or chosen.require_authentication,
    )

    def ready(listening: int) -> None:
        if as_json:
            print_json({"host": chosen.host, "port": listening, "directory": chosen.directory})
        else:
            print_line(f"sandbox: {chosen.host}:{listening}, mail in {chosen.directory}/Maildir. Ctrl-C stops it.")

    async def run() -> None:
        await serve(chosen, stop_on_signals(), ready=ready, rng=Random(seed))  # noqa: S311

    asyncio.run(run())


def _list_replies(*, as_json: bool) -> None:
    known = provider_replies()
    if as_json:
        print_json(msgspec.to_builtins(known))
        return
    print_table(
        "replies",
        ["name", "phase", "reply"],
        ([name, r.phase, f"{r.code} {' '.join(r.lines)}"] for name, r in known.items()),
    )

"""postroad up, demo and down: all of Postroad on this machine."""

from __future__ import annotations

import asyncio
import getpass
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from postroad.app.context import AppContext, open_context
from postroad.campaign.apply import apply_files
from postroad.cli.output import (
    JsonOption,
    Styled,
    output_is_terminal,
    print_failure,
    print_json,
    print_line,
    print_note,
    print_table,
    print_text,
    progress_bars,
    working,
)
from postroad.cli.row_limit import MAX_NUMBER
from postroad.cli.signals import stop_on_signals
from postroad.console.links import console_url, make_sign_in_link
from postroad.embedded import redis_running, stop_redis
from postroad.errors import StateError, UsageError
from postroad.local.campaign_form import offer_campaigns
from postroad.local.demo import DemoResult, require_example, require_sandbox, run_demo
from postroad.local.stack import LocalStack, stack_is_running, start_stack
from postroad.local.warmups import start_warmups
from postroad.printable import counted
from postroad.settings import AccessRole, Settings
from postroad.store.audit import Actor


def up() -> None:
    """Start everything on this machine and stay until Ctrl-C. Run it where postroad.toml is: `postroad init` makes one.

    That is the queue server, the database, Prefect, the sandbox mail provider, a worker, a recorder, the page to
    unsubscribe at and the console. Campaigns that the setting `campaigns` names are applied. A sender that warms up
    gets its daily schedule and its first run: Deployments › warmup in the UI, and the artifact `warmup-NAME`.

    Then open the console by the link that is printed, and choose the campaign on its page Launch; or run `postroad
    campaign launch NAME`; or run the deployment `campaign` in the Prefect UI, which asks for the password that is
    printed. The link works once, for 15 minutes, and `postroad console link` prints another. If the output is not a
    terminal, this command is printed instead of the link.
    """
    asyncio.run(_up())


async def _up() -> None:
    stop = stop_on_signals()
    settings = Settings.load()
    starting = asyncio.create_task(_start_and_stay(settings, stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        print_note("stopping …")
        starting.cancel()
        await asyncio.wait((starting,))
    if not starting.cancelled():
        await starting
    print_note("all stopped")


async def _start_and_stay(settings: Settings, stop: asyncio.Event) -> None:
    async with _started(settings, quiet=False) as stack:
        async with open_context(stack.settings) as context:
            campaigns = await asyncio.to_thread(apply_files, context.engine, context.settings, context.clock.now())
            async with stack.prefect.client() as prefect:
                await offer_campaigns(context.engine, prefect)
                await start_warmups(context.settings, prefect)
            console = await asyncio.to_thread(_console_link, context)
        names = ", ".join(campaign.name for campaign in campaigns) or "none yet"
        print_text(
            f"\nconsole        {console}\n"
            f"Prefect UI     {stack.prefect.url}\n"
            f"password       {_shown_password(stack)}\n"
            f"campaigns      {names}\n"
            f"captured mail  {stack.sandbox_dir}/Maildir\n"
            f"unsubscribe    {stack.settings.public_url}/u/…\n"
            f"logs           {stack.settings.state_dir}/logs\n\n"
            "To send a campaign, open the console: Launch → Check and launch. Ctrl-C stops everything.",
        )
        await stack.supervisor.watch()


@asynccontextmanager
async def _started(settings: Settings, *, quiet: bool) -> AsyncIterator[LocalStack]:
    """Start the local stack, and show progress meanwhile: Prefect takes from 10 s to a minute."""
    async with AsyncExitStack() as exits:
        with working("starting Prefect and the rest", quiet=quiet):
            stack = await exits.enter_async_context(start_stack(settings, _Reporter(quiet=quiet)))
        yield stack


def _shown_password(stack: LocalStack) -> str:
    """Return the password of Prefect's UI; if the output is not a terminal, and may become a log, where it is kept."""
    if output_is_terminal():
        return stack.prefect.access().password or ""
    return f"in {stack.prefect.password_file}"


def _console_link(context: AppContext) -> str:
    """Return a link that signs an owner in once; if the output is not a terminal, the command that prints one."""
    settings = context.settings.console
    if not output_is_terminal():
        return f"{console_url(settings)}, by `postroad console link --role own --name NAME`"
    user = getpass.getuser()
    actor = Actor(name=user, origin=socket.gethostname())
    link = make_sign_in_link(context.engine, settings, user, AccessRole.OWN, actor=actor, now=context.clock.now())
    return link.url


class _Reporter:
    """Says of each part that it runs, and since when."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._start = time.monotonic()

    def __call__(self, part: str) -> None:
        if not self._quiet:
            print_note(Styled("✓", "green"), f" {part:<20} ", Styled(f"{time.monotonic() - self._start:5.1f} s", "dim"))


class DemoExample(StrEnum):
    """An example that the demo runs."""

    WELCOME = "welcome"
    TRIAL = "trial"


def demo(
    example: Annotated[
        DemoExample, typer.Argument(help="welcome: one campaign through Prefect. trial: a journey, by a faster clock.")
    ] = DemoExample.WELCOME,
    recipients: Annotated[
        int | None,
        typer.Option(help="Send to this many made-up people; unset: the example's 1,000.", min=10, max=MAX_NUMBER),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the example campaign once, from a CSV to delivered mail, on embedded parts. No mail leaves this machine.

    It runs in a checkout or in a folder of `postroad init`. It starts what `postroad up` starts, runs the Prefect
    deployment `campaign`, sums up, and stops everything. Run again, no message is sent twice.

    `postroad demo trial` plays the journey in examples/trial, 18 days in less than a minute and without Prefect: people
    join, log in and pay. It ends with where everyone is, and why.
    """
    settings = Settings.load()
    require_example(settings, example.value)
    if example is DemoExample.TRIAL:
        from postroad.cli.demo_trial import show_trial

        if recipients is not None:
            raise UsageError("--recipients is for the example welcome", remedy="Run `postroad demo trial` without it.")
        show_trial(settings, as_json=as_json)
        return
    require_sandbox(settings)
    asyncio.run(_demo(settings, recipients, as_json=as_json))


async def _demo(settings: Settings, recipients: int | None, *, as_json: bool) -> None:
    started = time.monotonic()
    async with _started(settings, quiet=as_json) as stack:
        with progress_bars(quiet=as_json) as progress:
            result = await run_demo(stack, recipients, progress)
        if not as_json:
            print_note("stopping …")
    seconds = time.monotonic() - started
    if as_json:
        print_json({**asdict(result), "seconds": round(seconds, 1)})
    else:
        _print_result(result, stack, seconds)
    if not result.complete:
        raise typer.Exit(1)


def _print_result(result: DemoResult, stack: LocalStack, seconds: float) -> None:
    reasons = "; ".join(f"{n} × {reason}" for reason, n in result.refused_reasons.items())
    # A checkout has no command on the PATH.
    up = "make up" if stack.settings.base_dir == stack.prefect.files.resolve() else "postroad up"
    print_table(
        f"{result.campaign}: {counted(result.rows, 'row')} of CSV",
        ["", "rows", ""],
        [
            ["imported", result.imported, ""],
            ["duplicates", result.duplicate_rows, ""],
            ["refused", result.refused, reasons],
        ],
    )
    states = [
        ["accepted", result.accepted],
        ["suppressed", result.suppressed],
        ["deferred", result.deferred],
        ["bounced", result.bounced],
        ["unknown", result.unknown],
        *([state, n] for state, n in result.others.items()),
        ["= audience", result.audience],
    ]
    print_table("the first email", ["what became of it", "recipients"], states)
    if result.new_messages:
        print_line(
            f"{counted(result.new_messages, 'message')} in {result.delivery_seconds:g} s: "
            f"{result.messages_per_second:,g}/s; {seconds:.0f} s in all"
        )
    else:
        print_line(f"0 new messages: each recipient was sent this before. {seconds:.0f} s in total")
    print_text(
        f"captured mail  {stack.sandbox_dir}/Maildir "
        f"({counted(result.captured, 'message')}, {result.duplicates} twice)\n"
        f"console        `{up}`, then the link that it prints: what became of each message\n"
        f"Prefect UI     `{up}`, then {result.run_url}\n"
        f"password       {_shown_password(stack)}\n"
        "next           `postroad campaign status`, `postroad queue dead --by cause`",
    )
    if not result.complete:
        print_failure(1, "the parts do not sum to the whole: this should not be")


def down(
    force: Annotated[bool, typer.Option("--force", help="Also under a running `postroad up` or `demo`.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Stop the embedded queue server of the state folder, where a command started it. Its data stays.

    It stops nothing else: Ctrl-C stops `postroad up` and all that it started. A worker or recorder that runs by itself
    waits until a command starts the queue server again. It refuses while `postroad up` or `postroad demo` runs.
    """
    settings = Settings.load()
    if settings.redis_url is not None:
        raise UsageError("the settings name a server of your own, which is not ours to stop")
    if not force and stack_is_running(settings.state_dir):
        raise StateError(
            "`postroad up` or `postroad demo` runs on this state folder, and needs its queue server",
            where=str(settings.state_dir),
            remedy="Stop it with Ctrl-C where it runs: the queue server stops with it. --force stops the server alone.",
        )
    was_running = redis_running(settings.state_dir)
    stop_redis(settings.state_dir)
    if as_json:
        print_json({"stopped": was_running, "what": "queue server", "state_dir": str(settings.state_dir)})
    elif was_running:
        print_line(f"the embedded queue server of {settings.state_dir} is stopped; its data stays")
    else:
        print_line(f"the embedded queue server of {settings.state_dir} was not running; there is nothing to stop")

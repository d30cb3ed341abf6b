"""The command line: its groups, and what an error of ours looks like on it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from postroad.cli.output import print_error, print_failure, print_line, print_traceback
from postroad.errors import ConfigError, PostroadError, UsageError
from postroad.state_folder import make_files_private


class ListedCommand(NamedTuple):
    """A command or group as the help lists it. ``target``: module of `postroad.cli`, and the name in it."""

    target: str
    summary: str


COMMANDS: Mapping[str, ListedCommand] = {
    "worker": ListedCommand("worker:worker", "Deliver the messages of a queue, or process its bounces, until SIGTERM."),
    "recorder": ListedCommand("worker:recorder", "Write outcomes into the ledger until SIGTERM. One is enough."),
    "inbound": ListedCommand("inbound:inbound", "Receive bounces and complaints over SMTP and LMTP until SIGTERM."),
    "web": ListedCommand("web:web", "Serve one-click unsubscribe and the webhooks of mail services until SIGTERM."),
    "console": ListedCommand("console:app", "Serve the web console until SIGTERM, and manage who signs in."),
    "audit": ListedCommand("audit:app", "List who did what: the acts of users."),
    "sandbox": ListedCommand("sandbox:sandbox", "Run a mail provider on this machine that keeps what it receives."),
    "rehearse": ListedCommand("rehearse:rehearse", "Rehearse a campaign with an accelerated clock. No mail leaves."),
    "doctor": ListedCommand("doctor:doctor", "Check every part, and say how to fix what does not work."),
    "processes": ListedCommand("processes:processes", "List the running processes of all hosts."),
    "init": ListedCommand("init:init", "Make a folder with settings and examples, for `up` and `demo`."),
    "up": ListedCommand("local:up", "Start everything on this machine, until Ctrl-C."),
    "demo": ListedCommand("local:demo", "Run the example campaign once, on embedded parts. No mail leaves."),
    "down": ListedCommand("local:down", "Stop the embedded queue server of the state folder. Its data is kept."),
    "api-key": ListedCommand("api_key:app", "Make, list and revoke keys of the HTTP API."),
    "explain": ListedCommand("explain:explain", "Explain a person's mail: what holds it, and what happened to it."),
    "campaign": ListedCommand("campaign:app", "Apply, launch, watch, pause and cancel campaigns."),
    "advance": ListedCommand("advance:advance", "Plan and submit what is due in all running campaigns, once."),
    "audience": ListedCommand("audience:app", "Import recipients from CSV, and list refused rows with the reason."),
    "permission": ListedCommand("permission:app", "Record that a recipient asked for mail, and prove it."),
    "segment": ListedCommand("segment:app", "Count, list and explain the members of an audience who meet a condition."),
    "event": ListedCommand("event:app", "Record what recipients did, for conditions: one event, or a CSV of them."),
    "suppression": ListedCommand("suppression:app", "Manage addresses, domains and hashes that get no mail."),
    "unknown": ListedCommand("unknown:app", "Resolve messages of which it is unknown whether they were sent."),
    "shaping": ListedCommand("shaping:app", "Show the rate of each sender at each mailbox provider, and its changes."),
    "bounce": ListedCommand("bounce:app", "Read and classify bounces, complaints and automatic replies."),
    "cohort": ListedCommand("cohort:app", "Show and resume paused parts of a campaign: one step, list and provider."),
    "warmup": ListedCommand("warmup:app", "Manage the daily limits of new senders at each mailbox provider."),
    "queue": ListedCommand("queue:app", "Inspect a queue: depth, jobs, gates and dead letters. Rebuild it."),
    "webhook": ListedCommand("webhook:app", "Send events to your systems: endpoints, log, redelivery, replay."),
    "events": ListedCommand("events:app", "Export what became of messages, as NDJSON or Parquet."),
    "dkim": ListedCommand("dkim:app", "Make DKIM keys, and show the DNS records to publish."),
    "dns": ListedCommand("dns:app", "Check what receivers see of a domain, and show what they report."),
    "backup": ListedCommand("backup:app", "Back up the database while mail is sent, and verify backups."),
    "db": ListedCommand("database:app", "Upgrade the database, and show its revision."),
}
"""Commands and groups of commands, in the order of the help."""


MAX_WORD_CHARACTERS = 10_000


class LazyGroup(TyperGroup):
    """Imports a command when it runs. The help, completion and a misspelt name need only the list."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module, _, name = COMMANDS[cmd_name].target.partition(":")
            found = getattr(import_module(f"postroad.cli.{module}"), name)
            alone = typer.Typer(rich_markup_mode="markdown", pretty_exceptions_enable=False)
            if isinstance(found, typer.Typer):
                alone.add_typer(found, name=cmd_name, short_help=COMMANDS[cmd_name].summary)
            else:
                alone.command(cmd_name, short_help=COMMANDS[cmd_name].summary)(found)
            self.commands.update(get_group(alone).commands)
        elif cmd_name not in COMMANDS:
            self._list_all()  # The names that may be meant are taken from this list.
        return super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._list_all()
        super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        self._list_all()
        return super().shell_complete(ctx, incomplete)

    def _list_all(self) -> None:
        for name, listed in COMMANDS.items():
            self.commands.setdefault(name, TyperCommand(name, help=listed.summary))


app = typer.Typer(
    name="postroad",
    cls=LazyGroup,
    help="Campaigns that people asked for, sent from infrastructure you own.\n\n"
    "Begin with `postroad init my-mail`, or with `postroad demo` in a checkout. `postroad doctor` checks every part "
    "and says how to fix it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print_line(f"postroad {version('postroad')}")
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
        from postroad.settings import CONFIG_VARIABLE  # half a second, which the help need not wait for

        os.environ[CONFIG_VARIABLE] = str(config.resolve())


def main() -> None:
    """Run a command. Every failure ends with a message and an exit code: docs/reference/exit-codes.md."""
    with shown_errors():
        require_bounded(sys.argv[1:])
        sys.exit(app(standalone_mode=False))  # Otherwise Typer would print errors itself.


def require_bounded(words: Sequence[str]) -> None:
    """Raise UsageError for an argument that is too long or not text, before the parser handles it."""
    for place, word in enumerate(words, start=1):
        if len(word) > MAX_WORD_CHARACTERS:
            raise UsageError(
                f"argument {place} is too long: {len(word):,} characters, and {MAX_WORD_CHARACTERS:,} is the most"
            )
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise UsageError(f"argument {place} is not UTF-8 text")


@contextmanager
def shown_errors() -> Iterator[None]:
    """Print a failure as a message, and exit with its code."""
    sys.excepthook = _show_fault
    make_files_private()
    try:
        yield
    except PostroadError as error:
        _end_with(error)
    except BaseExceptionGroup as group:
        # Errors of concurrent tasks are raised as a group.
        ours = group.subgroup(PostroadError)
        if ours is None:
            raise
        _end_with(_first_of(ours))
    except typer.Abort:
        print_failure(1, "the command was cancelled")
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        _end_with(_unusable_file(error))
    except Exception as failure:
        if not hasattr(failure, "format_message"):  # Typer does not export the base of its parser's errors.
            raise
        _end_with_usage(failure)


def _unusable_file(error: OSError) -> ConfigError:
    """Return the error of a file or folder that the machine refuses, such as a state folder that cannot be made."""
    return ConfigError(
        f"the file or folder cannot be used: {error.strerror}",
        where=os.fsdecode(error.filename),
        remedy="Check its owner, its permissions and the disk. POSTROAD_STATE_DIR names another state folder.",
    )


def _end_with_usage(failure: Any) -> NoReturn:
    if message := failure.format_message():  # Empty: the help was shown instead.
        print_failure(failure.exit_code, _as_sentence(message), remedy=_help_for(failure))
    sys.exit(failure.exit_code)


def _as_sentence(message: str) -> str:
    return message if len(message) < 2 or message[1].isupper() else message[0].lower() + message[1:]


def _help_for(failure: Any) -> str | None:
    context = getattr(failure, "ctx", None)
    return f"`{context.command_path} --help` shows how it is used." if context is not None else None


def _end_with(error: PostroadError) -> NoReturn:
    print_error(error)
    sys.exit(error.exit_code)


def _first_of(group: BaseExceptionGroup[PostroadError]) -> PostroadError:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _show_fault(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    # Without the variables of each frame, which may hold secrets.
    print_traceback("".join(traceback.format_exception(kind, fault, trace)))

"""postroad bounce: reads, explains and counts bounces and other returned mail."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from postroad.app.context import AppContext, Role, known_secret_keys
from postroad.bounce.explain import ExplainedMail, explain
from postroad.bounce.intake import BOUNCE_QUEUE, Intake
from postroad.bounce.mbox import mails_in
from postroad.bounce.readers import MailReader, ReportReader
from postroad.bounce.reply import own_addresses
from postroad.bounce.report import Envelope
from postroad.bounce.sources.metrics import SourceMetrics
from postroad.bounce.sources.poll import poll
from postroad.bounce.sources.source import PollResult
from postroad.bounce.sources.watch import watch
from postroad.cli.bounce_classify import classify_command
from postroad.cli.context import with_context
from postroad.cli.options import MetricsAt, MetricsHost, MetricsPort, parse_duration_option_ms
from postroad.cli.output import JsonOption, print_error, print_json, print_line, print_table
from postroad.cli.role_process import open_role
from postroad.cli.signals import STOP_WITHIN_S, start_logging, stop_on_signals
from postroad.errors import PostroadError, UsageError, unknown_name
from postroad.mail.token import TokenSigner
from postroad.printable import counted
from postroad.settings import Settings, SourceSettings
from postroad.store.bounce import VerdictCount, verdict_counts
from postroad.store.engine import read

app = typer.Typer(help="Returned mail: bounces, complaints, automatic replies.", no_args_is_help=True)

app.command("classify")(classify_command)

log = logging.getLogger(__name__)

MailPath = Annotated[
    Path, typer.Argument(metavar="FILE-OR-FOLDER", help="A mail, an mbox file, a Maildir, or a folder of these.")
]


@app.command("process")
def process(path: MailPath, as_json: JsonOption = False) -> None:
    """Put mails on the queue bounce:process, where a worker judges them. What was judged before is not judged again."""

    async def work(context: AppContext) -> Counter[bool]:
        queue = await context.queue(BOUNCE_QUEUE)
        intake = Intake(engine=context.engine, queue=queue, clock=context.clock)
        taken: Counter[bool] = Counter()
        for _, raw in mails_in(path):
            taken[(await intake.submit(raw, Envelope(source="file"))).new] += 1
        return taken

    taken = with_context(work)
    if as_json:
        print_json({"submitted": taken[True], "known": taken[False]})
    else:
        print_line(f"{counted(taken[True], 'mail')} submitted, {taken[False]:,} known already")


@app.command("poll")
def poll_(
    names: Annotated[list[str] | None, typer.Argument(metavar="SOURCE…", help="Names of sources; unset: all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch what is waiting at the sources of the settings, Maildirs and IMAP servers, once.

    The flow `bounces` does the same every five minutes. What was put on the queue is put aside at its source, last.
    """

    async def work(context: AppContext) -> tuple[list[PollResult], list[PostroadError]]:
        sources = _sources(context.settings, names)
        intake = Intake(engine=context.engine, queue=await context.queue(BOUNCE_QUEUE), clock=context.clock)
        polled: list[PollResult] = []
        failed: list[PostroadError] = []
        for name, source in sources.items():
            try:
                polled.append(await poll(name, source, intake.submit))
            except PostroadError as error:
                # An unreachable mailbox does not affect the others.
                failed.append(error)
        return polled, failed

    polled, failed = with_context(work)
    if as_json:
        print_json(polled)
    elif polled or not failed:
        rows = [(one.source, one.taken, one.known, one.unreadable, one.more) for one in polled]
        print_table("fetched", ["source", "taken", "known", "unreadable", "more"], rows)
    for error in failed:
        print_error(error)
    if failed:
        raise typer.Exit(failed[0].exit_code)


@app.command("watch")
def watch_(
    names: Annotated[list[str] | None, typer.Argument(metavar="SOURCE…", help="Names of sources; unset: all.")] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Process mail that arrives at the sources of the settings, until SIGTERM.

    An IMAP server with IDLE notifies of new mail. One without it, and a Maildir, are polled every look_ms. A source
    that fails, for example because of a wrong password, is retried, and the others continue: `postroad doctor` shows
    the failing ones. Mail that `poll` reads at the same time is processed once.
    """
    settings = Settings.load()
    sources = _sources(settings, names)
    if not sources:
        raise UsageError("there is no source to watch", remedy="Name one: [bounce.sources.NAME] in postroad.toml.")
    start_logging(settings)

    async def work() -> None:
        await watch_all(settings, sources, MetricsAt(metrics_host, metrics_port), stop_on_signals(STOP_WITHIN_S))

    asyncio.run(work())


async def watch_all(
    settings: Settings, sources: Mapping[str, SourceSettings], at: MetricsAt, stop: asyncio.Event
) -> None:
    """Watch sources concurrently until SIGTERM, and serve metrics if a port is given."""
    async with (
        open_role(settings, Role.BOUNCE_WATCH, BOUNCE_QUEUE, at, stop) as process,
        asyncio.TaskGroup() as group,
    ):
        context = process.context
        intake = Intake(engine=context.engine, queue=await process.open_queue(), clock=context.clock)
        on_poll = SourceMetrics(context.metrics.registry, sources).record if context.metrics is not None else None
        for name, source in sources.items():
            group.create_task(watch(name, source, intake.submit, clock=context.clock, stop=stop, on_poll=on_poll))
        process.ready()
        log.info("watching %s", ", ".join(sources))
    log.info("no longer watching")


def _sources(settings: Settings, names: Sequence[str] | None) -> dict[str, SourceSettings]:
    sources = settings.bounce.sources
    for name in names or ():
        if name not in sources:
            raise unknown_name("source", name, sources, listed_by="postroad doctor")
    return {name: sources[name] for name in names or sorted(sources)}


@app.command("explain")
def explain_(path: MailPath, as_json: JsonOption = False) -> None:
    """Say how mails are read, and why. Nothing follows from it. With --json one object a line for each mail."""
    settings = Settings.load()
    ring = known_secret_keys(settings)
    signer = TokenSigner(*ring) if ring else None
    own = own_addresses((sender.address, sender.reply_to) for sender in settings.senders.values())
    envelope = Envelope(source="file")
    with MailReader() as reader, ReportReader() as reports:
        explained = (
            explain(_name(path, file), raw, envelope, signer, own, read=reader, read_reports=reports)
            for file, raw in mails_in(path)
        )
        if as_json:
            for one in explained:
                print_json(_as_json(one))
            return
        explained_mails = list(explained)
        rows = [
            (one.file, one.kind, who.address, who.status, who.reply_code, who.verdict, who.rule, one.touch)
            for one in explained_mails
            for who in one.recipients
        ]
    columns = ["file", "kind", "recipient", "status", "reply", "verdict", "rule", "touch"]
    print_table(f"mails in {path}", columns, rows)
    _print_reports(explained_mails)


def _as_json(mail: ExplainedMail) -> dict[str, object]:
    """Return what is printed of a mail; of reports only where it has some."""
    return {name: held for name, held in vars(mail).items() if held or name not in ("reports", "not_read")}


def _print_reports(mails: Sequence[ExplainedMail]) -> None:
    for mail in mails:
        for report in mail.reports:
            about = f"{report.organisation} on {report.domain or 'no domain'}"
            print_line(f"{mail.file}: report of {about}, {counted(report.rows, 'row')}")
            for problem in report.problems:
                print_line(f"  not read: {problem}")
        for why in mail.not_read:
            print_line(f"{mail.file}: not read: {why}")


def _name(path: Path, file: Path) -> str:
    return str(file.relative_to(path)) if path.is_dir() else file.name


@app.command("status")
def status(
    since: Annotated[str, typer.Option(help="How far back: 7d.")] = "7d",
    as_json: JsonOption = False,
) -> None:
    """Count returned mail by verdict, sender and domain. Mail without a matching touch has no sender and domain."""
    since_ms = parse_duration_option_ms(since)

    async def work(context: AppContext) -> list[VerdictCount]:
        begin = context.clock.now() - timedelta(milliseconds=since_ms)

        def count() -> list[VerdictCount]:
            with read(context.engine) as connection:
                return verdict_counts(connection, begin)

        return await asyncio.to_thread(count)

    counts = with_context(work)
    if as_json:
        print_json(counts)
    else:
        rows = [(one.verdict, one.sender, one.domain, one.count) for one in counts]
        print_table(f"returned within {since}", ["verdict", "sender", "domain", "touches"], rows)

"""`python -m benchmarks queue|growth|blocking|accuracy|delivery|message|submit|import|bounce|dns|startup|forecast|
journeys|explain|events|console`.

Exits with 1 at a missed bar.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import typer

from benchmarks import (
    accuracy,
    blocking,
    bounce,
    bounded,
    bulk,
    comparison,
    console,
    delivery,
    dns_health,
    events_out,
    forecast,
    growth,
    journeys,
    nsd,
    one_message,
    startup,
    story,
)
from benchmarks.console_store import StoreSize
from benchmarks.contestants import PEERS, DidNotRun
from benchmarks.figures import Figure, Measure, markdown_of, show
from benchmarks.report import circumstances, settings_table, write_section
from benchmarks.server import Server, running

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

AsJson = Annotated[bool, typer.Option("--json", help="One object a line instead of a table.")]
Quick = Annotated[bool, typer.Option("--quick", help="Little of everything: does it run? Its figures say little.")]
WriteReadme = Annotated[bool, typer.Option("--write-readme", help="Put the results into benchmarks/README.md.")]
WriteDocs = Annotated[
    bool, typer.Option("--write-docs", help="Put table and picture into docs/explanation/performance.md.")
]
Only = Annotated[list[str] | None, typer.Option("--peer", help=f"Only this peer: {', '.join(PEERS)}. Repeatable.")]

Run = Callable[[Server], Awaitable[tuple[list[Figure], list[str]]]]
"""Returns figures, and extra sections in Markdown."""


@app.command()
def queue(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False, peer: Only = None) -> None:
    """Compare the queue with its peers: enqueue, no-op jobs/s, CPU and memory of the server."""
    unknown = set(peer or []) - PEERS.keys()
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: known are {', '.join(PEERS)}")

    async def run(server: Server) -> tuple[list[Figure], list[str]]:
        found = await comparison.compare(server, comparison.QUICK if quick else comparison.Effort(), peer or [])
        return found.figures(), [settings_table(found.settings, found.missing)]

    _report("queue", run, comparison.MEASURES, as_json=as_json, write_readme=write_readme)


@app.command(name="growth")
def grow(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False) -> None:
    """Measure the cost of a job in a long queue and over many lanes, and the duration of locks and scripts."""
    effort = growth.QUICK if quick else growth.Effort()
    bounds = bounded.QUICK if quick else bounded.Effort()

    async def run(server: Server) -> tuple[list[Figure], list[str]]:
        figures, costs = await growth.grow(server, effort)
        levels = {"queued jobs": effort.queued, "lanes": effort.lanes}
        lines = ["| | time per job, µs | Redis CPU per job, µs |", "|---|---:|---:|"]
        for what, at in levels.items():
            lines += [
                f"| {n:,} {what} | {c.wall_us:.1f} | {c.cpu_us:.1f} |" for n, c in zip(at, costs[what], strict=True)
            ]
        return figures + await bounded.bound(server, bounds), ["\n".join(lines)]

    measures = growth.measures(effort) + bounded.measures(bounds)
    _report("growth", run, measures, as_json=as_json, write_readme=write_readme)


@app.command(name="blocking")
def block(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False) -> None:
    """Measure how long unlimited jobs wait after throttled ones."""
    effort = blocking.QUICK if quick else blocking.Effort()

    async def run(server: Server) -> tuple[list[Figure], list[str]]:
        return await blocking.block(server, effort), []

    _report("blocking", run, blocking.measures(), as_json=as_json, write_readme=write_readme)


@app.command(name="accuracy")
def weigh(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False) -> None:
    """Measure how exactly several worker processes keep a gate's rate."""
    effort = accuracy.QUICK if quick else accuracy.Effort()

    async def run(server: Server) -> tuple[list[Figure], list[str]]:
        return await accuracy.weigh(server, effort), []

    _report("accuracy", run, accuracy.measures(effort), as_json=as_json, write_readme=write_readme)


@app.command(name="delivery")
def deliver(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False) -> None:
    """Compare delivery, from claim to record, with Nodemailer, Celery, arq, smtp-source and bare signing."""

    async def run(server: Server) -> tuple[list[Figure], list[str]]:
        found = await delivery.deliver(server, delivery.QUICK if quick else delivery.Effort())
        return found.figures(), [found.table(), settings_table(found.settings, found.missing)]

    _report("delivery", run, delivery.MEASURES, as_json=as_json, write_readme=write_readme)


@app.command()
def message(quick: Quick = False, write_docs: WriteDocs = False) -> None:
    """Measure the CPU cost of one message: each part, the whole, and merging and signing alone."""

    async def run() -> tuple[one_message.Found, str]:
        async with running() as server:
            found = await one_message.measure(server, one_message.QUICK if quick else one_message.Effort())
            return found, circumstances(await server.version(), _command())

    try:
        found, where = asyncio.run(run())
    except DidNotRun as reason:
        raise typer.BadParameter(str(reason)) from None
    print("\n\n".join([where, *found.tables()]))
    if write_docs:
        found.write(where)


@app.command()
def submit(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False) -> None:
    """Measure planning and submitting a campaign to a million recipients, and the memory that it takes."""
    effort = bulk.QUICK if quick else bulk.Effort()

    async def run(server: Server) -> tuple[list[Figure], list[str]]:
        found = await bulk.measure(server, effort, submit=True)
        return bulk.submit_figures(found), [found.table(found.submitted)]

    _report("submit", run, bulk.submit_measures(effort), as_json=as_json, write_readme=write_readme)


@app.command(name="import")
def import_(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False) -> None:
    """Measure the import of a CSV of a million rows, its check included."""
    effort = bulk.QUICK if quick else bulk.Effort()

    async def run(server: Server) -> tuple[list[Figure], list[str]]:
        found = await bulk.measure(server, effort, submit=False)
        return bulk.import_figures(found), [found.table(found.imported)]

    _report("import", run, bulk.import_measures(effort), as_json=as_json, write_readme=write_readme)


@app.command(name="bounce")
def judge(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False) -> None:
    """Measure the accuracy of the bounce classifier on the labelled mails of POSTROAD_CORPORA."""
    root = bounce.corpora()
    if root is None:
        raise typer.BadParameter("POSTROAD_CORPORA does not name the folder of conformance data")
    figures = bounce.judge(root, 0.5 if quick else 5.0)
    where = circumstances("no server", _command())
    _tell("bounce", where, figures, bounce.MEASURES, [], as_json=as_json, write_readme=write_readme)


@app.command(name="dns")
def check(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False) -> None:
    """Compare the DNS checks of many domains with checkdmarc, on a name server on this machine."""
    try:
        found = asyncio.run(dns_health.compare(dns_health.QUICK if quick else dns_health.Effort()))
    except nsd.NotInstalledError as error:
        raise typer.BadParameter(str(error)) from None
    where = circumstances(found.server, _command())
    extra = [found.table()]
    _tell("dns", where, found.figures(), dns_health.MEASURES, extra, as_json=as_json, write_readme=write_readme)


@app.command(name="startup")
def start(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False) -> None:
    """Measure the processor time that the command line needs to start."""
    figures = startup.start_up(startup.QUICK if quick else startup.Effort())
    where = circumstances("no server", _command())
    _tell("startup", where, figures, startup.MEASURES, [], as_json=as_json, write_readme=write_readme)


@app.command(name="events")
def publish(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False) -> None:
    """Measure an export of a million events, and the rate of webhooks to a receiver on this machine."""
    effort = events_out.QUICK if quick else events_out.Effort()

    async def run(server: Server) -> tuple[list[Figure], list[str]]:
        return await events_out.measure(server, effort), []

    _report("events", run, events_out.measures(effort), as_json=as_json, write_readme=write_readme)


@app.command(name="forecast")
def foresee(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False) -> None:
    """Measure time and memory of a forecast for a million recipients."""
    effort = forecast.QUICK if quick else forecast.Effort()
    figures = asyncio.run(forecast.forecast(effort))
    where = circumstances("no server", _command())
    _tell("forecast", where, figures, forecast.measures(effort), [], as_json=as_json, write_readme=write_readme)


@app.command(name="journeys")
def journey(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False) -> None:
    """Measure a pass over a million enrolments that are due, and one in which none is."""
    effort = journeys.QUICK if quick else journeys.Effort()
    figures = asyncio.run(journeys.journeys(effort))
    where = circumstances("no server", _command())
    _tell("journeys", where, figures, journeys.measures(effort), [], as_json=as_json, write_readme=write_readme)


@app.command(name="explain")
def explain(as_json: AsJson = False, quick: Quick = False, write_readme: WriteReadme = False) -> None:
    """Measure one explanation of a person's mail, and the delays of a campaign, in a ledger of five million touches."""
    effort = story.QUICK if quick else story.Effort()

    async def run(server: Server) -> tuple[list[Figure], list[str]]:
        return await story.measure(server, effort), []

    _report("explain", run, story.measures(effort), as_json=as_json, write_readme=write_readme)


@app.command(name="console")
def page_reads(
    as_json: AsJson = False,
    quick: Quick = False,
    write_readme: WriteReadme = False,
    touches: Annotated[int, typer.Option(help="Touches of the store.", min=1_000)] = 5_000_000,
    events: Annotated[int, typer.Option(help="Delivery events of the store.", min=1_000)] = 20_000_000,
) -> None:
    """Measure the time of each page of the console, and of what it reads, in a store of a month's mail."""
    effort = console.QUICK if quick else console.Effort(size=StoreSize(touches=touches, events=events))

    async def run(server: Server) -> tuple[list[Figure], list[str]]:
        return await console.console(server, effort), []

    _report("console", run, console.measures(effort), as_json=as_json, write_readme=write_readme)


def _report(name: str, run: Run, measures: Sequence[Measure], *, as_json: bool, write_readme: bool) -> None:
    figures, extra, where = asyncio.run(_measure(run))
    _tell(name, where, figures, measures, extra, as_json=as_json, write_readme=write_readme)


def _tell(
    name: str,
    where: str,
    figures: Sequence[Figure],
    measures: Sequence[Measure],
    extra: Sequence[str],
    *,
    as_json: bool,
    write_readme: bool,
) -> None:
    show(f"{name} ({where})", figures, measures, as_json=as_json)
    for text in extra:
        print(text, file=sys.stderr if as_json else sys.stdout)
    if write_readme:
        write_section(name, [where, markdown_of(figures, measures), *extra])
    raise typer.Exit(0 if all(figure.ok for figure in figures) else 1)


async def _measure(run: Run) -> tuple[list[Figure], list[str], str]:
    async with running() as server:
        figures, extra = await run(server)
        return figures, extra, circumstances(await server.version(), _command())


def _command() -> str:
    return shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])


if __name__ == "__main__":
    app()

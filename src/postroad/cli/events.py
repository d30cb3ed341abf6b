"""postroad events: what became of messages, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_line, progress_bars
from postroad.cli.webhook import parse_since
from postroad.errors import UsageError
from postroad.event_types import EventType
from postroad.events_out.export import EventFormat
from postroad.printable import counted

if TYPE_CHECKING:
    from postroad.app.context import AppContext
    from postroad.events_out.export import Exported

app = typer.Typer(help="Events of messages and recipients, as files for a warehouse.", no_args_is_help=True)


@app.command("export")
def export(
    to: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")],
    since: Annotated[str | None, typer.Option(help="Only events from this time on: 2d, or 2027-01-31T09:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Only events before this time.")] = None,
    after: Annotated[
        int | None, typer.Option(help="Only events after the cursor of an earlier export.", min=0, max=2**63 - 1)
    ] = None,
    types: Annotated[
        list[EventType] | None, typer.Option("--type", help="Only events of this type; may be repeated; unset: all.")
    ] = None,
    kind: Annotated[EventFormat, typer.Option("--format", help="Format of the file.")] = EventFormat.NDJSON,
    as_json: JsonOption = False,
) -> None:
    """Write events to a file, in the order in which they were recorded, and print a cursor.

    The next export continues with `--after CURSOR`: no event is skipped, and none is written twice. The file appears
    when it is complete. Parquet needs the package `postroad[parquet]`.
    """
    from postroad.app.events import EventSelection
    from postroad.app.events import export as write_events
    from postroad.events_out.export import atomic_file

    if since is None and after is None:
        raise UsageError("say where to begin: --since, or --after with the cursor of an earlier export")

    async def work(context: AppContext) -> Exported:
        now = context.clock.now()
        with progress_bars(quiet=as_json) as report, atomic_file(to) as output:
            selection = EventSelection(
                since=None if since is None else parse_since(since, now),
                until=None if until is None else parse_since(until, now),
                after=after,
                types=frozenset(types or EventType),
            )
            return await write_events(
                context, output, kind, selection, lambda done, total: report("exporting", done, total)
            )

    done = with_context(work)
    if as_json:
        print_json({"events": done.events, "cursor": done.cursor, "file": str(to)})
    else:
        print_line(
            f"{counted(done.events, 'event')} written to {to}; the next export continues with --after {done.cursor}"
        )

"""postroad event: what recipients did."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from postroad.app.context import AppContext
from postroad.campaign.event_file import (
    EventError,
    EventImport,
    event_fields,
    event_key,
    event_name,
    event_time,
    import_events,
    record_event,
)
from postroad.campaign.event_hints import event_hints
from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_line, print_table, print_warning, progress_bars
from postroad.cli.row_limit import LimitOption
from postroad.errors import DataError, UsageError
from postroad.mail.address import normalise_address
from postroad.printable import counted
from postroad.store.engine import read
from postroad.store.recipient_event import NewEvent, events_of

app = typer.Typer(
    help="What recipients did, such as signing up or paying. Conditions ask for it: `event('paid', 30d)`.",
    no_args_is_help=True,
)
SHOWN_REFUSALS = 20


@app.command("record")
def record(
    address: Annotated[str, typer.Argument(help="Address of the recipient.")],
    name: Annotated[str, typer.Argument(help="Name of the event, such as paid.")],
    at: Annotated[
        str, typer.Option(help="When it happened, as in 2026-05-31T09:30:00+02:00, default zone UTC; unset: now.")
    ] = "",
    field: Annotated[
        list[str] | None, typer.Option(help="A field of the event, as in amount=49.90. It may be given several times.")
    ] = None,
    key: Annotated[
        str, typer.Option(help="Recorded once for its recipient and name, however often the command runs.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Record one event of a recipient."""
    try:
        recipient, valid_name, valid_key = normalise_address(address), event_name(name), event_key(key)
        fields = event_fields(_pairs(field or []))
    except DataError as error:
        raise UsageError(error.message, remedy="`postroad event record --help` shows how it is used.") from None

    async def work(context: AppContext) -> tuple[bool, list[str]]:
        now = context.clock.now()
        try:
            event = NewEvent(recipient, valid_name, event_time(at, now), fields, valid_key)
        except EventError as error:
            raise UsageError(f"--at: {error.reason}") from None

        def keep() -> tuple[bool, list[str]]:
            recorded = record_event(context.engine, event)
            return recorded, event_hints(context.engine, event, now)

        return await asyncio.to_thread(keep)

    recorded, hints = with_context(work)
    for hint in hints:
        print_warning(hint)
    if as_json:
        print_json({"recorded": int(recorded), "known": int(not recorded)})
    elif recorded:
        print_line(f"event {valid_name} of {recipient} is recorded")
    else:
        print_line(f"event {valid_name} of {recipient} with the key {valid_key} was recorded before")


def _pairs(fields: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in fields:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--field {text[:40]!r} has no =", remedy="Write it as in --field amount=49.90.")
        if name in pairs:
            raise UsageError(f"--field {name} is given twice")
        pairs[name] = value
    return pairs


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV with columns `address` and `event`, and where it has them `at` and `key`. Others are fields."
        ),
    ],
    event: Annotated[str | None, typer.Option(help="Name of the events of rows that name none.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Record the events of a CSV.

    The whole file is checked before an event is recorded. Rows that cannot be recorded are refused, each with line,
    field and reason. An interrupted import is run again: what was recorded is skipped. An event without a `key` is
    recognised by its content.
    """
    try:
        name = event_name(event) if event is not None else None
    except EventError as error:
        raise UsageError(f"--event: {error.reason}") from None

    async def work(context: AppContext) -> EventImport:
        with progress_bars(quiet=as_json) as report:
            size = file.stat().st_size if file.is_file() else 0
            return await asyncio.to_thread(
                import_events,
                context.engine,
                file,
                context.clock.now(),
                name=name,
                checked=lambda done: report("checking", done, size),
                report=lambda done, total: report("importing", done, total),
            )

    done = with_context(work)
    if as_json:
        print_json(
            {
                "rows": done.rows,
                "recorded": done.recorded,
                "known": done.known,
                "refused": done.refused,
                "refusals": [row._asdict() for row in done.refusals],
            }
        )
        return
    print_line(
        f"{counted(done.rows, 'row')} = {done.recorded:,} recorded + {done.known:,} known + {done.refused:,} refused"
    )
    if done.refusals:
        print_table("refused", ["line", "field", "value", "reason"], done.refusals[:SHOWN_REFUSALS])
        if done.refused > SHOWN_REFUSALS:
            print_line(f"`--json` lists the first {len(done.refusals):,} of them.")


@app.command("list")
def list_(
    address: Annotated[str, typer.Argument(help="Address of the recipient.")],
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List the events of a recipient, the newest first."""
    try:
        recipient = normalise_address(address)
    except DataError as error:
        raise UsageError(f"{address!r} is not an address: {error.message}") from None

    async def work(context: AppContext) -> list[dict[str, object]]:
        def find() -> list[dict[str, object]]:
            with read(context.engine) as connection:
                return [row._asdict() for row in events_of(connection, recipient, limit)]

        return await asyncio.to_thread(find)

    rows = with_context(work)
    if as_json:
        print_json(rows)
    else:
        print_table(f"events of {recipient}", ["name", "at", "key", "fields"], ([*row.values()] for row in rows))

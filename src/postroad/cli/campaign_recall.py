"""postroad campaign recall: stop what has not left, and list who got it."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, confirm, print_json_list, print_line
from postroad.csv_cell import text_cell
from postroad.errors import UsageError

if TYPE_CHECKING:
    from postroad.app.context import AppContext
    from postroad.operations.recall import ReachedRecipient, RecallResult


def recall(
    name: Annotated[str, typer.Argument(help="Name of the campaign.")],
    step: Annotated[
        str | None, typer.Option(help="Name of an email step: only this step is recalled; unset: the whole campaign.")
    ] = None,
    list_file: Annotated[
        Path | None, typer.Option("--list", help="Write a CSV of the recipients whom it reached, or may have reached.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Stop at once what has not left, and show who got it.

    A campaign is cancelled for good. With --step, only that step is: it is not sent to anyone from then on, and the
    sequence of each recipient ends with it. Messages on the wire finish. Run the command again for their outcome: it
    changes nothing more. Of a finished campaign it shows who got it.

    A new campaign with `corrects: NAME` in its file sends a correction to exactly those recipients:
    docs/how-to/recall-a-campaign.md.
    """
    from postroad.delivery.submit import queue_name
    from postroad.operations import recall as operation

    if not yes:
        confirm(f"Stop {f'step {step} of ' if step else ''}campaign {name} for good?")

    async def work(context: AppContext) -> RecallResult:
        queue = await context.queue(await asyncio.to_thread(queue_name, context.engine, name))
        result = await operation.recall(context.engine, queue, name, step, context.clock.now())
        # A page of recipients at a time: there may be a million of them.
        if list_file is not None:
            reached = operation.reached_recipients(context.engine, name, step)
            await asyncio.to_thread(_write, list_file, reached, operation.has_variants(context.engine, name))
        if as_json:
            file = str(list_file) if list_file else None
            fields = {"campaign": name, "step": step, "state": result.state, "counts": result.counts, "file": file}
            rows = (one._asdict() for one in operation.reached_recipients(context.engine, name, step))
            await asyncio.to_thread(print_json_list, fields, "recipients", rows)
        return result

    result = with_context(work)
    if not as_json:
        _print(result, list_file)


def _write(path: Path, reached: Iterable[ReachedRecipient], with_variants: bool) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            variant = ["variant"] if with_variants else []
            rows.writerow(["address", "step", "state", "at", *variant])
            for one in reached:
                at = one.at.isoformat() if one.at else ""
                rows.writerow(
                    [text_cell(one.address), one.step, one.state, at, *([one.variant or ""] if with_variants else [])]
                )
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}",
            remedy="It is recalled. Run the command again with another file.",
        ) from None


def _print(result: RecallResult, list_file: Path | None) -> None:
    from postroad.store.ledger import TouchState

    counts = result.counts
    what = f"step {result.step} of campaign {result.campaign}" if result.step else f"campaign {result.campaign}"
    print_line(f"{what} is recalled; its messages by state:")
    shown = (TouchState.CANCELLED, TouchState.ACCEPTED, TouchState.UNKNOWN, TouchState.SENDING)
    notes = ("not sent, and will not be", "the receiver has them", "they may have arrived", "on the wire now")
    for state, note in zip(shown, notes, strict=True):
        print_line(f"  {state:<10} {counts[state]:>9,}  {note}")
    if others := sum(number for state, number in counts.items() if state not in shown):
        print_line(f"  {'others':<10} {others:>9,}  ended before the recall: bounced, suppressed, expired or dead")
    if counts[TouchState.SENDING]:
        print_line("Run the command again in a minute, for the outcome of what is on the wire.")
    if counts[TouchState.ACCEPTED] or counts[TouchState.UNKNOWN]:
        print_line(f"A new campaign with `corrects: {result.campaign}` in its file sends them a correction.")
    if list_file is not None:
        print_line(f"{list_file} lists the recipients of accepted and unknown messages, and of those on the wire.")

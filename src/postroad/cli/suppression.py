"""postroad suppression: who nothing is sent to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer

from postroad.campaign.suppression_file import read_addresses
from postroad.cli.output import JsonOption, console, print_json, print_table, with_parts
from postroad.errors import DataError, UsageError
from postroad.mail.address import normalise_address
from postroad.parts import Parts
from postroad.store.engine import read
from postroad.store.suppression import SuppressionReason, suppress_now

app = typer.Typer(
    help="Addresses that nothing is sent to. It holds at once, also for what is queued.", no_args_is_help=True
)
ReasonOption = Annotated[SuppressionReason, typer.Option(help="Why nothing is to be sent.")]


@app.command("add")
def add(
    addresses: Annotated[list[str], typer.Argument(help="One or more addresses.")],
    reason: ReasonOption = SuppressionReason.MANUAL,
    as_json: JsonOption = False,
) -> None:
    """Suppress addresses."""
    normalised = []
    for address in addresses:
        try:
            normalised.append(normalise_address(address))
        except DataError as error:
            raise UsageError(f"{address!r} is no address: {error.message}") from None
    _suppress(normalised, reason, "command line", as_json=as_json)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV with a column `address`; other columns are passed over.")],
    reason: ReasonOption = SuppressionReason.MANUAL,
    as_json: JsonOption = False,
) -> None:
    """Suppress every address of a file. A row that is no address stops it: nothing of the file is kept then."""
    _suppress(read_addresses(file), reason, str(file), as_json=as_json)


def _suppress(addresses: list[str], reason: SuppressionReason, source: str, *, as_json: bool) -> None:
    async def work(parts: Parts) -> int:
        return await asyncio.to_thread(suppress_now, parts.engine, addresses, reason, source[:200], parts.clock.now())

    new = with_parts(work)
    if as_json:
        print_json({"suppressed": new, "known": len(set(addresses)) - new})
    else:
        console.print(f"{new:,} suppressed, {len(set(addresses)) - new:,} were already")


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(help="Rows at the most, newest first.", min=1)] = 100,
    as_json: JsonOption = False,
) -> None:
    """List suppressed addresses with reason, source and time."""

    async def work(parts: Parts) -> list[dict[str, object]]:
        def find() -> list[dict[str, object]]:
            with read(parts.engine) as connection:
                rows = connection.execute(
                    sa.text(
                        "SELECT address, reason, source, created_at FROM suppression "
                        "ORDER BY created_at DESC, address LIMIT :limit"
                    ),
                    {"limit": limit},
                )
                return [dict(row._mapping) for row in rows]

        return await asyncio.to_thread(find)

    rows = with_parts(work)
    if as_json:
        print_json(rows)
    else:
        print_table("suppressed", ["address", "reason", "source", "since"], (list(row.values()) for row in rows))

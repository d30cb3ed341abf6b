"""postroad suppression: who nothing is sent to."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from postroad.app.context import AppContext
from postroad.app.suppressions import lift_suppressions
from postroad.campaign.suppression_file import EntryDefaults, read_entries, suppression_key, write_entries
from postroad.cli.context import with_context
from postroad.cli.output import DataStream, JsonOption, print_json, print_line, print_table
from postroad.cli.row_limit import LimitOption
from postroad.errors import DataError, UsageError
from postroad.printable import counted
from postroad.store import suppression as store
from postroad.store.engine import read
from postroad.store.recipient import audience_ids, find_audience
from postroad.store.suppression import EVERYWHERE, Entry, SuppressionReason

app = typer.Typer(
    help="What nothing is sent to: addresses, `@domain`, or hashes. It holds at once, also for what is queued.",
    no_args_is_help=True,
)
ReasonOption = Annotated[SuppressionReason, typer.Option(help="Why nothing is to be sent.")]
AudienceOption = Annotated[str | None, typer.Option(help="Only for campaigns to this audience; unset: everywhere.")]
HashedOption = Annotated[
    bool, typer.Option("--hashed", help="Keep only a hash of each address, keyed with secret_key, and not the address.")
]


@app.command("add")
def add(
    addresses: Annotated[list[str], typer.Argument(help="Addresses; @example.com is every address of that domain.")],
    reason: ReasonOption = SuppressionReason.MANUAL,
    audience: AudienceOption = None,
    hashed: HashedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Suppress addresses or domains."""

    def entries(context: AppContext) -> list[Entry]:
        hash_of = context.hash_of if hashed else None
        audience_id = _audience_id(context, audience)
        keys = [_key(address, lambda text: suppression_key(text, hash_of)) for address in addresses]
        return [Entry(key, reason, "command line", context.clock.now(), audience_id) for key in keys]

    for address in addresses:
        _key(address, suppression_key)  # before anything is opened
    _keep(entries, as_json=as_json)


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV with a column `address`, and where it has them `audience`, `reason`, `source`, `created_at`."
        ),
    ],
    reason: ReasonOption = SuppressionReason.MANUAL,
    audience: AudienceOption = None,
    hashed: HashedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Suppress every address, @domain and #hash of a file, such as an export.

    Columns win over options. A row that cannot be read stops it, with its line: nothing of the file is kept then.
    """

    def entries(context: AppContext) -> list[Entry]:
        with read(context.engine) as connection:
            audiences = audience_ids(connection)
        defaults = EntryDefaults(
            reason=reason,
            source=str(file),
            now=context.clock.now(),
            audience_id=_audience_id(context, audience),
            audiences=audiences,
            hash_of=context.hash_of if hashed else None,
        )
        return read_entries(file, defaults)

    _keep(entries, as_json=as_json)


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(help="CSV to write; unset: standard output.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write every suppression as a CSV that `import` reads. Hashes stay hashes.

    With --json, and no file, they are printed as JSON instead.
    """

    async def work(context: AppContext) -> list[store.Listed]:
        return await asyncio.to_thread(store.suppressions, context.engine)

    listed = with_context(work)
    if file is None and as_json:
        print_json([row._asdict() for row in listed])
        return
    if file is None:
        write_entries(DataStream(), listed)
        return
    with file.open("w", encoding="utf-8", newline="") as output:
        write_entries(output, listed)
    if as_json:
        print_json({"suppressions": len(listed), "file": str(file)})
    else:
        print_line(f"{counted(len(listed), 'suppression')} written to {file}")


@app.command("lift")
def lift(
    addresses: Annotated[list[str], typer.Argument(help="Addresses, @domains or #hashes to send to again.")],
    reason: Annotated[str, typer.Option(help="The reason: what the person wrote, and when.")],
    by: Annotated[str, typer.Option(help="Who decides; unset: who you are on this machine.")] = "",
    audience: Annotated[
        str | None, typer.Option(help="Only what holds for this audience; unset: wherever it holds.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take suppressions away. It is recorded who did so, when and why; touches that ended stay ended."""
    if not reason.strip():
        raise UsageError("a suppression is lifted for a reason", remedy="Say it: --reason 'asked for it by phone'.")
    keys = [_key(address, suppression_key) for address in addresses]
    who = by.strip() or getpass.getuser()

    async def work(context: AppContext) -> list[store.Suppression]:
        return await asyncio.to_thread(lift_suppressions, context, keys, audience, by=who, why=reason)

    lifted = with_context(work)
    if as_json:
        print_json([one.model_dump(mode="json", exclude={"also"}) for one in lifted])
    else:
        print_line(f"{len(lifted):,} lifted")


@app.command("list")
def list_(
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List what is suppressed, newest first, with reason, source and time."""

    async def work(context: AppContext) -> list[store.Listed]:
        return await asyncio.to_thread(store.suppressions, context.engine, limit)

    rows = with_context(work)
    if as_json:
        print_json([row._asdict() for row in rows])
    else:
        columns = ["address", "audience", "reason", "source", "since"]
        print_table("suppressed", columns, ([row.address, row.audience or "all", *row[2:]] for row in rows))


def _keep(entries: Callable[[AppContext], list[Entry]], *, as_json: bool) -> None:
    async def work(context: AppContext) -> tuple[int, int]:
        def keep() -> tuple[int, int]:
            given = entries(context)
            new = store.save_suppressions_now(context.engine, given)
            return new, len({(entry.address, entry.audience_id) for entry in given}) - new

        return await asyncio.to_thread(keep)

    new, known = with_context(work)
    if as_json:
        print_json({"suppressed": new, "known": known})
    else:
        print_line(f"{new:,} suppressed, {known:,} were already")


def _key(text: str, read_key: Callable[[str], str]) -> str:
    try:
        return read_key(text)
    except DataError as error:
        raise UsageError(f"{text!r} is neither address nor @domain nor #hash: {error.message}") from None


def _audience_id(context: AppContext, name: str | None) -> int:
    if name is None:
        return EVERYWHERE
    with read(context.engine) as connection:
        return find_audience(connection, name)

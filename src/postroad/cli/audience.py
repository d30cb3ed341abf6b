"""postroad audience: who gave permission."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer

from postroad.app.context import AppContext
from postroad.campaign.audience import ImportProgress, abandon_imports, import_file, refusals
from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_line, print_table, progress_bar
from postroad.cli.row_limit import LimitOption
from postroad.errors import StateError
from postroad.printable import counted
from postroad.store.engine import read
from postroad.store.recipient import find_audience

app = typer.Typer(help="Recipients: import them from CSV, see who was refused and why.", no_args_is_help=True)


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="The audience; it is made if it is not there.")],
    file: Annotated[
        Path, typer.Argument(help="CSV in UTF-8. Its first line names the columns, one of them `address`.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Import a CSV of recipients.

    The whole file is checked before anything of it is kept. An import that was interrupted continues where it stopped
    when it is run again; one that is finished changes nothing, and says so. If another import changed recipients
    since, the file is imported from its first row, so that its values count. Columns: `address` (or `email`) is
    required, `time_zone` is optional, every other column becomes a merge field. A value that does not fit the type that
    `[audiences.NAME.fields]` declares for its field refuses the row.
    """

    async def work(context: AppContext) -> ImportProgress:
        with progress_bar(quiet=as_json) as bar:
            size = file.stat().st_size if file.is_file() else None
            checking = bar.add_task("checking", total=size)
            importing = bar.add_task("importing", total=None)

            def checked(size_bytes: int) -> None:
                bar.update(checking, completed=size_bytes)

            def report(progress: ImportProgress) -> None:
                bar.update(checking, completed=size)
                bar.update(importing, total=progress.rows_total, completed=progress.rows_done)

            return await asyncio.to_thread(
                import_file,
                context.engine,
                name,
                file,
                context.clock.now(),
                types=context.settings.field_types(name),
                checked=checked,
                report=report,
            )

    progress = with_context(work)
    if as_json:
        print_json(progress)
        return
    if progress.already:
        print_line(f"audience {name}: nothing to do, this file was imported and no other import came after it")
    print_line(
        f"audience {name}: {counted(progress.rows_total, 'row')} = {progress.imported:,} imported "
        f"+ {counted(progress.duplicates, 'duplicate')} + {progress.refused:,} refused"
    )
    if progress.refused:
        print_line(f"`postroad audience refusals {name}` lists who was refused, and why.")


@app.command("abandon")
def abandon(name: Annotated[str, typer.Argument(help="The audience.")], as_json: JsonOption = False) -> None:
    """Give up imports that were cut short, so that campaigns may be launched without them.

    Who was imported stays in the audience; the rest of those files is not expected any more.
    """

    async def work(context: AppContext) -> int:
        return await asyncio.to_thread(abandon_imports, context.engine, name, context.clock.now())

    count = with_context(work)
    if as_json:
        print_json({"abandoned": count})
    else:
        print_line(f"{counted(count, 'import is', 'imports are')} given up")


@app.command("refusals")
def refusals_(
    name: Annotated[str, typer.Argument(help="The audience.")],
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List the rows of the last import that were refused, with line, field and reason."""

    async def work(context: AppContext) -> list[dict[str, object]]:
        def find() -> list[dict[str, object]]:
            with read(context.engine) as connection:
                statement = sa.text("SELECT max(id) FROM audience_import WHERE audience_id = :audience_id")
                audience_id = find_audience(connection, name)
                import_id = connection.execute(statement, {"audience_id": audience_id}).scalar()
            if import_id is None:
                raise StateError(f"nothing was imported into the audience {name} yet")
            found = refusals(context.engine, import_id, limit)
            return [{"line": r.line, "field": r.field, "value": r.value, "reason": r.reason} for r in found]

        return await asyncio.to_thread(find)

    rows = with_context(work)
    if as_json:
        print_json(rows)
    else:
        print_table(f"refused: {name}", ["line", "field", "value", "reason"], (row.values() for row in rows))  # type: ignore[misc]


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List audiences and how many are in each."""

    async def work(context: AppContext) -> list[dict[str, object]]:
        def find() -> list[dict[str, object]]:
            with read(context.engine) as connection:
                rows = connection.execute(
                    sa.text(
                        "SELECT audience.name, count(audience_member.recipient_id) AS members FROM audience "
                        "LEFT JOIN audience_member ON audience_member.audience_id = audience.id "
                        "GROUP BY audience.name ORDER BY audience.name"
                    )
                )
                return [{"audience": row.name, "members": row.members} for row in rows]

        return await asyncio.to_thread(find)

    rows = with_context(work)
    if as_json:
        print_json(rows)
    else:
        print_table("audiences", ["audience", "members"], ([row["audience"], row["members"]] for row in rows))

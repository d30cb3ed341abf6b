"""postroad audit: who did what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from postroad.app.context import AppContext
from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_table
from postroad.cli.row_limit import LimitOption
from postroad.store.audit import AuditFilter, AuditRecord, audit_records
from postroad.store.engine import read

app = typer.Typer(help="The audit log: who did what, when, from where.", no_args_is_help=True)


@app.command("list")
def list_records(
    limit: LimitOption = 100,
    by: Annotated[str | None, typer.Option(help="Only what this user did.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, such as campaign.pause.")] = None,
    before: Annotated[int | None, typer.Option(help="Only records with a smaller id.", min=1, max=2**62)] = None,
    as_json: JsonOption = False,
) -> None:
    """List the acts of users, the newest first."""

    async def work(context: AppContext) -> Sequence[AuditRecord]:
        def listed() -> Sequence[AuditRecord]:
            with read(context.engine) as connection:
                return audit_records(connection, limit, before=before, only=AuditFilter(actor=by, action=action))

        return await asyncio.to_thread(listed)

    rows = with_context(work)
    if as_json:
        print_json([row.model_dump(mode="json") for row in rows])
    else:
        columns = ["id", "when", "who", "action", "target", "count", "reason", "from"]
        cells = [
            [str(row.id), row.at, row.actor, row.action, row.target, row.count, row.note, row.origin] for row in rows
        ]
        print_table("audit log", columns, cells)

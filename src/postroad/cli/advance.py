"""postroad advance: one pass over the running campaigns, for when Prefect is down."""

from __future__ import annotations

import asyncio

import typer

from postroad.app.advance import Advance, advance_campaign, record_pass
from postroad.app.context import AppContext
from postroad.campaign.status import running_campaigns
from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_error, print_json, print_line, print_table
from postroad.errors import PostroadError


def advance(as_json: JsonOption = False) -> None:
    """Make one pass over all running campaigns: plan follow-ups, enqueue due messages, finish completed campaigns.

    The Prefect flow `advance-campaigns` does the same every five minutes. Use this command while Prefect is down, for
    example from cron: `*/5 * * * * postroad advance`. It needs the database and the queue, and not Prefect.

    It is idempotent, and may run at the same time as the flow: each message is enqueued once. A campaign that fails
    does not affect the others; the command then ends with the exit code of the first error.
    """
    advances, errors = with_context(_pass)
    if as_json:
        failed = [{"campaign": name, "error": str(error)} for name, error in errors]
        print_json({"campaigns": advances, "failed": failed})
    elif advances:
        print_table(
            "one pass over the running campaigns, in messages",
            ["campaign", "planned", "handed over", "finished"],
            ([each.campaign, each.planned, each.submitted, each.finished] for each in advances),
        )
    elif not errors:
        print_line("no campaign is running")
    for _, error in errors:
        print_error(error)
    if errors:
        raise typer.Exit(errors[0][1].exit_code)


async def _pass(context: AppContext) -> tuple[list[Advance], list[tuple[str, PostroadError]]]:
    advances: list[Advance] = []
    errors: list[tuple[str, PostroadError]] = []
    for name in await asyncio.to_thread(running_campaigns, context.engine):
        try:
            advances.append(await advance_campaign(context, name))
        except PostroadError as error:
            errors.append((name, error))
    if advances or not errors:
        await asyncio.to_thread(record_pass, context)
    return advances, errors

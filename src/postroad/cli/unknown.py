"""postroad unknown: messages that may or may not have been sent, and how they are resolved."""

from __future__ import annotations

import getpass
import socket
from typing import Annotated

import typer

from postroad.app.context import AppContext
from postroad.app.unknown import resolve as resolve_unknown
from postroad.cli.context import with_context
from postroad.cli.names import named_queue
from postroad.cli.options import QueueOption, at
from postroad.cli.output import JsonOption, print_json, print_line, print_table
from postroad.cli.row_limit import LimitOption
from postroad.delivery.job import MAIL_QUEUES, SEND_QUEUE, job_id
from postroad.errors import StateError
from postroad.operations.unknown import Resolution
from postroad.operations.unknown import list_unknown as list_unknown_touches
from postroad.store.ledger import TouchState
from postroad.touch_search import find_touches, is_address

app = typer.Typer(
    help="Unknown: messages that may or may not have been sent, and how they are resolved.", no_args_is_help=True
)

ByOption = Annotated[str | None, typer.Option(help="Who says so; unset: your user and host.")]


@app.command("list")
def list_unknown(
    queue: QueueOption = SEND_QUEUE,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List messages that may or may not have been sent. They are held until they are resolved, and not sent again.

    Of email:send the touches that are unknown, also those of which only the ledger tells, as after the loss of the
    queue's server; of any other queue its uncertain jobs. A bounce resolves its touch automatically.
    """

    async def work(context: AppContext) -> list[dict[str, object]]:
        opened = await named_queue(context, queue)
        if queue in MAIL_QUEUES:
            return [
                {
                    "id": touch.id,
                    "since": touch.since,
                    "address": touch.address,
                    "campaign": touch.campaign,
                    "said": touch.said,
                    "in_queue": touch.queued,
                }
                for touch in await list_unknown_touches(context.engine, opened, limit)
            ]
        return [
            {"id": job.id, "since": at(job.since_ms), "lane": job.lane, "worker": job.worker, "attempt": job.attempt}
            for job in await opened.uncertain(limit)
        ]

    rows = with_context(work)
    if as_json:
        print_json(rows)
    elif rows:
        columns = [name.replace("_", " ") for name in rows[0]]
        print_table(f"unknown in {queue}", columns, [list(row.values()) for row in rows])
    else:
        print_line(f"nothing is unknown in {queue}")


@app.command("resolve")
def resolve(
    job: Annotated[
        str,
        typer.Argument(metavar="ID", help="Id of the touch, or the recipient's address; in other queues the job's id."),
    ],
    outcome: Annotated[Resolution, typer.Option("--as", help="What became of it.")],
    by: ByOption = None,
    queue: QueueOption = SEND_QUEUE,
    as_json: JsonOption = False,
) -> None:
    """Say what became of it: `accepted` (it was sent), `not-sent` (send it), `dead` (give it up).

    For email:send the ledger is updated too, and records who resolved it and when.
    """
    who = default_actor(by)

    async def work(context: AppContext) -> str:
        id_ = await _unknown_id(context, job) if queue in MAIL_QUEUES and is_address(job) else job
        await resolve_unknown(context, await named_queue(context, queue), id_, outcome, by=who)
        return id_

    id_ = with_context(work)
    if as_json:
        print_json({"id": id_, "resolved": outcome.value, "by": who})
    else:
        print_line(f"{job} is resolved as {outcome.value} by {who}")


async def _unknown_id(context: AppContext, address: str) -> str:
    """Return the id of the one touch of an address that is unknown. Raises StateError for none, or several."""
    # One that is on the wire for the ledger may be uncertain for the queue already.
    found = await find_touches(context, address, states=(TouchState.UNKNOWN, TouchState.SENDING))
    if len(found) != 1:
        several = ", ".join(f"{touch.id} ({touch.campaign}, {touch.step})" for touch in found)
        remedy = f"Name one of them: {several}." if found else "`postroad unknown list` lists what is."
        raise StateError(f"{len(found) or 'no'} messages to {address} are unknown", remedy=remedy)
    return job_id(found[0].id)


def default_actor(by: str | None) -> str:
    return by or f"{getpass.getuser()}@{socket.gethostname()}"

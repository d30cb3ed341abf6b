"""postroad queue uncertain: shows and resolves jobs that were begun and whose outcome is unknown."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, assert_never

import typer

from postroad.app.context import AppContext
from postroad.app.unknown import resolve as resolve_unknown
from postroad.cli.context import with_context
from postroad.cli.names import named_queue
from postroad.cli.options import QueueOption, at
from postroad.cli.output import JsonOption, print_json, print_line, print_table
from postroad.cli.row_limit import LimitOption
from postroad.cli.unknown import ByOption, default_actor
from postroad.delivery.job import SEND_QUEUE
from postroad.operations.unknown import Resolution
from postroad.queue import UncertainJob

app = typer.Typer(help="Jobs that were begun and whose outcome is unknown.", no_args_is_help=True)


class UncertainOutcome(StrEnum):
    """What became of an uncertain job, in the queue's words."""

    DONE = "done"
    RELEASE = "release"
    DEAD = "dead"


@app.command("list")
def list_(
    queue: QueueOption = SEND_QUEUE,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List the uncertain jobs of a queue, the oldest first. They are held until an operator resolves them.

    For email:send, `postroad unknown list` also shows touches that only the ledger has.
    """

    async def work(context: AppContext) -> list[UncertainJob]:
        return await (await named_queue(context, queue)).uncertain(limit)

    rows = [
        {"id": job.id, "since": at(job.since_ms), "lane": job.lane, "worker": job.worker, "attempt": job.attempt}
        for job in with_context(work)
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(f"uncertain in {queue}", list(rows[0]), [list(row.values()) for row in rows])
    else:
        print_line(f"nothing is uncertain in {queue}")


@app.command("resolve")
def resolve(
    job: Annotated[str, typer.Argument(metavar="ID", help="Id of the job; in email:send that of the touch.")],
    ending: Annotated[UncertainOutcome, typer.Argument(help="What became of it.")],
    by: ByOption = None,
    queue: QueueOption = SEND_QUEUE,
    as_json: JsonOption = False,
) -> None:
    """Say what became of a job: `done` (it happened), `release` (it did not: try it again), `dead` (give it up).

    For email:send it is what `postroad unknown resolve` does: the ledger is settled too.
    """
    who = default_actor(by)

    async def work(context: AppContext) -> None:
        await resolve_unknown(context, await named_queue(context, queue), job, _resolution(ending), by=who)

    with_context(work)
    if as_json:
        print_json({"id": job, "resolved": ending.value, "by": who})
    else:
        print_line(f"{job} is resolved as {ending.value} by {who}")


def _resolution(ending: UncertainOutcome) -> Resolution:
    match ending:
        case UncertainOutcome.DONE:
            return Resolution.ACCEPTED
        case UncertainOutcome.RELEASE:
            return Resolution.NOT_SENT
        case UncertainOutcome.DEAD:
            return Resolution.DEAD
        case _:
            assert_never(ending)

"""postroad queue job, explain, reschedule, cancel: single jobs, looked up and moved."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import typer

from postroad.cli.names import named_queue, require_jobs
from postroad.cli.options import QueueOption, at, read_instant_ms
from postroad.cli.output import JsonOption, print_json, print_line, print_table
from postroad.cli.parts import with_parts
from postroad.delivery import control
from postroad.delivery.job import MAIL_QUEUES, SEND_QUEUE
from postroad.delivery.reconcile import events_of
from postroad.errors import StateError
from postroad.parts import Parts
from postroad.queue import Explanation, FoundJob

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the job; in email:send that of the touch.")]
IdsArgument = Annotated[list[str], typer.Argument(metavar="ID…", help="Ids of jobs; in email:send those of touches.")]


def job(id_: IdArgument, queue: QueueOption = SEND_QUEUE, as_json: JsonOption = False) -> None:
    """Show one job: its state, its attempts, and what happened to it, as far as that is kept.

    The queue keeps the last 1000 jobs that ended well and the last 5000 that did not; of email:send the ledger
    keeps all.
    """

    async def work(parts: Parts) -> tuple[FoundJob, list[dict[str, object]]]:
        found = await (await named_queue(parts, queue)).find(id_)
        if queue in MAIL_QUEUES:
            return found, await asyncio.to_thread(events_of, parts.engine, id_)
        return found, [
            {
                "at": at(event.at_ms),
                "event": event.kind.value,
                "attempt": event.attempt,
                "cause": event.cause or None,
                "said": event.error or None,
            }
            for event in found.history
        ]

    found, history = with_parts(work)
    if found.state is None and not history:
        raise StateError(f"{queue} knows no job {id_!r}", remedy="It never had it, or it ended and was forgotten.")
    shown = {
        "id": id_,
        "state": found.state.value if found.state else "ended",
        "lane": found.lane.name if found.lane else None,
        "class": found.lane.job_class.value if found.lane else None,
        "gates": list(found.lane.gates) if found.lane else [],
        "group": found.lane.group if found.lane else None,
        "attempts": found.attempts,
        "claims": found.claims,
        "at": at(found.at_ms),
        "expires": at(found.expires_ms or None),
        "worker": found.worker,
        "payload_bytes": len(found.payload),
    }
    if as_json:
        print_json({**shown, "history": history})
        return
    print_table(
        f"job {id_} of {queue}",
        ["", "value"],
        [[name, ", ".join(value) if isinstance(value, list) else value] for name, value in shown.items() if value],
    )
    if history:
        print_table("history", list(history[0]), [list(row.values()) for row in history])


def explain(id_: IdArgument, queue: QueueOption = SEND_QUEUE, as_json: JsonOption = False) -> None:
    """Say why a job is where it is: its lane, the gate that holds it and since when, the instant it may go."""

    async def work(parts: Parts) -> Explanation:
        opened = await named_queue(parts, queue)
        await require_jobs(parts, opened, [id_])
        return await opened.explain(id_)

    said = with_parts(work)
    if as_json:
        print_json(msgspec.to_builtins(said))
        return
    for sentence in said.words:
        print_line(sentence)


def reschedule(
    ids: IdsArgument,
    to: Annotated[str, typer.Option("--to", help="When: 2h from now, or 2027-01-31T09:00Z.")],
    queue: QueueOption = SEND_QUEUE,
    as_json: JsonOption = False,
) -> None:
    """Let scheduled jobs go at another time. Those that are not scheduled any more are left alone."""

    async def work(parts: Parts) -> int:
        due_ms = read_instant_ms(to, parts.clock.now_ms())
        opened = await named_queue(parts, queue)
        await require_jobs(parts, opened, ids)
        if queue in MAIL_QUEUES:
            return await control.reschedule_touches(parts.engine, opened, ids, due_ms)
        return sum(await opened.reschedule(ids, due_ms))

    moved = with_parts(work)
    if as_json:
        print_json({"rescheduled": moved})
    else:
        print_line(f"{moved:,} of {len(ids):,} rescheduled")


def cancel(ids: IdsArgument, queue: QueueOption = SEND_QUEUE, as_json: JsonOption = False) -> None:
    """Cancel jobs that are queued or scheduled, for good. What is on the wire finishes."""

    async def work(parts: Parts) -> int:
        opened = await named_queue(parts, queue)
        await require_jobs(parts, opened, ids)
        if queue in MAIL_QUEUES:
            return await control.cancel_touches(parts.engine, opened, ids, parts.clock.now())
        return await opened.cancel(ids, "cancelled by hand")

    cancelled = with_parts(work)
    if as_json:
        print_json({"cancelled": cancelled})
    else:
        print_line(f"{cancelled:,} of {len(ids):,} cancelled")

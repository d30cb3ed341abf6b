"""postroad queue job, explain, reschedule, cancel: single jobs, looked up and moved."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from postroad.app.context import AppContext
from postroad.cli.context import with_context
from postroad.cli.names import named_queue, require_jobs
from postroad.cli.options import QueueOption, at, parse_timestamp_ms
from postroad.cli.output import JsonOption, print_json, print_line, print_table
from postroad.delivery.job import MAIL_QUEUES, SEND_QUEUE
from postroad.errors import StateError
from postroad.explain.touch import TouchExplanation, explain_touch
from postroad.operations import touches
from postroad.operations.unknown import touch_events
from postroad.queue import Explanation, JobDetails
from postroad.store.ledger import WAITING, TouchState
from postroad.touch_search import find_touches, is_address, touch_ids

IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the job; of mail the id of the touch, or the recipient's address.")
]
IdsArgument = Annotated[
    list[str],
    typer.Argument(metavar="ID…", help="Ids of jobs; of mail the ids of touches, or recipients' addresses."),
]
History = list[dict[str, object]]
WAITING_IN_QUEUE = (TouchState.QUEUED, TouchState.DEFERRED)


def job(id_: IdArgument, queue: QueueOption = SEND_QUEUE, as_json: JsonOption = False) -> None:
    """Show one job: its state, its attempts, and what happened to it, as far as that is kept.

    The queue keeps the last 1000 jobs that ended well and the last 5000 that did not; of email:send the ledger
    keeps all.
    """

    async def work(context: AppContext) -> list[tuple[JobDetails, History]]:
        opened = await named_queue(context, queue)
        if queue in MAIL_QUEUES:
            ids = await touch_ids(context, [id_], queue)
            return [(await opened.find(one), await asyncio.to_thread(touch_events, context.engine, one)) for one in ids]
        found = await opened.find(id_)
        return [(found, _history_in_queue(found))]

    jobs = with_context(work)
    if all(found.state is None and not history for found, history in jobs):
        remedy = "It never had it, or it ended and was forgotten. `postroad queue explain` asks the ledger as well."
        raise StateError(f"{queue} knows no job {id_!r}", remedy=remedy)
    shown = [{**_shown(found), "history": history} for found, history in jobs]
    if as_json:
        print_json(shown if is_address(id_) else shown[0])
        return
    for found, history in jobs:
        rows = [[name, ", ".join(value) if isinstance(value, list) else value] for name, value in _shown(found).items()]
        print_table(f"job {found.id} of {queue}", ["", "value"], [row for row in rows if row[1]])
        if history:
            print_table("history", list(history[0]), [list(row.values()) for row in history])


def _history_in_queue(found: JobDetails) -> History:
    return [
        {
            "at": at(event.at_ms),
            "event": event.kind.value,
            "attempt": event.attempt,
            "cause": event.cause or None,
            "said": event.error or None,
        }
        for event in found.history
    ]


def _shown(found: JobDetails) -> dict[str, object]:
    return {
        "id": found.id,
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


def explain(id_: IdArgument, queue: QueueOption = SEND_QUEUE, as_json: JsonOption = False) -> None:
    """Say why a message is where it is: its lane, what holds it and since when, the time it may go.

    The ledger is asked as well: it knows what is planned, suppressed, cancelled, or has ended. Of an address every
    message is explained, the newest first; with --json as a list.
    """

    async def work(context: AppContext) -> list[TouchExplanation] | Explanation:
        opened = await named_queue(context, queue)
        if queue in MAIL_QUEUES:
            touches = await find_touches(context, id_)
            if touches:
                return [await explain_touch(context, touch) for touch in touches]
            if is_address(id_):
                raise StateError(f"the ledger has no message to {id_!r}", remedy="It is in no campaign's audience.")
        await require_jobs(context, opened, [id_])
        return await opened.explain(id_)

    said = with_context(work)
    if isinstance(said, Explanation):
        print_explanation(said.words, msgspec.to_builtins(said) if as_json else None)
        return
    if as_json:
        found = msgspec.to_builtins(said)
        print_json(found if is_address(id_) else found[0])
        return
    for one in said:
        if is_address(id_):
            print_line(
                f"message {one.id} to {one.address}, campaign {one.campaign}, step {one.step}: {one.touch_state}"
            )
        print_explanation(one.words, None)


def print_explanation(words: Sequence[str], as_json: object | None) -> None:
    """Print sentences, or the object in their place."""
    if as_json is not None:
        print_json(as_json)
        return
    for sentence in words:
        print_line(sentence)


def reschedule(
    ids: IdsArgument,
    to: Annotated[str, typer.Option("--to", help="When: 2h from now, or 2027-01-31T09:00Z.")],
    queue: QueueOption = SEND_QUEUE,
    as_json: JsonOption = False,
) -> None:
    """Let scheduled jobs go at another time. Those that are not scheduled any more are left alone."""

    async def work(context: AppContext) -> tuple[int, int]:
        due_ms = parse_timestamp_ms(to, context.clock.now_ms())
        opened = await named_queue(context, queue)
        if queue in MAIL_QUEUES:
            chosen = await touch_ids(context, ids, queue, WAITING_IN_QUEUE)
            await require_jobs(context, opened, chosen)
            return await touches.reschedule_touches(context.engine, opened, chosen, due_ms), len(chosen)
        await require_jobs(context, opened, ids)
        return sum(await opened.reschedule(ids, due_ms)), len(ids)

    moved, of = with_context(work)
    if as_json:
        print_json({"rescheduled": moved})
    else:
        print_line(f"{moved:,} of {of:,} rescheduled")


def cancel(ids: IdsArgument, queue: QueueOption = SEND_QUEUE, as_json: JsonOption = False) -> None:
    """Cancel jobs that are queued or scheduled, for good. What is on the wire finishes."""

    async def work(context: AppContext) -> tuple[int, int]:
        opened = await named_queue(context, queue)
        if queue in MAIL_QUEUES:
            chosen = await touch_ids(context, ids, queue, WAITING)
            await require_jobs(context, opened, chosen)
            return await touches.cancel_touches(context.engine, opened, chosen, context.clock.now()), len(chosen)
        await require_jobs(context, opened, ids)
        return await opened.cancel(ids, "cancelled by an operator"), len(ids)

    cancelled, of = with_context(work)
    if as_json:
        print_json({"cancelled": cancelled})
    else:
        print_line(f"{cancelled:,} of {of:,} cancelled")

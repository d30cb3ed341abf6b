"""postroad queue: what waits, what is held back, what died."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from postroad.app.context import AppContext
from postroad.app.rebuild import rebuild_queues
from postroad.app.replay import drop as drop_dead_letters
from postroad.app.replay import replay as replay_dead_letters
from postroad.bounce.intake import BOUNCE_QUEUE
from postroad.cli import queue_gate, queue_job, queue_uncertain
from postroad.cli.context import with_context
from postroad.cli.names import named_queue, require_jobs
from postroad.cli.options import QueueOption
from postroad.cli.output import JsonOption, print_json, print_line, print_table
from postroad.cli.row_limit import LimitOption
from postroad.cli.unknown import ByOption, default_actor
from postroad.delivery.job import MAIL_QUEUES, SEND_QUEUE
from postroad.errors import UsageError, unknown_name
from postroad.operations.dead_letters import list_dead_letters
from postroad.operations.rebuild import RebuildResult
from postroad.printable import counted
from postroad.queue import DeadLetter, Queue, QueueStats
from postroad.store.ledger import TouchState
from postroad.touch_search import touch_ids

app = typer.Typer(help="The queue: depth, jobs, gates, dead letters, rebuilding it.", no_args_is_help=True)
app.add_typer(queue_gate.app, name="gate")
app.add_typer(queue_uncertain.app, name="uncertain")
app.command("job")(queue_job.job)
app.command("explain")(queue_job.explain)
app.command("reschedule")(queue_job.reschedule)
app.command("cancel")(queue_job.cancel)


@app.command("stats")
def stats(queue: QueueOption = SEND_QUEUE, as_json: JsonOption = False) -> None:
    """Show how many jobs are in each state."""

    async def work(context: AppContext) -> QueueStats:
        return await (await named_queue(context, queue)).stats()

    found = msgspec.to_builtins(with_context(work))
    if as_json:
        print_json(found)
        return
    rows = []
    for name, value in found.items():
        if isinstance(value, dict):
            rows += [[f"{name}: {key}", item] for key, item in value.items()]
        elif not isinstance(value, list):
            rows.append([name, value])
    print_table(queue, ["", "count"], rows)


@app.command("dead")
def dead(
    queue: QueueOption = SEND_QUEUE,
    by: Annotated[str | None, typer.Option(help="Group: `cause`.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List dead letters: jobs that ended without success, and why.

    Of mail, also those that only the ledger has, as after the loss of the queue's server.
    """
    if by not in (None, "cause"):
        raise UsageError(f"dead letters are grouped by cause, not by {by}")

    async def work(context: AppContext) -> list[DeadLetter]:
        return await list_dead_letters(context.engine, await named_queue(context, queue))

    letters = with_context(work)
    if by == "cause":
        groups = Counter(letter.cause for letter in letters).most_common()
        if as_json:
            print_json([{"cause": cause, "jobs": count} for cause, count in groups])
        else:
            print_table(f"dead letters of {queue}", ["cause", "jobs"], groups)
        return
    shown = letters[:limit]
    if as_json:
        print_json([{k: v for k, v in msgspec.structs.asdict(letter).items() if k != "payload"} for letter in shown])
    else:
        title = f"dead letters of {queue}: {len(shown)} of {len(letters)}"
        print_table(title, ["id", "cause", "error"], ([letter.id, letter.cause, letter.error] for letter in shown))


LettersArgument = Annotated[list[str] | None, typer.Argument(help="Ids of dead letters; of mail also addresses.")]
CauseOption = Annotated[str | None, typer.Option(help="All of this cause.")]
AllOption = Annotated[bool, typer.Option("--all", help="All of them.")]


@app.command("replay")
def replay(
    ids: LettersArgument = None,
    cause: CauseOption = None,
    everything: AllOption = False,
    queue: QueueOption = SEND_QUEUE,
    as_json: JsonOption = False,
) -> None:
    """Send dead letters again. Hard bounces are skipped, and so is what a cancelled campaign was to send.

    A message that only the ledger has, as after the loss of the queue's server, gets a new job.
    """
    _require_one_choice(ids, cause, everything)

    async def work(context: AppContext) -> int:
        opened = await named_queue(context, queue)
        letters = await _letters(context, opened, ids, cause, (TouchState.DEAD, TouchState.EXPIRED))
        return await replay_dead_letters(context, opened, letters)

    count = with_context(work)
    if as_json:
        print_json({"replayed": count})
    else:
        print_line(f"{count:,} replayed")


@app.command("drop")
def drop(
    ids: LettersArgument = None,
    cause: CauseOption = None,
    everything: AllOption = False,
    by: ByOption = None,
    queue: QueueOption = SEND_QUEUE,
    as_json: JsonOption = False,
) -> None:
    """Give dead letters up: they are not sent again, and no longer listed. It cannot be undone.

    Those of mail end as cancelled. The ledger records who decided it.
    """
    _require_one_choice(ids, cause, everything)
    who = default_actor(by)

    async def work(context: AppContext) -> int:
        opened = await named_queue(context, queue)
        letters = await _letters(context, opened, ids, cause, (TouchState.DEAD,))
        return await drop_dead_letters(context, opened, letters, by=who)

    count = with_context(work)
    if as_json:
        print_json({"dropped": count, "by": who})
    else:
        print_line(f"{count:,} dropped by {who}")


def _require_one_choice(ids: list[str] | None, cause: str | None, everything: bool) -> None:
    if sum((bool(ids), cause is not None, everything)) != 1:
        raise UsageError("say which dead letters: their ids, --cause, or --all")


async def _letters(
    context: AppContext, queue: Queue, ids: list[str] | None, cause: str | None, states: Sequence[TouchState]
) -> Sequence[str]:
    """Return the ids that a person named, or those of a cause, or all. ``states``: of the messages of an address."""
    if ids:
        chosen = await touch_ids(context, ids, queue.name, states) if queue.name in MAIL_QUEUES else ids
        await require_jobs(context, queue, chosen)
        return chosen
    letters = await list_dead_letters(context.engine, queue, cause=cause)
    if cause is not None and not letters:
        causes = {letter.cause for letter in await list_dead_letters(context.engine, queue)}
        raise unknown_name("cause of a dead letter", cause, causes, listed_by="postroad queue dead --by cause")
    return [letter.id for letter in letters]


@app.command("rebuild")
def rebuild(as_json: JsonOption = False) -> None:
    """Make the queue again from the ledger, after its server lost it.

    What waits is enqueued again. What was on the wire and has no job any more becomes `unknown`: held and shown, never
    sent again by itself. Harmless when nothing was lost. A queue that an earlier version split into shards becomes one.
    """

    async def work(context: AppContext) -> RebuildResult:
        for name in (*MAIL_QUEUES, BOUNCE_QUEUE):
            await context.forget_shards(name)
        return await rebuild_queues(context, by="rebuild")

    rebuilt = with_context(work)
    if as_json:
        print_json(rebuilt)
    else:
        print_line(
            f"{counted(rebuilt.looked_at, 'touch', 'touches')} looked at: "
            f"{rebuilt.enqueued:,} enqueued again, {rebuilt.unknown:,} unknown"
        )

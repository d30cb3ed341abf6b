"""postroad queue: what waits, what is held back, what died."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec
import typer

from postroad.cli.output import JsonOption, console, print_json, print_table, with_parts
from postroad.delivery import control
from postroad.delivery.job import SEND_QUEUE
from postroad.delivery.record import Recorder
from postroad.errors import StateError, UsageError
from postroad.parts import Parts
from postroad.queue import FOREVER_MS, DeadLetter, GateState, QueueStats
from postroad.settings import parse_duration_ms

app = typer.Typer(help="The queue: depth, gates, dead letters, rebuilding it.", no_args_is_help=True)
gate_app = typer.Typer(help="Gates: the limits that jobs wait behind.", no_args_is_help=True)
app.add_typer(gate_app, name="gate")

QueueOption = Annotated[str, typer.Option("--queue", help="Name of the queue.")]


@app.command("stats")
def stats(queue: QueueOption = SEND_QUEUE, as_json: JsonOption = False) -> None:
    """Show how many jobs are in each state."""

    async def work(parts: Parts) -> QueueStats:
        return await (await parts.queue(queue)).stats()

    found = msgspec.to_builtins(with_parts(work))
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
    limit: Annotated[int, typer.Option(help="Rows at the most.", min=1)] = 50,
    as_json: JsonOption = False,
) -> None:
    """List dead letters: jobs that ended without success, and why."""
    if by not in (None, "cause"):
        raise UsageError(f"dead letters are grouped by cause, not by {by}")

    async def work(parts: Parts) -> list[DeadLetter]:
        return await control.all_dead_letters(await parts.queue(queue))

    letters = with_parts(work)
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


@app.command("replay")
def replay(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of dead letters.")] = None,
    cause: Annotated[str | None, typer.Option(help="All of this cause.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send dead letters again. What bounced for good stays: nobody is mailed who does not exist."""
    if sum((bool(ids), cause is not None, everything)) != 1:
        raise UsageError("say which dead letters: their ids, --cause, or --all")

    async def work(parts: Parts) -> int:
        return await control.replay(parts.engine, await parts.queue(SEND_QUEUE), ids=ids, cause=cause)

    count = with_parts(work)
    if as_json:
        print_json({"replayed": count})
    else:
        console.print(f"{count:,} replayed")


@app.command("rebuild")
def rebuild(as_json: JsonOption = False) -> None:
    """Make the queue again from the ledger, after its server lost it.

    What waits is enqueued again. What was on the wire and is known to nobody becomes `unknown`: held and shown, never
    sent again by itself. Harmless when nothing was lost.
    """

    async def work(parts: Parts) -> control.Rebuilt:
        queue = await parts.queue(SEND_QUEUE)
        recorder = Recorder(engine=parts.engine, queue=queue, clock=parts.clock, name="rebuild")
        expire_ms = parts.settings.delivery.expire_ms
        now = parts.clock.now()
        return await control.rebuild(parts.engine, queue, recorder, expire_ms=expire_ms, now=now)

    rebuilt = with_parts(work)
    if as_json:
        print_json(rebuilt)
    else:
        console.print(
            f"{rebuilt.looked_at:,} touches looked at: {rebuilt.enqueued:,} enqueued again, {rebuilt.unknown:,} unknown"
        )


@gate_app.command("list")
def list_gates(queue: QueueOption = SEND_QUEUE, as_json: JsonOption = False) -> None:
    """List gates: their limits, what is in flight, how many lanes wait."""

    async def work(parts: Parts) -> list[GateState]:
        return await (await parts.queue(queue)).gates()

    states = with_parts(work)
    if as_json:
        print_json(msgspec.to_builtins(states))
        return
    print_table(
        f"gates of {queue}",
        ["gate", "rate", "concurrency", "paused", "in flight", "lanes waiting"],
        (
            [
                state.gate.name,
                f"{state.gate.rate.count:g} in {state.gate.rate.per_ms / 1000:g} s" if state.gate.rate else None,
                state.gate.concurrency,
                _paused(state),
                state.in_flight,
                state.parked_lanes,
            ]
            for state in states
        ),
    )


def _paused(state: GateState) -> str | None:
    until_ms = state.gate.paused_until_ms
    if not until_ms:
        return None
    return "until it is resumed" if until_ms >= FOREVER_MS else f"until {until_ms / 1000:.0f}"


@gate_app.command("suspend")
def suspend(
    gate: Annotated[str, typer.Argument(help="Name of a gate, such as sender:ada@example.com.")],
    for_: Annotated[str | None, typer.Option("--for", help="How long, as in 30m; unset: until it is resumed.")] = None,
    queue: QueueOption = SEND_QUEUE,
) -> None:
    """Let nothing through a gate. What is in flight finishes."""

    async def work(parts: Parts) -> None:
        until_ms = parts.clock.now_ms() + parse_duration_ms(for_) if for_ else None
        await (await parts.queue(queue)).suspend(gate, until_ms)

    try:
        with_parts(work)
    except ValueError as error:
        raise UsageError(str(error)) from None
    console.print(f"{gate} is suspended {f'for {for_}' if for_ else 'until it is resumed'}")


@gate_app.command("resume")
def resume(gate: Annotated[str, typer.Argument(help="Name of a gate.")], queue: QueueOption = SEND_QUEUE) -> None:
    """Lift the pause of a gate."""

    async def work(parts: Parts) -> None:
        opened = await parts.queue(queue)
        if gate not in {state.gate.name for state in await opened.gates()}:
            raise StateError(f"there is no gate named {gate!r}", remedy="`postroad queue gate list` names them.")
        await opened.lift(gate)

    with_parts(work)
    console.print(f"{gate} is open")

"""postroad queue gate: shows and changes gates, the limits of a queue, while workers run."""

from __future__ import annotations

import getpass
import socket
from typing import Annotated

import msgspec
import typer

from postroad.app.context import AppContext
from postroad.app.gate_acts import resume_gate
from postroad.app.gate_names import require_gate
from postroad.cli.context import with_context
from postroad.cli.names import named_queue
from postroad.cli.options import QueueOption, at, parse_duration_option_ms, parse_rate, parse_timestamp_ms
from postroad.cli.output import JsonOption, print_json, print_line, print_table
from postroad.cli.row_limit import MAX_NUMBER
from postroad.delivery.job import SEND_QUEUE
from postroad.errors import UsageError
from postroad.operations.gate_pauses import pause_gate
from postroad.queue import FOREVER_MS, Gate, GateState, Queue, Quota, Rate
from postroad.settings.types import duration_text

app = typer.Typer(help="Gates: the limits of a queue that jobs wait for.", no_args_is_help=True)

GateArgument = Annotated[str, typer.Argument(help="Name of a gate, such as sender:ada@example.com.")]

NewOption = Annotated[
    bool, typer.Option("--new", help="Also a gate that no setting, sender, campaign or job names, of any queue.")
]


async def _open(context: AppContext, queue_name: str, gate: str, *, new: bool = False) -> Queue:
    """Open a queue. Raises StateError unless the gate exists, will be made by a job, or is to be a new one."""
    queue = await named_queue(context, queue_name, new=new)
    if not new:
        await require_gate(context, queue, gate)
    return queue


@app.command("set")
def set_gate(
    gate: GateArgument,
    rate: Annotated[str | None, typer.Option(help="Jobs per time, evenly: 30/1h.")] = None,
    burst: Annotated[
        int | None, typer.Option(help="Of the rate: jobs at once after a rest.", min=1, max=MAX_NUMBER)
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Jobs in flight at once.", min=0, max=MAX_NUMBER)] = None,
    quota: Annotated[int | None, typer.Option(help="Jobs in all until --until.", min=0, max=MAX_NUMBER)] = None,
    until: Annotated[
        str | None, typer.Option(help="End of the quota: 24h from now, or 2027-01-31T09:00Z; then nothing limits.")
    ] = None,
    queue: QueueOption = SEND_QUEUE,
    new: NewOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set a gate's limits. All workers on all hosts obey from their next claim.

    Limits that are not named are lifted; a pause stays, see `resume`. The gates of the queue, and of senders with a
    rate, are set again from postroad.toml whenever a worker starts. A limit that leaves postroad.toml is lifted at the
    next start; one that was set here stays.
    """
    if burst is not None and rate is None:
        raise UsageError("--burst belongs to --rate")
    if (quota is None) != (until is None):
        raise UsageError("--quota and --until belong together")

    async def work(context: AppContext) -> GateState:
        opened = await _open(context, queue, gate, new=new)
        wanted = Gate(
            name=gate,
            rate=_rate(rate, burst or 1) if rate else None,
            concurrency=concurrency,
            quota=Quota(left=quota, until_ms=parse_timestamp_ms(until, context.clock.now_ms()))
            if quota is not None and until is not None
            else None,
        )
        await opened.set_gate(wanted)
        return next(state for state in await opened.gates() if state.gate.name == gate)

    state = with_context(work)
    if as_json:
        print_json(msgspec.to_builtins(state))
    else:
        print_line(f"{gate}: {_limits(state)}")


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _rate(text: str, burst: int) -> Rate:
    rate = parse_rate(text)
    return Rate(count=rate.count, per_ms=rate.per_ms, burst=burst)


def _limits(state: GateState) -> str:
    gate = state.gate
    limits = [
        f"{gate.rate.count:g} in {duration_text(gate.rate.per_ms)}, {gate.rate.burst} at once" if gate.rate else None,
        f"{gate.concurrency} in flight" if gate.concurrency is not None else None,
        f"{gate.quota.left:,} until {at(gate.quota.until_ms):%Y-%m-%d %H:%M:%S} UTC" if gate.quota else None,
    ]
    return "; ".join(limit for limit in limits if limit) or "no limit"


@app.command("list")
def list_gates(queue: QueueOption = SEND_QUEUE, as_json: JsonOption = False) -> None:
    """List gates: their limits, what is in flight, how many lanes wait."""

    async def work(context: AppContext) -> list[GateState]:
        return await (await named_queue(context, queue)).gates()

    states = with_context(work)
    if as_json:
        print_json(msgspec.to_builtins(states))
        return
    print_table(
        f"gates of {queue}",
        ["gate", "limits", "paused", "in flight", "lanes waiting"],
        (
            [
                state.gate.name,
                _limits(state),
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
    return "until it is resumed" if until_ms >= FOREVER_MS else f"until {at(until_ms):%Y-%m-%d %H:%M:%S} UTC"


@app.command("suspend")
def suspend(
    gate: GateArgument,
    for_: Annotated[str | None, typer.Option("--for", help="How long, as in 30m; unset: until it is resumed.")] = None,
    queue: QueueOption = SEND_QUEUE,
    new: NewOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let nothing through a gate. What is in flight finishes. `postroad explain` charges the delay to this pause."""
    for_ms = parse_duration_option_ms(for_) if for_ else None

    async def work(context: AppContext) -> int | None:
        opened = await _open(context, queue, gate, new=new)
        return await pause_gate(context.engine, opened, gate, for_ms, by=_who(), now=context.clock.now())

    until_ms = with_context(work)
    if as_json:
        print_json({"gate": gate, "queue": queue, "paused": True, "until": at(until_ms)})
        return
    print_line(f"{gate} is suspended {f'for {for_}' if for_ else 'until it is resumed'}")


@app.command("resume")
def resume(gate: GateArgument, queue: QueueOption = SEND_QUEUE, as_json: JsonOption = False) -> None:
    """Lift the pause of a gate, and undo what a receiver's reply had set: see `postroad shaping show`."""

    async def work(context: AppContext) -> int:
        return await resume_gate(context, await _open(context, queue, gate), gate, by=_who())

    undone = with_context(work)
    if as_json:
        print_json({"gate": gate, "queue": queue, "paused": False, "undone": undone})
        return
    print_line(f"{gate} is open" + (f"; {undone} changes of the shaping are undone" if undone else ""))

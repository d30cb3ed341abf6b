"""postroad shaping: how fast each sender may go at each mailbox provider, and what changed it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from postroad.app.context import AppContext
from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_line, print_table
from postroad.cli.row_limit import LimitOption
from postroad.delivery.job import SEND_QUEUE
from postroad.errors import unknown_name
from postroad.gates.name import Receiver
from postroad.shaping.config import sender_route
from postroad.shaping.describe import ShapingStatus, describe, known_receivers, shaping_status
from postroad.store.engine import read
from postroad.store.shaping import ShapingChange, newest_changes, open_changes

app = typer.Typer(
    help="Shaping: how fast a sender may go at a mailbox provider, and which replies changed that.",
    no_args_is_help=True,
)
SenderOption = Annotated[str | None, typer.Option(help="From address or name of one sender; unset: all.")]


@app.command("show")
def show(sender: SenderOption = None, as_json: JsonOption = False) -> None:
    """Show what holds now for each sender at each provider, site and domain, where, and what holds it back.

    `postroad queue gate resume GATE` undoes it at once.
    """

    async def work(context: AppContext) -> list[ShapingStatus]:
        queue = await context.queue(SEND_QUEUE)
        gates = [state.gate.name for state in await queue.gates()]
        changes, receivers = await asyncio.to_thread(_read, context, gates)
        senders = sorted({each.address for each in context.settings.senders.values()} | {c.sender for c in changes})
        if sender is not None:
            senders = [_address(context, sender, senders)]
        by_route = [sender_route(context.settings, address) for address in senders]
        now = context.clock.now()
        return shaping_status(context.shaping, context.settings.routes, by_route, receivers, changes, now)

    rows = with_context(work)
    if as_json:
        print_json([_plain(row) for row in rows])
        return
    limited = [row for row in rows if row.limits is not None or row.held]
    if limited:
        print_table(
            "how fast each may go",
            ["sender", "receiver", "rate", "connections", "messages each", "TLS"],
            (
                [
                    row.sender,
                    row.receiver,
                    row.rate,
                    row.connections,
                    row.session.messages_per_connection if row.session else None,
                    row.session.tls if row.session else None,
                ]
                for row in limited
            ),
        )
        print_line(
            "Rate and connections hold at gates, for all workers together; messages each and TLS at the sessions of "
            "direct routes. `--json` says which gate and which route.",
        )
    else:
        print_line("Nothing of the shaping limits anybody or holds anybody back.")
    for change in {change.id: change for row in rows for change in row.held}.values():
        print_line(
            f"{change.gate} is held back by {change.rule}: {describe(change)}, because of: {change.reply}",
        )


@app.command("log")
def log(
    sender: SenderOption = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List changes, newest first: by which reply and rule, what was set, when it ends or was undone, and by whom."""

    async def work(context: AppContext) -> Sequence[ShapingChange]:
        def find() -> Sequence[ShapingChange]:
            with read(context.engine) as connection:
                known = [each.address for each in context.settings.senders.values()]
                address = None if sender is None else _address(context, sender, known)
                return newest_changes(connection, address, limit)

        return await asyncio.to_thread(find)

    changes = with_context(work)
    if as_json:
        print_json([change.model_dump() | {"sets": describe(change)} for change in changes])
    elif changes:
        print_table(
            "changes of the shaping",
            ["at", "gate", "rule", "set", "undone", "by", "because of"],
            ([c.at, c.gate, c.rule, describe(c), c.restored_at, c.restored_by, c.reply] for c in changes),
        )
    else:
        print_line("nothing was changed yet")


def _read(context: AppContext, gates: Sequence[str]) -> tuple[list[ShapingChange], list[Receiver]]:
    with read(context.engine) as connection:
        changes = open_changes(connection)
        return changes, known_receivers(connection, context.shaping, gates, changes)


def _address(context: AppContext, sender: str, known: Sequence[str]) -> str:
    named = context.settings.senders.get(sender)
    address = named.address if named is not None else sender
    if address not in known:
        raise unknown_name("sender", sender, {*known, *context.settings.senders})
    return address


def _plain(row: ShapingStatus) -> dict[str, object]:
    limits = row.limits.model_dump(mode="json", exclude={"rate"}) if row.limits is not None else None
    return {
        "sender": row.sender,
        "provider": row.provider,
        "receiver": row.receiver,
        "gate": row.gate,
        "rate": row.rate,
        "connections": row.connections,
        "limits": limits,
        "why": row.why,
        "terms": row.session._asdict() if row.session is not None else None,
        "enforced": row.enforced,
        "held": [
            {
                "rule": change.rule,
                "gate": change.gate,
                "sets": describe(change),
                "at": change.at,
                "ends_at": change.ends_at,
                "reply": change.reply,
            }
            for change in row.held
        ],
    }

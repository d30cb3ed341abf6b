"""postroad shaping: how fast each sender may go at each mailbox provider, and what changed it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from postroad.cli.output import JsonOption, console, print_json, print_table, with_parts
from postroad.delivery.job import SEND_QUEUE
from postroad.delivery.shaping.file import Shaping, read_shaping, shaped_senders
from postroad.delivery.shaping.limits import TAIL
from postroad.delivery.shaping.show import Standing, standing, words
from postroad.errors import UsageError
from postroad.parts import Parts
from postroad.store.engine import read
from postroad.store.shaping import ShapingChange, newest_changes, open_changes

app = typer.Typer(
    help="Shaping: how fast a sender may go at a mailbox provider, and which replies changed that.",
    no_args_is_help=True,
)
SenderOption = Annotated[str | None, typer.Option(help="From address or name of one sender; unset: all.")]


@app.command("show")
def show(sender: SenderOption = None, as_json: JsonOption = False) -> None:
    """Show what holds now for each sender at each provider, and what holds it back.

    `postroad queue gate resume GATE` undoes it at once.
    """

    async def work(parts: Parts) -> list[Standing]:
        shaping = read_shaping(parts.settings.delivery.shaping)
        queue = await parts.queue(SEND_QUEUE)
        gates = [state.gate.name for state in await queue.gates()]
        changes = await asyncio.to_thread(_open, parts)
        shaped = shaped_senders(parts.settings)
        senders = sorted({each.address for each in parts.settings.senders.values()} | {c.sender for c in changes})
        if sender is not None:
            senders = [_address(parts, sender, senders)]
        return standing(
            shaping,
            [(address, address in shaped) for address in senders],
            _providers(shaping, gates, changes),
            changes,
            parts.clock.now(),
        )

    rows = with_parts(work)
    if as_json:
        print_json([_plain(row) for row in rows])
        return
    limited = [row for row in rows if row.limits is not None or row.held]
    if limited:
        print_table(
            "how fast each may go",
            ["sender", "provider", "rate", "connections", "messages each", "TLS"],
            (
                [
                    row.sender,
                    row.provider,
                    row.rate,
                    row.connections,
                    row.limits.messages_per_connection if row.limits else None,
                    row.limits.tls if row.limits else None,
                ]
                for row in limited
            ),
        )
    else:
        console.print("Nothing of the shaping limits anybody or holds anybody back.")
    for change in {change.id: change for row in rows for change in row.held}.values():
        console.print(
            f"{change.gate} is held back by {change.rule}: {words(change)}, because of: {change.reply}",
            soft_wrap=True,
            markup=False,
        )


@app.command("log")
def log(
    sender: SenderOption = None,
    limit: Annotated[int, typer.Option(help="Rows at the most, newest first.", min=1)] = 100,
    as_json: JsonOption = False,
) -> None:
    """List what was changed: by which reply and rule, what it set, when it ends or was undone, and by whom."""

    async def work(parts: Parts) -> Sequence[ShapingChange]:
        def find() -> Sequence[ShapingChange]:
            with read(parts.engine) as connection:
                known = [each.address for each in parts.settings.senders.values()]
                address = None if sender is None else _address(parts, sender, known)
                return newest_changes(connection, address, limit)

        return await asyncio.to_thread(find)

    changes = with_parts(work)
    if as_json:
        print_json([change.model_dump() | {"sets": words(change)} for change in changes])
    elif changes:
        print_table(
            "changes of the shaping",
            ["at", "gate", "rule", "set", "undone", "by", "because of"],
            ([c.at, c.gate, c.rule, words(c), c.restored_at, c.restored_by, c.reply] for c in changes),
        )
    else:
        console.print("nothing was changed yet")


def _open(parts: Parts) -> list[ShapingChange]:
    with read(parts.engine) as connection:
        return open_changes(connection)


def _address(parts: Parts, sender: str, known: Sequence[str]) -> str:
    named = parts.settings.senders.get(sender)
    address = named.address if named is not None else sender
    if address not in known:
        raise UsageError(f"there is no sender {sender!r}", remedy=f"Name one of: {', '.join(known) or 'none'}.")
    return address


def _providers(shaping: Shaping, gates: Sequence[str], changes: Sequence[ShapingChange]) -> set[str]:
    lanes = {gate.split(":", 2)[1] for gate in gates if gate.startswith("provider:")}
    return {TAIL, *shaping.provider, *lanes, *(change.provider for change in changes if change.provider)}


def _plain(row: Standing) -> dict[str, object]:
    limits = row.limits.model_dump(mode="json", exclude={"rate"}) if row.limits is not None else None
    return {
        "sender": row.sender,
        "provider": row.provider,
        "gate": row.gate,
        "rate": row.rate,
        "connections": row.connections,
        "limits": limits,
        "why": row.why,
        "held": [
            {
                "rule": change.rule,
                "gate": change.gate,
                "sets": words(change),
                "at": change.at,
                "ends_at": change.ends_at,
                "reply": change.reply,
            }
            for change in row.held
        ],
    }

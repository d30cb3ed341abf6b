"""Checks whether a sender, or all mail, is paused or held back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from postroad.delivery.job import SEND_QUEUE
from postroad.doctor.check import Check
from postroad.doctor.context import DoctorContext
from postroad.errors import PostroadError
from postroad.gates.name import GateKind, GateName
from postroad.queue import FOREVER_MS, GateState, Health
from postroad.store.dns_report import open_holds
from postroad.store.engine import read
from postroad.store.shaping import open_changes


async def check_senders(context: DoctorContext) -> Sequence[Check]:
    """Check that no sender and no gate is paused.

    A pause without an end fails, because its mail waits for an operator. A pause with an end is a warning.

    Args:
        context: The context of the checks.

    Returns:
        A check for each pause, or one check if there is no pause.
    """
    holds, reasons = await _reasons(context)
    states = {state.gate.name: state for state in await (await context.queue(SEND_QUEUE)).gates()}
    now_ms = (await context.app()).clock.now_ms()
    paused = {name: until for name, state in states.items() if (until := _paused_until(state, now_ms))}
    checks = [
        Check(
            part=f"sender {sender}",
            health=Health.FAIL,
            seen=f"is held back: {why}",
            remedy="`postroad dns senders` shows what to publish; the next check releases it.",
        )
        for sender, why in sorted(holds.items())
    ]
    held = {str(GateName.hold(sender)) for sender in holds}
    checks += _paused({name: until for name, until in paused.items() if name not in held}, reasons)
    names = len(context.settings.senders)
    return checks or [Check(part="senders", health=Health.OK, seen=f"none of {names} is paused or held back")]


async def _reasons(context: DoctorContext) -> tuple[dict[str, str], dict[str, str]]:
    """Return held senders and paused gates, each with its reason from the database."""
    try:
        engine = await context.database()
    except PostroadError:  # The check of the database reports it. The gates are known from the queue.
        return {}, {}
    return await asyncio.to_thread(_read_reasons, engine)


def _read_reasons(engine: sa.Engine) -> tuple[dict[str, str], dict[str, str]]:
    with read(engine) as connection:
        holds = {sender: hold.reason for sender, hold in open_holds(connection).items() if hold.held_at is not None}
        suspended = [change for change in open_changes(connection) if change.suspended]
        return holds, {change.gate: f"{change.rule}: {change.reply}" for change in suspended}


def _paused_until(state: GateState, now_ms: int) -> int | None:
    until_ms = state.gate.paused_until_ms
    return until_ms if until_ms is not None and until_ms > now_ms else None


def _paused(gates: Mapping[str, int], reasons: Mapping[str, str]) -> Iterator[Check]:
    for name, until_ms in sorted(gates.items()):
        forever = until_ms >= FOREVER_MS
        end = "until it is resumed" if forever else f"until {datetime.fromtimestamp(until_ms / 1000, UTC):%F %T} UTC"
        why = f" ({reasons[name]})" if name in reasons else ""
        yield Check(
            part=_part_of(name),
            health=Health.FAIL if forever else Health.WARN,
            seen=f"gate {name} is paused {end}{why}",
            remedy=f"`postroad queue gate resume {name}` resumes it; `postroad shaping show` shows what paused it.",
        )


def _part_of(gate: str) -> str:
    match GateName.parse(gate):
        case GateName(kind=GateKind.QUEUE):
            return f"queue {SEND_QUEUE}"
        case GateName(kind=GateKind.SENDER, of=sender):
            return f"sender {sender}"
        case _:
            return f"gate {gate}"

"""Tells which gates admit no job now, why, and when they open."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum

from msgspec import Struct

from postroad.queue.gates import FOREVER_MS, GateState, Rate


class BlockKind(StrEnum):
    """Why a gate admits no job."""

    PAUSE = "pause"
    CONCURRENCY = "concurrency"
    QUOTA = "quota"
    RATE = "rate"


class BlockingGate(Struct, frozen=True, kw_only=True):
    """A gate that admits no job now.

    ``since_ms``: since when it is paused; None: not known. ``until_ms``: earliest time at which it admits the job;
    None: not known. ``why``: a clause, such as ``it is paused until it is resumed``.
    """

    name: str
    kind: BlockKind
    since_ms: int | None
    until_ms: int | None
    why: str


def blocking_gates(gates: Iterable[GateState], ahead: int, now_ms: int) -> list[BlockingGate]:
    """Return the gates that admit no job now, in their order.

    Args:
        gates: The gates of a lane.
        ahead: Number of jobs before the one that waits.
        now_ms: The time of the queue's clock.
    """
    return [
        BlockingGate(
            name=state.gate.name,
            kind=(kind := _kind(state, now_ms)),
            since_ms=state.paused_since_ms if kind is BlockKind.PAUSE else None,
            until_ms=opening_ms(state, ahead, now_ms),
            why=_why(state, kind, now_ms),
        )
        for state in gates
        if state.capacity == 0
    ]


def _kind(state: GateState, now_ms: int) -> BlockKind:
    gate = state.gate
    if gate.paused_until_ms is not None and gate.paused_until_ms > now_ms:
        return BlockKind.PAUSE
    if gate.concurrency is not None and state.in_flight >= gate.concurrency:
        return BlockKind.CONCURRENCY
    if gate.quota is not None and now_ms < gate.quota.until_ms and gate.quota.left <= 0:
        return BlockKind.QUOTA
    return BlockKind.RATE


def _why(state: GateState, kind: BlockKind, now_ms: int) -> str:
    gate = state.gate
    match kind:
        case BlockKind.PAUSE:
            since = f"since {utc_text(state.paused_since_ms)}, " if state.paused_since_ms else ""
            forever = gate.paused_until_ms is None or gate.paused_until_ms >= FOREVER_MS
            ends = "until it is resumed" if forever else f"until {utc_text(gate.paused_until_ms)}"
            return f"it is paused {since}{ends}"
        case BlockKind.CONCURRENCY:
            return f"{state.in_flight} in flight of {gate.concurrency} at once; it opens when one of them ends"
        case BlockKind.QUOTA:
            return f"its quota is used up until {utc_text(gate.quota.until_ms if gate.quota else None)}"
        case BlockKind.RATE:
            assert gate.rate  # noqa: S101 - nothing else can shut a gate
            next_ms = opening_ms(state, 0, now_ms)
            return f"its rate is {rate_in_words(gate.rate)}; the next one goes at {utc_text(next_ms)}"


def opening_ms(state: GateState, ahead: int, now_ms: int) -> int | None:
    """Return the earliest time at which a gate admits the job after ``ahead`` others. None: it is not known."""
    gate = state.gate
    at_ms = float(now_ms)
    if gate.paused_until_ms is not None and gate.paused_until_ms > now_ms:
        if gate.paused_until_ms >= FOREVER_MS:
            return None
        at_ms = gate.paused_until_ms
    if gate.concurrency is not None and state.in_flight >= gate.concurrency:
        return None
    if gate.quota is not None and now_ms < gate.quota.until_ms and gate.quota.left <= ahead:
        at_ms = max(at_ms, gate.quota.until_ms)
    if gate.rate is not None and state.tat_ms is not None:
        interval_ms = gate.rate.per_ms / gate.rate.count
        at_ms = max(at_ms, max(state.tat_ms, now_ms) + (ahead - gate.rate.burst + 1) * interval_ms)
    return int(-(-at_ms // 1))


def rate_in_words(rate: Rate) -> str:
    """Return a rate in words, as in `30 in 3600 s, 1 at once`."""
    return f"{rate.count:g} in {rate.per_ms / 1000:g} s, {rate.burst} at once"


def utc_text(ms: int | None) -> str:
    """Return a time in words, as in `2026-05-04 07:00:00 UTC`. ``ms``: since the epoch; None: not known."""
    if ms is None:
        return "an unknown time"
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

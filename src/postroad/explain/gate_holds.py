"""Finds the gates that hold a touch: from its job, or without the queue from the pauses that the ledger records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from msgspec.structs import replace

from postroad.delivery.outcome import ROUTE_DOWN
from postroad.explain.cause import DelayCause, block_cause, gate_subject
from postroad.explain.facts import GatePause, WarmupCap
from postroad.explain.hold import Situation, TouchHold, from_ms, new_hold, utc
from postroad.gates.name import GateKind, kind_of
from postroad.queue import BlockingGate, BlockKind, JobState
from postroad.store.ledger import WAITING


def find_gates(situation: Situation) -> Iterator[TouchHold]:
    """Find the gates that hold a touch now."""
    job, touch = situation.job, situation.touch
    if touch.state not in WAITING:
        return
    if job is None or not job.gates:
        yield from _recorded_pauses(situation)
    elif job.state in (JobState.QUEUED, JobState.SCHEDULED):
        # Of a job that is due later, only a pause that lasts longer matters.
        due = from_ms(job.at_ms) if job.state is JobState.SCHEDULED else situation.now
        for gate in job.blocking_gates():
            if job.state is JobState.QUEUED or (
                gate.kind is BlockKind.PAUSE and (gate.until_ms is None or from_ms(gate.until_ms) > due)
            ):
                yield _blocked(situation, gate)


def _blocked(situation: Situation, gate: BlockingGate) -> TouchHold:
    shared = situation.facts.shared
    pause = (shared.pauses.get(gate.name) or _route_failure(situation, gate)) if gate.kind is BlockKind.PAUSE else None
    cap = shared.caps.get(gate.name)
    cause = block_cause(gate.name, gate.kind)
    if cause is DelayCause.WARMUP_CAP and cap is not None and cap.opens(situation.now) > situation.now:
        cause = DelayCause.WARMUP_HOURS
    since = from_ms(gate.since_ms) if gate.since_ms is not None else pause.since if pause else None
    hold = new_hold(
        situation,
        cause,
        since=since,
        until=from_ms(gate.until_ms) if gate.until_ms is not None else None,
        gate=gate.name,
        subject=gate_subject(gate.name),
        why=gate.why,
        reason=pause.reply if pause else "no check is recorded",
    )
    return _with_origin(hold, gate.name, pause, describe_cap(gate, shared.caps, situation.now))


def _route_failure(situation: Situation, gate: BlockingGate) -> GatePause | None:
    """Return why a route is paused, if this message noticed it. The pause of a route is not recorded otherwise."""
    if kind_of(gate.name) is not GateKind.ROUTE:
        return None
    for event in reversed(situation.facts.events):
        if (event.cause or "").startswith(ROUTE_DOWN):
            reply = (event.reply or event.cause or "").removeprefix(f"{ROUTE_DOWN}: ")
            return GatePause(ROUTE_DOWN, reply, event.at, None)
    return None


def _recorded_pauses(situation: Situation) -> Iterator[TouchHold]:
    """Find the pauses that the ledger records, without the queue."""
    touch = situation.touch
    for name, pause in situation.facts.shared.pauses.items():
        if name in situation.facts.gates and (pause.until is None or pause.until > max(situation.now, touch.due_at)):
            why = f"it is paused since {utc(pause.since)}, {_end_of(pause)}"
            hold = new_hold(
                situation,
                block_cause(name, BlockKind.PAUSE),
                since=pause.since,
                until=pause.until,
                gate=name,
                subject=gate_subject(name),
                why=why,
                reason=pause.reply,
            )
            yield _with_origin(hold, name, pause, "")


def _end_of(pause: GatePause) -> str:
    return "until it is resumed" if pause.until is None else f"until {utc(pause.until)}"


def _with_origin(hold: TouchHold, gate: str, pause: GatePause | None, detail: str) -> TouchHold:
    if pause is not None:
        detail = f"Gate {gate}: {pause.rule}: {pause.reply}."
    acts = hold.until is None or hold.cause is DelayCause.WARMUP_CAP
    return replace(
        hold,
        gate=gate,
        detail=detail,
        rule=pause.rule if pause else None,
        reply=pause.reply if pause else None,
        remedy=hold.remedy if acts else "",
    )


def describe_cap(gate: BlockingGate, caps: Mapping[str, WarmupCap], now: datetime) -> str:
    """Return a sentence on the warmup of a gate whose quota is used up. Empty: the gate is not one of a warmup."""
    if block_cause(gate.name, gate.kind) is not DelayCause.WARMUP_CAP:
        return ""
    current = caps.get(gate.name)
    if current is None:
        return f"Gate {gate.name} is of a warmup that the settings no longer have."
    name, zone = current.identity.name, current.identity.zone
    opening = f"{current.next_opening(now).astimezone(zone):%Y-%m-%d %H:%M} in {zone.key}"
    if current.cap.paused_until is not None and current.cap.paused_until > now:
        return f"The warmup of {name} is paused: mail may leave again at {opening}."
    if current.opens(now) > now:
        return f"The warmup of {name} sends only within its hours: they open at {opening}."
    return f"The warmup of {name} has sent its cap of today: the next day's begins at {opening}."

"""One job, looked up: where it is, what it waits behind, what happened to it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import msgspec
from msgspec import Struct, field

from postroad.queue.events import Event, events_of, events_of_history
from postroad.queue.gates import GateState, StoredGate
from postroad.queue.jobs import JobClass, JobState, Lane


class JobDetails(Struct, frozen=True, kw_only=True):
    """All that the queue knows of one id, at ``now_ms`` of the queue's clock.

    ``state`` None: it knows no such job. ``at_ms``: when a scheduled job is due, a lease ends, or since when
    a job is uncertain, dead or over. ``since_ms``: since when it could have been claimed. ``ahead``: ids in front
    of it in its lane, which is ``lane_depth`` long; None beyond a million. ``parked_on``: the gate its lane waits at.
    ``cancelled_for``: its group was cancelled, and it ends when it comes back. ``history``: the newest first.
    """

    id: str
    now_ms: int
    state: JobState | None
    lane: Lane | None
    gates: list[GateState]
    attempts: int
    claims: int
    at_ms: int | None
    since_ms: int
    expires_ms: int
    ahead: int | None
    lane_depth: int
    parked_on: str | None
    paused_since_ms: int | None
    cancelled_for: str | None
    worker: str | None
    marked: bool
    cause: str | None
    error: str | None
    payload: bytes
    history: list[Event]


class _Definition(Struct, frozen=True, array_like=True):
    name: str
    # An empty Lua table is an empty array in msgpack, and so is a tuple.
    gates: tuple[str, ...]
    job_class: JobClass
    weight: float
    group: str


class _Found(Struct, frozen=True):
    now_ms: float
    state: str
    lane: _Definition | None = None
    gates: list[StoredGate] = field(default_factory=list)
    attempts: int = 0
    closed: int = 0
    at_ms: float | None = None
    since_ms: float = 0
    expires_ms: float = 0
    ahead: int | None = None
    lane_depth: int = 0
    parked_on: str | None = None
    paused_since_ms: float | None = None
    doomed: str | None = None
    worker: str | None = None
    marked: bool = False
    cause: str | None = None
    error: str | None = None


def _history(id: str, entries: Iterable[list[bytes]], blocks: list[bytes], rows: list[bytes]) -> list[Event]:  # noqa: A002
    """The events of one id, the newest first."""
    told = [events_of(dict(zip(fields[::2], fields[1::2], strict=True))) for fields in entries]
    # What ended is an event and an entry of the history: one and the same.
    found = {event.uid: event for event in chain(events_of_history(blocks, rows), *told) if event.id == id}
    return sorted(found.values(), key=lambda event: (event.at_ms, event.token), reverse=True)


def read_found(id: str, reply: list[Any]) -> JobDetails:  # noqa: A002 - the field's word
    """What the script `find` returns."""
    head, payload, entries, blocks, rows = reply
    found = msgspec.msgpack.decode(head, type=_Found)
    return JobDetails(
        id=id,
        now_ms=int(found.now_ms),
        state=JobState(found.state) if found.state else None,
        lane=Lane(**msgspec.structs.asdict(found.lane)) if found.lane else None,
        gates=[gate.state() for gate in found.gates],
        attempts=found.attempts,
        claims=found.closed,
        at_ms=None if found.at_ms is None else int(found.at_ms),
        since_ms=int(found.since_ms),
        expires_ms=int(found.expires_ms),
        ahead=found.ahead,
        lane_depth=found.lane_depth,
        parked_on=found.parked_on,
        paused_since_ms=None if found.paused_since_ms is None else int(found.paused_since_ms),
        cancelled_for=found.doomed,
        worker=found.worker,
        marked=found.marked,
        cause=found.cause,
        error=found.error,
        payload=payload,
        history=_history(id, entries, blocks, rows),
    )

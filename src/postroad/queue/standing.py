"""How things stand: statistics, dead letters, jobs held as uncertain."""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

STEPS_BACK = "clock_steps_back"
STEPPED_BACK_MS = "clock_stepped_back_ms"
"""Counters: how often, and how far in all, the server's clock stepped back."""


class GroupLag(Struct, frozen=True, array_like=True):
    """One group of event consumers: read but not acknowledged, and not read yet."""

    name: str
    pending: int
    unread: int


class QueueStats(Struct, frozen=True, kw_only=True):
    """Counts by state; by class, what stands in lanes; counters since the queue began.

    ``groups``: of event consumers. ``paused_groups``: of lanes; their jobs count as queued.
    ``oldest_ready_ms``: how long the oldest job of a ready lane has been so (looks at 200 lanes a class).
    """

    queued: int
    scheduled: int
    in_flight: int
    uncertain: int
    dead: int
    remembered: int
    queued_by_class: dict[str, int]
    counters: dict[str, int]
    ready_lanes: int
    parked_lanes: int
    lanes: int
    oldest_ready_ms: int
    events: int
    groups: list[GroupLag]
    paused_groups: list[str]


class _States(Struct, frozen=True):
    queued: int
    scheduled: int
    in_flight: int
    uncertain: int
    dead: int
    remembered: int


class _Lanes(Struct, frozen=True):
    ready: int
    known: int
    housed: int


class _Stats(Struct, frozen=True):
    states: _States
    lanes: _Lanes
    oldest_ready_ms: int
    events: int
    # An empty Lua table is an empty array in msgpack, whatever it was meant to be.
    depth: dict[str, int] | list[int] = field(default_factory=dict)
    counters: dict[str, int] | list[int] = field(default_factory=dict)
    groups: list[GroupLag] = field(default_factory=list)
    paused_groups: list[str] = field(default_factory=list)


def read_stats(blob: bytes) -> QueueStats:
    stats = msgspec.msgpack.decode(blob, type=_Stats)
    return QueueStats(
        queued=stats.states.queued,
        scheduled=stats.states.scheduled,
        in_flight=stats.states.in_flight,
        uncertain=stats.states.uncertain,
        dead=stats.states.dead,
        remembered=stats.states.remembered,
        queued_by_class=stats.depth if isinstance(stats.depth, dict) else {},
        counters=stats.counters if isinstance(stats.counters, dict) else {},
        ready_lanes=stats.lanes.ready,
        parked_lanes=stats.lanes.housed - stats.lanes.ready,
        lanes=stats.lanes.known,
        oldest_ready_ms=stats.oldest_ready_ms,
        events=stats.events,
        groups=stats.groups,
        paused_groups=stats.paused_groups,
    )


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A job that will not be tried again unless somebody replays it. ``attempt``: how many were used."""

    id: str
    at_ms: int
    lane: str
    token: int
    attempt: int
    cause: str
    error: str
    payload: bytes


class _Letter(Struct, frozen=True, array_like=True):
    id: str
    at_ms: int
    lane: str
    token: int
    attempt: int
    cause: str
    error: str


def read_letters(reply: list[bytes]) -> list[DeadLetter]:
    letters = msgspec.msgpack.decode(reply[0], type=list[_Letter])
    return [
        DeadLetter(**msgspec.structs.asdict(letter), payload=payload)
        for letter, payload in zip(letters, reply[1:], strict=True)
    ]


class UncertainJob(Struct, frozen=True, array_like=True):
    """A job that was marked and whose outcome is not known: neither lost nor to be repeated unseen."""

    id: str
    token: int
    attempt: int
    since_ms: int
    lane: str
    worker: str
    claim: int


def read_uncertain(blob: bytes) -> list[UncertainJob]:
    return msgspec.msgpack.decode(blob, type=list[UncertainJob])

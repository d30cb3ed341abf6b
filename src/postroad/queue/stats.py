"""Statistics of a queue."""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

from postroad.queue.scripts import Scripts, ServerConnections
from postroad.queue.types import Retention

STEPS_BACK = "clock_steps_back"
STEPPED_BACK_MS = "clock_stepped_back_ms"
"""Counters: how often the server's clock stepped back, and how far in total."""


class GroupLag(Struct, frozen=True, array_like=True):
    """Lag of one group of event consumers. ``pending``: read and not acknowledged. ``unread``: not read."""

    name: str
    pending: int
    unread: int


class ServerUsage(Struct, frozen=True):
    """Memory and disk of the server that has the queue.

    ``memory_limit_bytes``: its ``maxmemory``, or the memory of its host if that is not set; 0: not known.
    ``persists``: whether its last write to the disk succeeded.
    """

    memory_used_bytes: int
    memory_limit_bytes: int
    persists: bool

    @property
    def memory_used_ratio(self) -> float | None:
        """Used share of the memory. None: not known."""
        return self.memory_used_bytes / self.memory_limit_bytes if self.memory_limit_bytes else None


class QueueStats(Struct, frozen=True, kw_only=True):
    """Counts by state. ``queued_by_class``: jobs in lanes. ``counters``: since the queue was created.

    ``groups``: of event consumers. ``paused_groups``: of lanes; their jobs count as queued. ``oldest_ready_ms``: age
    of the oldest job of a ready lane, in ms, among 200 lanes of each class.
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
    server: ServerUsage


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
    placed: int


class _Stats(Struct, frozen=True):
    states: _States
    lanes: _Lanes
    oldest_ready_ms: int
    events: int
    server: ServerUsage
    # An empty Lua table is encoded as an empty array.
    depth: dict[str, int] | list[int] = field(default_factory=dict)
    counters: dict[str, int] | list[int] = field(default_factory=dict)
    groups: list[GroupLag] = field(default_factory=list)
    paused_groups: list[str] = field(default_factory=list)


def read_stats(blob: bytes) -> QueueStats:
    """Decode the reply of the script ``stats``."""
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
        parked_lanes=stats.lanes.placed - stats.lanes.ready,
        lanes=stats.lanes.known,
        oldest_ready_ms=stats.oldest_ready_ms,
        events=stats.events,
        groups=stats.groups,
        paused_groups=stats.paused_groups,
        server=stats.server,
    )


class StatsOperations:
    """The methods of `Queue` for statistics. All raise UnavailableError if the server does not reply."""

    _connections: ServerConnections
    _scripts: Scripts
    _retention: Retention

    async def stats(self) -> QueueStats:
        """Return the statistics of the queue.

        Raises:
            UnavailableError: The server does not reply.
        """
        return read_stats(await self._scripts.stats())

    async def probe(self) -> QueueStats:
        """Return the statistics by a new connection, hence from the server that has the queue now.

        Raises:
            UnavailableError: The server does not reply.
        """
        connections = self._connections.clone()
        try:
            return read_stats(await connections.scripts.stats())
        finally:
            await connections.aclose()

    def events_backlogged(self, stats: QueueStats) -> bool:
        """Return whether no job is claimed, because too many events are not acknowledged.

        Args:
            stats: Statistics of this queue.
        """
        return bool(stats.groups) and stats.events >= self._retention.events

"""The event stream: what happened to jobs. Groups of consumers read it; it is trimmed after the slowest group."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, cast

import msgspec
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from postroad.errors import PostroadError, UnavailableError
from postroad.queue.redis.errors import LOST, unavailable
from postroad.queue.scripts import Scripts
from postroad.queue.types import Retention

MAX_BLOCK_MS = 30_000
DEAD_CONSUMER_MS = 60_000
"""Events that a consumer has read and not acknowledged for this time go to another consumer."""
ENTRIES = 32
"""Entries of one read. An entry contains the events of one script, at most a thousand."""
MAX_GROUP_RECREATIONS = 10
"""How often one read creates its group again, if the server is emptied repeatedly."""


class EventKind(StrEnum):
    """``RELEASED``: back in its lane without an attempt. ``LATE``: an outcome whose lease was lost."""

    DONE = "done"
    RETRY = "retry"
    DEFER = "defer"
    DEAD = "dead"
    UNCERTAIN = "uncertain"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    RELEASED = "released"
    REPLAYED = "replayed"
    LATE = "late"


class Event(Struct, frozen=True, kw_only=True):
    """One change of one job.

    ``uid`` is unique, so a consumer can detect an event that it gets twice. ``attempt``: number of the attempt.
    ``claim``: as of `ClaimedJob`; 0: the job ended without a claim. ``next_ms``: time of the next attempt; 0: none.
    ``entry``: id of its entry in the stream.
    """

    entry: str
    id: str
    token: int
    kind: EventKind
    at_ms: int
    attempt: int
    claim: int
    next_ms: int
    cause: str
    error: str
    note: bytes

    @property
    def uid(self) -> str:
        """Unique id: job, token and kind."""
        return f"{self.id}:{self.token}:{self.kind}"


class _Row(Struct, frozen=True, array_like=True):
    """One event as the scripts encode it (`lua/lib/events.lua`)."""

    kind: EventKind
    id: str
    token: int
    at_ms: int
    attempt: int
    claim: int
    next_ms: int
    cause: str
    error: str
    note_bytes: int


class DoneRow(Struct, frozen=True, array_like=True):
    """The event of one completed job, as a worker encodes it."""

    id: str
    token: int
    attempt: int
    claim: int
    note: bytes


_decode_row = msgspec.msgpack.Decoder(_Row).decode
_decode_rows = msgspec.msgpack.Decoder(list[_Row]).decode
_decode_indexes = msgspec.msgpack.Decoder(list[int]).decode
_decode_done = msgspec.msgpack.Decoder(list[DoneRow]).decode
_LOGGED = struct.Struct("<IdI")
"""Header of a block of the history: number of events, at_ms, bytes of the indexes that are stale."""


def _event(row: _Row, entry: str = "", note: bytes = b"") -> Event:
    return Event(
        entry=entry,
        id=row.id,
        token=row.token,
        kind=row.kind,
        at_ms=row.at_ms,
        attempt=row.attempt,
        claim=row.claim,
        next_ms=row.next_ms,
        cause=row.cause,
        error=row.error,
        note=note,
    )


def _done_events(block: bytes, stale: bytes, at_ms: int, entry: str = "") -> Iterator[Event]:
    indexes = _decode_indexes(stale) if stale else ()
    for index, row in enumerate(_decode_done(block)):
        if index not in indexes:
            yield Event(
                entry=entry,
                id=row.id,
                token=row.token,
                kind=EventKind.DONE,
                at_ms=at_ms,
                attempt=row.attempt,
                claim=row.claim,
                next_ms=0,
                cause="",
                error="",
                note=row.note,
            )


def events_of(fields: Mapping[bytes, bytes], entry: str = "") -> Iterator[Event]:
    """Decode the events of one entry of the stream."""
    if b"d" in fields:
        yield from _done_events(fields[b"d"], fields.get(b"s", b""), int(fields[b"a"]), entry)
    if b"e" in fields:
        notes, start = fields[b"n"], 0
        for row in _decode_rows(fields[b"e"]):
            yield _event(row, entry, notes[start : start + row.note_bytes])
            start += row.note_bytes


def events_of_history(blocks: Iterable[bytes], rows: Iterable[bytes]) -> Iterator[Event]:
    """Decode the events of the history. Only those of completed jobs have notes."""
    for block in blocks:
        _, at_ms, stale_bytes = _LOGGED.unpack_from(block)
        start = _LOGGED.size + stale_bytes
        yield from _done_events(block[start:], block[_LOGGED.size : start], int(at_ms))
    for row in rows:
        yield _event(_decode_row(row))


class _Entry(NamedTuple):
    id: str
    events: list[Event]


def _entries(reply: Iterable[Any]) -> list[_Entry]:
    # An entry that was trimmed while it was pending comes without fields.
    return [_Entry(id_.decode(), list(events_of(fields, id_.decode()))) for id_, fields in reply if fields]


class EventLog:
    """Reads one stream. Its client must have no timeout: reads block on the server.

    An entry contains many events. Excess events are kept for the next read. An entry is acknowledged once all its
    events are.
    """

    def __init__(self, client: Redis, stream: str) -> None:
        self._client = client
        self._stream = stream
        self._resume_from: dict[tuple[str, str], str | None] = {}
        self._takeover_s: dict[str, float] = {}
        self._unread: dict[tuple[str, str], list[Event]] = {}
        self._acknowledged: dict[tuple[str, str], set[str]] = {}  # of group and entry, the uids

    async def read(self, group: str, consumer: str, *, count: int, block_ms: int, idle_ms: int) -> list[Event]:
        """Return up to ``count`` events, see `EventOperations.read_events`."""
        events = self._unread.pop((group, consumer), [])
        if not events:
            try:
                events = await self._fetch(group, consumer, count, min(block_ms, MAX_BLOCK_MS), idle_ms)
            except LOST as error:
                self.read_again(group)
                raise unavailable(error) from error
        if events[count:]:
            self._unread[group, consumer] = events[count:]
        return events[:count]

    def read_again(self, group: str) -> None:
        """Forget the state of a group after a failed call. The next read starts with unacknowledged events."""
        for state in (self._resume_from, self._unread, self._acknowledged):
            for key in [key for key in state if key[0] == group]:
                del state[key]

    def acknowledge(self, group: str, events: Sequence[Event]) -> list[str]:
        """Note that events are recorded. Returns the entries whose events are all recorded."""
        complete = []
        for event in events:
            of_entry = self._acknowledged.setdefault((group, event.entry), set())
            of_entry.add(event.uid)
            # The number after the dash is the number of events of the entry.
            if len(of_entry) >= int(event.entry.partition("-")[2]):
                del self._acknowledged[group, event.entry]
                complete.append(event.entry)
        return complete

    async def _create(self, group: str) -> None:
        try:
            await self._client.xgroup_create(self._stream, group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _fetch(self, group: str, consumer: str, count: int, block_ms: int, idle_ms: int) -> list[Event]:
        for _ in range(MAX_GROUP_RECREATIONS):
            try:
                return await self._next(group, consumer, count, block_ms, idle_ms)
            except ResponseError as error:
                # UNBLOCKED: the stream was deleted during a blocking read.
                if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                    raise
                await self._create(group)
        raise UnavailableError(
            f"{self._stream} is deleted repeatedly", remedy="Find the process that empties the server."
        )

    async def _next(self, group: str, consumer: str, count: int, block_ms: int, idle_ms: int) -> list[Event]:
        # A consumer that starts again first gets the events that it had read and not acknowledged.
        while self._resume_from.get((group, consumer), "0") is not None:
            if events := await self._gather(group, consumer, count, None):
                return events
        if abandoned := await self._take_over(group, consumer, min(count, ENTRIES), idle_ms):
            return abandoned
        return await self._gather(group, consumer, count, block_ms or None)

    async def _gather(self, group: str, consumer: str, count: int, block_ms: int | None) -> list[Event]:
        """Read entries until they contain ``count`` events. The size of the first one predicts their number."""
        events: list[Event] = []
        read, wanted = 0, 1
        while True:
            after = self._resume_from.get((group, consumer), "0")
            entries = await self._read_group(group, consumer, after or ">", wanted, block_ms)
            if after is not None:
                self._resume_from[group, consumer] = entries[-1].id if entries else None
            events += [event for entry in entries for event in entry.events]
            read += len(entries)
            if len(entries) < wanted or len(events) >= count:
                return events
            block_ms = None
            wanted = min(math.ceil((count - len(events)) * read / len(events)), ENTRIES)

    async def _read_group(
        self, group: str, consumer: str, after: str, at_most: int, block_ms: int | None
    ) -> list[_Entry]:
        # The client waits longer than the server: a lost server differs from an idle stream.
        async with asyncio.timeout(10 + (block_ms or 0) / 1000):
            reply = await self._client.xreadgroup(group, consumer, {self._stream: after}, count=at_most, block=block_ms)
        streams = cast("list[tuple[bytes, list[Any]]]", reply)
        return _entries(streams[0][1]) if streams else []

    async def _take_over(self, group: str, consumer: str, at_most: int, idle_ms: int) -> list[Event]:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._takeover_s.get(group, -math.inf) + idle_ms / 4000:
            return []
        async with asyncio.timeout(10):
            reply = await self._client.xautoclaim(self._stream, group, consumer, idle_ms, count=at_most)
        events = [event for entry in _entries(reply[1]) for event in entry.events]
        if not events:
            self._takeover_s[group] = now_s
        return events


class EventOperations:
    """The methods of `Queue` for events. All raise UnavailableError if the server does not reply."""

    _scripts: Scripts
    _log: EventLog
    _retention: Retention

    async def record_late_outcome(self, id: str, token: int, note: bytes) -> None:  # noqa: A002 - the field's word
        """Append the outcome of a job whose lease was lost, as an event of kind LATE.

        Args:
            id: Id of the job.
            token: Token of the lost lease.
            note: Opaque data of the outcome.

        Raises:
            UnavailableError: The server does not reply.
        """
        await self._scripts.report_late(id, token, note)

    async def read_events(
        self, group: str, consumer: str, *, count: int, block_ms: int, idle_ms: int = DEAD_CONSUMER_MS
    ) -> list[Event]:
        """Read the next events of a group. A new group starts at the begin of the stream.

        First come the events that this consumer has read and not acknowledged, then those that another consumer has not
        acknowledged for ``idle_ms``, then new ones.

        Args:
            group: Name of the group.
            consumer: Name of the consumer, unique in the group.
            count: Maximum number of events.
            block_ms: Time to wait for an event, in ms, at most 30,000. 0: none.
            idle_ms: Time after which events of another consumer are taken over, in ms.

        Returns:
            Events in the order of the stream. Empty if the time is over.

        Raises:
            UnavailableError: The server does not reply.
        """
        return await self._log.read(group, consumer, count=count, block_ms=block_ms, idle_ms=idle_ms)

    async def acknowledge(self, group: str, events: Sequence[Event], *, forget: Sequence[str] = ()) -> None:
        """Acknowledge events that are recorded.

        Args:
            group: Name of the group.
            events: Events that it has read.
            forget: Ids of ended jobs that the queue need not remember.

        Raises:
            UnavailableError: The server does not reply.
            PostroadError: The server rejects the call. After either error the events are read again.
        """
        entries = msgspec.msgpack.encode(self._log.acknowledge(group, events))
        try:
            await self._scripts.acknowledge(group, entries, msgspec.msgpack.encode(forget), self._retention.consumer_ms)
        except PostroadError:
            self._log.read_again(group)
            raise

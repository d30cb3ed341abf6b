"""The event stream: what happened to jobs, read by groups of consumers, trimmed behind the slowest group."""

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

from postroad.errors import UnavailableError
from postroad.queue.redis.errors import LOST, unavailable

MAX_BLOCK_MS = 30_000
DEAD_CONSUMER_MS = 60_000
"""Events that a consumer has read and not acknowledged for this long go to another one."""
ENTRIES = 32
"""Entries of the stream in one read; each holds the events of one script, a thousand at the most."""
MAX_GROUP_RECREATIONS = 10
"""How often a read makes its group anew, where somebody empties the server again and again."""


class EventKind(StrEnum):
    """``RELEASED``: back in its lane untried. ``LATE``: an outcome that settled stale."""

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
    """One thing that happened to one job.

    ``uid`` never repeats, so recording the same event twice can be distinguished from recording two. ``attempt``
    counts this one, ``claim`` is that of `ClaimedJob` (0: it ended without one). ``next_ms``: when the job is
    tried again, 0 if not. ``entry``: its place in the stream.
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
        return f"{self.id}:{self.token}:{self.kind}"


class _Row(Struct, frozen=True, array_like=True):
    """One event as the scripts pack it (`lua/lib/events.lua`)."""

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
    """One event of a job that ended well, as a worker packs it."""

    id: str
    token: int
    attempt: int
    claim: int
    note: bytes


_decode_row = msgspec.msgpack.Decoder(_Row).decode
_decode_rows = msgspec.msgpack.Decoder(list[_Row]).decode
_decode_places = msgspec.msgpack.Decoder(list[int]).decode
_decode_done = msgspec.msgpack.Decoder(list[DoneRow]).decode
_LOGGED = struct.Struct("<IdI")
"""What stands before a block of the history: events in it, at_ms, octets of the places that are stale."""


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
    places = _decode_places(stale) if stale else ()
    for place, row in enumerate(_decode_done(block)):
        if place not in places:
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
    """The events that one entry of the stream holds."""
    if b"d" in fields:
        yield from _done_events(fields[b"d"], fields.get(b"s", b""), int(fields[b"a"]), entry)
    if b"e" in fields:
        notes, start = fields[b"n"], 0
        for row in _decode_rows(fields[b"e"]):
            yield _event(row, entry, notes[start : start + row.note_bytes])
            start += row.note_bytes


def events_of_history(blocks: Iterable[bytes], rows: Iterable[bytes]) -> Iterator[Event]:
    """The events that the history holds; only of jobs that ended well with their notes."""
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
    """Reads one queue's stream. Its client must have no reply timeout: reads block on the server.

    An entry of the stream holds many events. Those beyond what was asked for are kept for the next read, and an entry
    is acknowledged when all of its events are.
    """

    def __init__(self, client: Redis, stream: str) -> None:
        self._client = client
        self._stream = stream
        self._resume_from: dict[tuple[str, str], str | None] = {}
        self._looked_s: dict[str, float] = {}
        self._unread: dict[tuple[str, str], list[Event]] = {}
        self._acknowledged: dict[tuple[str, str], set[str]] = {}  # of group and entry, the uids

    async def read(self, group: str, consumer: str, *, count: int, block_ms: int, idle_ms: int) -> list[Event]:
        """Return up to ``count`` events."""
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
        """After a call that got no answer: what it read, or did not acknowledge, is read first."""
        for of_group in (self._resume_from, self._unread, self._acknowledged):
            for known in [key for key in of_group if key[0] == group]:
                del of_group[known]

    def acknowledge(self, group: str, events: Sequence[Event]) -> list[str]:
        """Note that these are recorded. Returns the entries of which nothing is missing any more."""
        whole = []
        for event in events:
            of_entry = self._acknowledged.setdefault((group, event.entry), set())
            of_entry.add(event.uid)
            # The number behind the dash says how many events the entry holds.
            if len(of_entry) >= int(event.entry.partition("-")[2]):
                del self._acknowledged[group, event.entry]
                whole.append(event.entry)
        return whole

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
                # The second is for who waited for events when the stream went away.
                if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                    raise
                await self._create(group)
        raise UnavailableError(f"{self._stream} goes away again and again", remedy="Does somebody empty the server?")

    async def _next(self, group: str, consumer: str, count: int, block_ms: int, idle_ms: int) -> list[Event]:
        # A consumer that starts anew first gets what it had read and not acknowledged before it died.
        while self._resume_from.get((group, consumer), "0") is not None:
            if events := await self._gather(group, consumer, count, None):
                return events
        if abandoned := await self._take_over(group, consumer, min(count, ENTRIES), idle_ms):
            return abandoned
        return await self._gather(group, consumer, count, block_ms or None)

    async def _gather(self, group: str, consumer: str, count: int, block_ms: int | None) -> list[Event]:
        """Read entries until they hold ``count`` events; the first one says how many that is likely to take."""
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
        # The client waits longer than the server, so that a silent server is distinguished from an idle stream.
        async with asyncio.timeout(10 + (block_ms or 0) / 1000):
            reply = await self._client.xreadgroup(group, consumer, {self._stream: after}, count=at_most, block=block_ms)
        streams = cast("list[tuple[bytes, list[Any]]]", reply)
        return _entries(streams[0][1]) if streams else []

    async def _take_over(self, group: str, consumer: str, at_most: int, idle_ms: int) -> list[Event]:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._looked_s.get(group, -math.inf) + idle_ms / 4000:
            return []
        async with asyncio.timeout(10):
            reply = await self._client.xautoclaim(self._stream, group, consumer, idle_ms, count=at_most)
        events = [event for entry in _entries(reply[1]) for event in entry.events]
        if not events:
            self._looked_s[group] = now_s
        return events

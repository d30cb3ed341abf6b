"""The event stream: what happened to jobs, read by groups of consumers, trimmed behind the slowest group."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, cast

import msgspec
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from postroad.queue.scripts import LOST, unavailable

MAX_BLOCK_MS = 30_000
DEAD_CONSUMER_MS = 60_000
"""Events that a consumer has read and not acknowledged for this long go to another one."""


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

    ``uid`` never repeats, so recording the same event twice can be told from recording two. ``attempt``
    counts this one, ``claim`` is that of `Claimed` (0: it ended without one). ``next_ms``: when the job is
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


class _Head(Struct, frozen=True, array_like=True):
    kind: EventKind
    id: str
    token: int
    at_ms: int
    attempt: int
    claim: int
    next_ms: int
    cause: str
    error: str


_decode_head = msgspec.msgpack.Decoder(_Head).decode


def _event(entry: bytes, fields: dict[bytes, bytes]) -> Event:
    return event_of(fields[b"e"], entry.decode(), fields[b"n"])


def event_of(packed: bytes, entry: str = "", note: bytes = b"") -> Event:
    head = _decode_head(packed)
    return Event(
        entry=entry,
        id=head.id,
        token=head.token,
        kind=head.kind,
        at_ms=head.at_ms,
        attempt=head.attempt,
        claim=head.claim,
        next_ms=head.next_ms,
        cause=head.cause,
        error=head.error,
        note=note,
    )


def _events(entries: Iterable[Any]) -> list[Event]:
    # An entry that was trimmed while it was pending comes without fields.
    return [_event(entry, fields) for entry, fields in entries if fields]


class EventLog:
    """Reads one queue's stream. Its client must have no reply timeout: reads block on the server."""

    def __init__(self, client: Redis, stream: str) -> None:
        self._client = client
        self._stream = stream
        self._resume_from: dict[tuple[str, str], str | None] = {}
        self._looked_s: dict[str, float] = {}

    async def read(self, group: str, consumer: str, *, count: int, block_ms: int, idle_ms: int) -> list[Event]:
        try:
            try:
                return await self._read(group, consumer, count, min(block_ms, MAX_BLOCK_MS), idle_ms)
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                await self._create(group)
                return await self._read(group, consumer, count, min(block_ms, MAX_BLOCK_MS), idle_ms)
        except LOST as error:
            self.begin_again()
            raise unavailable(error) from error

    def begin_again(self) -> None:
        """Read first what was read and not acknowledged, as after a start: who knows what the server made of it."""
        self._resume_from.clear()

    async def _create(self, group: str) -> None:
        try:
            await self._client.xgroup_create(self._stream, group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _read(self, group: str, consumer: str, count: int, block_ms: int, idle_ms: int) -> list[Event]:
        # A consumer that starts anew first gets what it had read and not acknowledged before it died.
        after = self._resume_from.get((group, consumer), "0")
        if after is not None:
            pending = await self._read_group(group, consumer, after, count, None)
            self._resume_from[group, consumer] = pending[-1].entry if pending else None
            if pending:
                return pending
        abandoned = await self._take_over(group, consumer, count, idle_ms)
        return abandoned or await self._read_group(group, consumer, ">", count, block_ms or None)

    async def _read_group(self, group: str, consumer: str, after: str, count: int, block_ms: int | None) -> list[Event]:
        # The client waits longer than the server, so that a silent server is told from a quiet stream.
        async with asyncio.timeout(10 + (block_ms or 0) / 1000):
            reply = await self._client.xreadgroup(group, consumer, {self._stream: after}, count=count, block=block_ms)
        streams = cast("list[tuple[bytes, list[Any]]]", reply)
        return _events(streams[0][1]) if streams else []

    async def _take_over(self, group: str, consumer: str, count: int, idle_ms: int) -> list[Event]:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._looked_s.get(group, -math.inf) + idle_ms / 4000:
            return []
        async with asyncio.timeout(10):
            reply = await self._client.xautoclaim(self._stream, group, consumer, idle_ms, count=count)
        events = _events(reply[1])
        if not events:
            self._looked_s[group] = now_s
        return events

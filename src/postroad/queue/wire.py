"""How jobs travel to the scripts, in bounded steps, and come back from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from postroad.queue.jobs import Batch, Claimed, Job, Settled

MAX_JOBS = 1000
MAX_BYTES = 4_000_000
"""Jobs and bytes per script: what blocks the server for some milliseconds, not for seconds."""


class _Row(Struct, frozen=True, array_like=True):
    id: str
    token: int
    attempt: int
    claim: int
    expires_ms: int
    lane: str
    closed: tuple[int, ...]


class _Reply(Struct, frozen=True, array_like=True):
    stale: list[str]
    next_ms: int
    rows: list[_Row]
    events_full: bool
    more: bool


_decode_reply = msgspec.msgpack.Decoder(_Reply).decode


def read_settled(reply: list[bytes]) -> Settled:
    """What the scripts `claim` and `settle` return."""
    head = _decode_reply(reply[0])
    jobs = [
        Claimed(row.id, row.token, row.attempt, row.claim, payload, row.expires_ms, row.lane, row.closed)
        for row, payload in zip(head.rows, reply[1:], strict=True)
    ]
    return Settled(head.stale, Batch(jobs, head.next_ms or None, head.events_full, head.more))


def chunks_of(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    chunk: list[Job] = []
    size_bytes = 0
    for job in jobs:
        if chunk and (len(chunk) == MAX_JOBS or size_bytes + len(job.payload) > MAX_BYTES):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(job)
        size_bytes += len(job.payload)
    if chunk:
        yield chunk

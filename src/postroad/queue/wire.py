"""How jobs travel to the scripts, in bounded steps, and come back from them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from postroad.queue.jobs import Batch, ClaimedJob, Job, SettleResult
from postroad.queue.verdicts import Done

_pack = msgspec.msgpack.encode
_NONE_DONE = (_pack(((), ())), b"")

MAX_JOBS = 1000
MAX_BYTES = 4_000_000
"""Jobs and bytes per script: what blocks the server for some milliseconds, not for seconds."""


_HEADER = struct.Struct("<IIIdd")
"""What stands before a payload: lane, attempts used, claims closed, expires_ms, since_ms; then the tokens of the last
closed claims. `lua/lib/base.lua` packs it."""
_TOKENS_KEPT = 8


class _Reply(Struct, frozen=True, array_like=True):
    stale: list[str]
    next_ms: int
    ids: list[str]
    token: int
    lanes: list[tuple[int, str]]
    events_full: bool
    more: bool


_decode_reply = msgspec.msgpack.Decoder(_Reply).decode


def read_settled(reply: list[bytes]) -> SettleResult:
    """What the scripts `claim` and `settle` return."""
    head = _decode_reply(reply[0])
    lanes = dict(head.lanes)
    token, unpack, size = head.token, _HEADER.unpack_from, _HEADER.size
    jobs = []
    for id_, record in zip(head.ids, reply[1:], strict=True):
        lane, attempts, closed, expires_ms, _ = unpack(record)
        if closed:
            tokens, payload = _closed_tokens(record, closed)
        else:
            tokens, payload = (), record[size:]
        jobs.append(ClaimedJob(id_, token, attempts + 1, closed + 1, payload, int(expires_ms), lanes[lane], tokens))
    return SettleResult(head.stale, Batch(jobs, head.next_ms or None, head.events_full, head.more))


def _closed_tokens(record: bytes, closed: int) -> tuple[tuple[int, ...], bytes]:
    """Tokens of the claims that a record remembers, and its payload."""
    tokens = struct.Struct(f"<{min(closed, _TOKENS_KEPT)}d")
    return tuple(map(int, tokens.unpack_from(record, _HEADER.size))), record[_HEADER.size + tokens.size :]


def done_of(settled: Sequence[tuple[ClaimedJob, Done]]) -> tuple[bytes, bytes]:
    """Jobs that ended well as the script `settle` takes them: their ids and tokens, and the block of their events."""
    if not settled:
        return _NONE_DONE
    ids, tokens, rows = [], [], []
    for job, verdict in settled:
        ids.append(job.id)
        tokens.append(job.token)
        rows.append((job.id, job.token, job.attempt, job.claim, verdict.note))
    return _pack((ids, tokens)), _pack(rows)


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

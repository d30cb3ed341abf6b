"""Encodes calls of the scripts and decodes their replies."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple, assert_never

import msgspec
from msgspec import Struct

from postroad.queue.types import (
    Batch,
    Cancel,
    ClaimedJob,
    Dead,
    Defer,
    Done,
    Job,
    Release,
    Retry,
    RetryPolicy,
    SettleResult,
    Uncertain,
    Undone,
)

_pack = msgspec.msgpack.encode
_NONE_DONE = (_pack(((), ())), b"")

MAX_JOBS = 1000
MAX_BYTES = 4_000_000
"""Jobs and bytes of one call: they block the server for some milliseconds, not for seconds."""

MAX_TEXT = 2000
"""Characters of a cause or an error that are stored."""

_HEADER = struct.Struct("<IIIdd")
"""Header of a record: lane, attempts used, claims closed, expires_ms, since_ms. The tokens of the last closed claims
and the payload follow. `lua/lib/base.lua` packs it."""
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
    """Decode the reply of the scripts ``claim`` and ``settle``."""
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
    """Return the tokens of the closed claims of a record, and its payload."""
    tokens = struct.Struct(f"<{min(closed, _TOKENS_KEPT)}d")
    return tuple(map(int, tokens.unpack_from(record, _HEADER.size))), record[_HEADER.size + tokens.size :]


class DoneJobs(NamedTuple):
    """Completed jobs for the script ``settle``. ``done``: their ids and tokens. ``block``: their events."""

    done: bytes
    block: bytes


def done_of(settled: Sequence[tuple[ClaimedJob, Done]]) -> DoneJobs:
    """Encode completed jobs for the script ``settle``."""
    if not settled:
        return DoneJobs(*_NONE_DONE)
    ids, tokens, rows = [], [], []
    for job, verdict in settled:
        ids.append(job.id)
        tokens.append(job.token)
        rows.append((job.id, job.token, job.attempt, job.claim, verdict.note))
    return DoneJobs(_pack((ids, tokens)), _pack(rows))


def chunks_of(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Split jobs into chunks for one call each: at most MAX_JOBS and about MAX_BYTES."""
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


class SettleCommand(Struct, frozen=True, array_like=True):
    """Any verdict but `Done`, encoded for the script ``settle``. ``at_ms`` 0: ``delay_ms`` after the server's time."""

    id: str
    token: int
    verdict: str
    at_ms: int = 0
    delay_ms: int = 0
    cause: str = ""
    error: str = ""


def to_command(job: ClaimedJob, verdict: Undone, policy: RetryPolicy, rng: Random) -> SettleCommand:
    """Convert a verdict to a command. A delay is relative to the server's clock, so that no client clock is trusted.

    Args:
        job: The claimed job.
        verdict: Any verdict but `Done`.
        policy: Number of attempts and their delays.
        rng: Spreads delays.

    Returns:
        The command, as the script reads it.
    """
    match verdict:
        case Retry() if job.attempt >= policy.attempts:
            return SettleCommand(
                job.id, job.token, "dead", cause=_storable(verdict.cause), error=_storable(verdict.error)
            )
        case Retry() if verdict.at_ms is None:
            delay_ms = policy.delay_ms(job.attempt, rng)
            return SettleCommand(
                job.id, job.token, "retry", 0, delay_ms, _storable(verdict.cause), _storable(verdict.error)
            )
        case Retry():
            at_ms = max(verdict.at_ms or 0, 1)
            return SettleCommand(
                job.id, job.token, "retry", at_ms, 0, _storable(verdict.cause), _storable(verdict.error)
            )
        case Defer():
            return SettleCommand(
                job.id,
                job.token,
                "delay" if verdict.untried else "defer",
                0 if verdict.at_ms is None else max(verdict.at_ms, 1),
                verdict.delay_ms,
                _storable(verdict.cause),
                _storable(verdict.error),
            )
        case Dead():
            return SettleCommand(
                job.id, job.token, "dead", cause=_storable(verdict.cause), error=_storable(verdict.error)
            )
        case Uncertain():
            return SettleCommand(job.id, job.token, "uncertain", cause=_storable(verdict.cause))
        case Cancel():
            return SettleCommand(job.id, job.token, "cancelled", cause=_storable(verdict.cause))
        case Release():
            return SettleCommand(job.id, job.token, "release")
        case _:
            assert_never(verdict)


def _storable(text: str) -> str:
    """Truncate a text, and replace the lone surrogates of a reply that was decoded with `surrogateescape`."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()

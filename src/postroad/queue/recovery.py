"""Jobs that need a decision: dead letters and uncertain jobs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from postroad.queue.codec import MAX_JOBS
from postroad.queue.scripts import Scripts


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A job that is not tried again unless it is replayed. ``attempt``: attempts that were used."""

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
    """Decode the reply of the script ``dead_letters``."""
    letters = msgspec.msgpack.decode(reply[0], type=list[_Letter])
    return [
        DeadLetter(**msgspec.structs.asdict(letter), payload=payload)
        for letter, payload in zip(letters, reply[1:], strict=True)
    ]


class UncertainJob(Struct, frozen=True, array_like=True):
    """A marked job whose outcome is not known. It is held until `Queue.resolve`."""

    id: str
    token: int
    attempt: int
    since_ms: int
    lane: str
    worker: str
    claim: int


def read_uncertain(blob: bytes) -> list[UncertainJob]:
    """Decode the reply of the script ``uncertain``."""
    return msgspec.msgpack.decode(blob, type=list[UncertainJob])


class RecoveryOperations:
    """The methods of `Queue` for dead letters and uncertain jobs. All raise UnavailableError."""

    _scripts: Scripts

    async def dead_letters(self, *, count: int, cursor: int = 0) -> tuple[list[DeadLetter], int | None]:
        """Return one page of dead letters, newest first.

        Args:
            count: Size of the page.
            cursor: Cursor of the page. 0: the first.

        Returns:
            The letters, and the cursor of the next page. None: this is the last one.

        Raises:
            UnavailableError: The server does not reply.
        """
        letters = read_letters(await self._scripts.dead_letters(cursor, count))
        return letters, cursor + count if len(letters) == count else None

    async def replay(self, ids: Sequence[str] | None = None, *, cause: str | None = None) -> int:
        """Return dead letters to their lanes. Their attempts start again. Without arguments: all.

        Args:
            ids: Ids of dead letters. Others are ignored.
            cause: Only letters with this cause.

        Returns:
            Number of replayed jobs.

        Raises:
            UnavailableError: The server does not reply.
        """
        return await self._process_dead_letters("replay", ids, cause)

    async def drop(self, ids: Sequence[str] | None = None, *, cause: str | None = None) -> int:
        """Delete dead letters. Their ids stay remembered. Without arguments: all.

        Args:
            ids: Ids of dead letters. Others are ignored.
            cause: Only letters with this cause.

        Returns:
            Number of deleted jobs.

        Raises:
            UnavailableError: The server does not reply.
        """
        return await self._process_dead_letters("drop", ids, cause)

    async def _process_dead_letters(self, action: str, ids: Sequence[str] | None, cause: str | None) -> int:
        encode = msgspec.msgpack.encode
        total = 0
        if ids is not None:
            for start in range(0, len(ids), MAX_JOBS):
                chunk = encode(ids[start : start + MAX_JOBS])
                total += (await self._scripts.replay_or_drop(action, cause or "", 0, MAX_JOBS, chunk))[1]
            return total
        kept, processed = 0, MAX_JOBS
        while processed == MAX_JOBS:
            processed, moved = await self._scripts.replay_or_drop(action, cause or "", kept, MAX_JOBS, encode([]))
            kept += processed - moved
            total += moved
        return total

    async def uncertain(self, limit: int = 1000) -> list[UncertainJob]:
        """Return uncertain jobs, oldest first.

        Args:
            limit: Maximum number of jobs.

        Raises:
            UnavailableError: The server does not reply.
        """
        return read_uncertain(await self._scripts.uncertain(limit, ""))

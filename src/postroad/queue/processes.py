"""Heartbeats of the processes of a queue. Each process sends one every few seconds."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol
from uuid import uuid4

import msgspec
from msgspec import Struct

from postroad.errors import PostroadError
from postroad.queue.scripts import Scripts

logger = logging.getLogger(__name__)

BEAT_S = 4.0
"""Interval between two heartbeats."""

ALIVE_MS = 20_000
"""A process with an older heartbeat is not alive: it was killed, stopped, or cannot reach the server."""

FORGET_MS = 3_600_000
"""Time for which a process is listed after its last heartbeat."""

MAX_PROCESSES = 1000
LEAVE_S = 2.0


class Beat(Struct, frozen=True, kw_only=True):
    """The heartbeat of a process. ``started_ms``: ms since the epoch, by the clock of its machine."""

    id: str
    role: str
    name: str
    host: str
    pid: int
    version: str
    started_ms: int


class Process(Beat, frozen=True, kw_only=True):
    """A process of a queue. ``beat_age_ms``: time since its last heartbeat, by the queue's clock."""

    queue: str
    beat_age_ms: int

    @property
    def alive(self) -> bool:
        """Whether its last heartbeat is recent."""
        return self.beat_age_ms < ALIVE_MS


def this_process(role: str, name: str = "") -> Beat:
    """Return the heartbeat of this process.

    Args:
        role: What the process does, as in ``worker``.
        name: Its name in logs. Empty: made from host and process id.
    """
    host, pid = socket.gethostname(), os.getpid()
    return Beat(
        id=uuid4().hex,
        role=role,
        name=name or f"{host}-{pid}",
        host=host,
        pid=pid,
        version=_version(),
        started_ms=time.time_ns() // 1_000_000,
    )


def _version() -> str:
    try:
        return version("postroad")
    except PackageNotFoundError:
        return "unknown"


def read_processes(queue: str, reply: Sequence[bytes]) -> list[Process]:
    """Decode the reply of the script ``processes``."""
    ages = msgspec.msgpack.decode(reply[0], type=list[float])
    found: list[Process] = []
    for age_ms, record in zip(ages, reply[1:], strict=True):
        with suppress(msgspec.MsgspecError):  # Another version wrote it, during a rollout.
            beat = msgspec.msgpack.decode(record, type=Beat)
            found.append(Process(queue=queue, beat_age_ms=int(age_ms), **msgspec.structs.asdict(beat)))
    return found


class _Registry(Protocol):
    """The part of `Queue` that heartbeats need."""

    async def beat(self, beat: Beat) -> None: ...

    async def leave(self, id: str) -> None: ...  # noqa: A002 - the field's word


@asynccontextmanager
async def beating(open_queue: Callable[[], Awaitable[_Registry]], beat: Beat) -> AsyncIterator[None]:
    """Send heartbeats while this is open, and leave at its end. A failed heartbeat is repeated after the interval.

    Args:
        open_queue: Opens the queue, or returns it if it is open.
        beat: The heartbeat.
    """
    task = asyncio.create_task(_beat(open_queue, beat))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with suppress(PostroadError, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await (await open_queue()).leave(beat.id)


async def _beat(open_queue: Callable[[], Awaitable[_Registry]], beat: Beat) -> None:
    while True:
        try:
            await (await open_queue()).beat(beat)
        except PostroadError as error:
            logger.debug("no heartbeat: %s", error)
        await asyncio.sleep(BEAT_S)


class ProcessOperations:
    """The methods of `Queue` for processes. All raise UnavailableError if the server does not reply."""

    name: str
    _scripts: Scripts

    async def beat(self, beat: Beat) -> None:
        """Store a heartbeat.

        Args:
            beat: Heartbeat of a process.

        Raises:
            UnavailableError: The server does not reply.
        """
        await self._scripts.beat(beat.id, msgspec.msgpack.encode(beat), FORGET_MS, MAX_PROCESSES)

    async def leave(self, id: str) -> None:  # noqa: A002 - the field's word
        """Delete a process that ended as requested.

        Args:
            id: Id of its heartbeat.

        Raises:
            UnavailableError: The server does not reply.
        """
        await self._scripts.beat(id, b"", FORGET_MS, MAX_PROCESSES)

    async def processes(self) -> list[Process]:
        """Return the processes with a heartbeat in the last hour, the latest first.

        Raises:
            UnavailableError: The server does not reply.
        """
        return read_processes(self.name, await self._scripts.processes(MAX_PROCESSES))

"""Which processes work with a queue, and which of them are alive: each beats every few seconds."""

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

logger = logging.getLogger(__name__)

BEAT_S = 4.0
"""Interval between two beats of a process."""

ALIVE_MS = 20_000
"""A process whose last beat is older is gone: it was killed, stopped, or does not reach the server."""

FORGET_MS = 3_600_000
"""A process that is gone is shown for so long."""

MAX_PROCESSES = 1000
LEAVE_S = 2.0


class Beat(Struct, frozen=True, kw_only=True):
    """What a process writes about itself. ``started_ms``: since the epoch, by its machine's clock."""

    id: str
    role: str
    name: str
    host: str
    pid: int
    version: str
    started_ms: int


class Process(Beat, frozen=True, kw_only=True):
    """A process as its queue knows it. ``beat_age_ms``: time since its last beat, by the queue's clock."""

    queue: str
    beat_age_ms: int

    @property
    def alive(self) -> bool:
        """Whether it has beaten lately."""
        return self.beat_age_ms < ALIVE_MS


def this_process(role: str, name: str = "") -> Beat:
    """Return the beat of this process in a role; ``name`` as it is called in logs."""
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
    """Read the reply of the script ``processes``."""
    ages = msgspec.msgpack.decode(reply[0], type=list[float])
    found: list[Process] = []
    for age_ms, record in zip(ages, reply[1:], strict=True):
        with suppress(msgspec.MsgspecError):  # Of another version, while a rollout is under way.
            beat = msgspec.msgpack.decode(record, type=Beat)
            found.append(Process(queue=queue, beat_age_ms=int(age_ms), **msgspec.structs.asdict(beat)))
    return found


class _Registry(Protocol):
    """The part of `Queue` that beats need."""

    async def beat(self, beat: Beat) -> None: ...

    async def leave(self, id: str) -> None: ...  # noqa: A002 - the field's word


@asynccontextmanager
async def beating(open_queue: Callable[[], Awaitable[_Registry]], beat: Beat) -> AsyncIterator[None]:
    """Beat for as long as this is open, and leave at its end. A server that is away is tried again at the next beat."""
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
            logger.debug("no beat: %s", error)
        await asyncio.sleep(BEAT_S)

"""The queue's server, and its faults."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from pathlib import Path

from redis.exceptions import RedisError

from postroad.embedded import server_binary
from postroad.queue.redis.client import connect
from tests.conftest import RedisServer

LOST_S = 1.0
"""Duration of the last writes that `appendfsync everysec` may lose in a power failure."""

SAMPLE_S = 0.05


class Fsync(StrEnum):
    ALWAYS = "always"
    EVERYSEC = "everysec"


class ServerKind(StrEnum):
    VALKEY = "valkey"
    REDIS = "redis"


def binary_of(kind: ServerKind) -> Path | None:
    """Return the server's program. None: not installed."""
    if kind is ServerKind.VALKEY:
        return server_binary()
    found = shutil.which("redis-server")
    return Path(found) if found else None


class Server(RedisServer):
    """A server that is killed and started, frozen and resumed, or loses writes that were not synced."""

    def __init__(self, binary: Path, folder: Path, fsync: Fsync) -> None:
        super().__init__(binary, folder)
        self._fsync = fsync
        self._sizes: deque[tuple[float, Path, int]] = deque()
        self.killed_at_ms: list[int] = []

    @classmethod
    @asynccontextmanager
    async def running(cls, binary: Path, folder: Path, fsync: Fsync) -> AsyncIterator[Server]:
        server = cls(binary, folder, fsync)
        await asyncio.to_thread(server.start)
        watch = asyncio.create_task(server._watch_log())
        try:
            yield server
        finally:
            watch.cancel()
            server.thaw()
            server.kill()

    def start(self, *options: str) -> None:
        super().start(*(options or ("--appendonly", "yes", "--appendfsync", self._fsync)))

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill_hard(self) -> None:
        """Send SIGKILL. Written data survive, because the kernel has them."""
        self.killed_at_ms.append(time.time_ns() // 1_000_000)
        self.kill(signal.SIGKILL)

    async def synced(self) -> None:
        """Return once a power failure would not lose the current writes."""
        await asyncio.sleep(LOST_S + 2 * SAMPLE_S)

    def cut_power(self) -> int:
        """Send SIGKILL, and remove what was appended in the last second. Returns the number of bytes."""
        until_s = time.monotonic() - LOST_S
        self.kill_hard()
        now = self._log_file()
        kept = [size for at_s, path, size in self._sizes if path == now and at_s <= until_s]
        if now is None or not kept:
            return 0  # The file is less than a second old, and its rewrite was synced.
        lost = now.stat().st_size - kept[-1]
        os.truncate(now, kept[-1])
        return lost

    def _signal(self, number: signal.Signals) -> None:
        assert self._process
        if self._process.poll() is None:
            self._process.send_signal(number)

    def _log_file(self) -> Path | None:
        files = list((self.folder / "appendonlydir").glob("*.incr.aof"))
        return max(files, key=lambda path: int(path.name.split(".")[-3]), default=None)

    async def _watch_log(self) -> None:
        while True:
            path = self._log_file()
            if path is not None:
                self._sizes.append((time.monotonic(), path, path.stat().st_size))
            while self._sizes and self._sizes[0][0] < time.monotonic() - 10 * LOST_S:
                self._sizes.popleft()
            await asyncio.sleep(SAMPLE_S)


async def tell(server: Server, *words: str) -> object:
    """Send one command, and return the reply. None: the server rejects it or is unavailable."""
    client = connect(server.url)
    try:
        # A rewrite may be in progress, and a command that kills connections may kill its own.
        with suppress(RedisError):
            answer: object = await client.execute_command(*words)
            return answer
    finally:
        await client.aclose()
    return None


async def version_of(server: Server) -> str:
    client = connect(server.url)
    try:
        info = await client.info("server")
    finally:
        await client.aclose()
    name = "valkey" if "valkey_version" in info else "redis"
    return f"{name} {info[f'{name}_version']}"

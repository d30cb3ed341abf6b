"""The one server that all contestants of a run share, with the settings of production."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from postroad.embedded import MALLOC, server_binary

SETTINGS = "--appendonly yes --appendfsync everysec --maxmemory-policy noeviction"
"""As `postroad.embedded` starts it. Over TCP, because not every peer can use a unix socket."""

SETTLE_S = 0.2


class Server:
    """A running server. CPU time and memory are what it says of itself."""

    def __init__(self, url: str, client: Redis) -> None:
        self.url = url
        self.client = client

    async def version(self) -> str:
        info = await self._info("server")
        name = "Valkey" if "valkey_version" in info else "Redis"
        return f"{name} {info.get('valkey_version', info['redis_version'])}"

    async def cpu_s(self) -> float:
        """CPU time of the server process since its start, all threads, user and system."""
        info = await self._info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    async def memory_bytes(self) -> int:
        """Return the used memory, once it is stable (growing tables are rehashed in steps)."""
        last, now = -1, int((await self._info("memory"))["used_memory"])
        while abs(now - last) > 512:
            await asyncio.sleep(SETTLE_S)
            last, now = now, int((await self._info("memory"))["used_memory"])
        return now

    async def empty(self) -> None:
        """Delete all data, including the append-only file, so that contestants do not affect each other."""
        await cast("Any", self.client.flushall(asynchronous=False))
        await cast("Any", self.client.bgrewriteaof())
        while True:
            info = await self._info("persistence")
            if not int(info["aof_rewrite_in_progress"]) and not int(info["aof_rewrite_scheduled"]):
                return
            await asyncio.sleep(0.01)

    async def _info(self, section: str) -> dict[str, Any]:
        return await self.client.info(section)


@asynccontextmanager
async def running() -> AsyncIterator[Server]:
    """Start a server in a temporary folder. It stops with the context."""
    with tempfile.TemporaryDirectory(prefix="postroad-bench-") as folder:
        port = _free_port()
        arguments = f"--bind 127.0.0.1 --port {port} --dir {folder} --logfile {folder}/log {SETTINGS}".split()
        arguments += ["--save", ""]
        process = await asyncio.create_subprocess_exec(server_binary(), *arguments, env=MALLOC | os.environ)
        client = Redis(host="127.0.0.1", port=port, protocol=2, socket_timeout=60)
        try:
            await _wait_ready(client, process)
            yield Server(f"redis://127.0.0.1:{port}/0", client)
        finally:
            await client.aclose()
            if process.returncode is None:
                process.kill()
            await process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def _wait_ready(client: Redis, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await cast("Any", client.ping())
                return
            except RedisConnectionError:
                if process.returncode is not None:
                    raise RuntimeError(f"The server ended with {process.returncode} at its start.") from None
                await asyncio.sleep(0.02)

"""One method per Lua script, with its arguments in the order of the script's header."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable
from functools import cache, partial
from importlib.resources import files
from typing import Any, cast

from redis.exceptions import NoScriptError, OutOfMemoryError

from postroad.clock import Clock
from postroad.errors import UnavailableError
from postroad.queue.codec import DoneJobs
from postroad.queue.redis.client import Client, connect
from postroad.queue.redis.errors import LOST, REPLY_S, unavailable
from postroad.queue.types import RetentionBounds

Ran = Callable[[str, float], None]
"""Called with the name of each script that ran, and its duration in seconds."""

_USES = re.compile(r"^-- uses +(.+)$", re.MULTILINE)


@cache
def source_of(name: str) -> str:
    """Return the text of a script, after the pieces of `lib/` that its header names."""
    folder = files("postroad.queue").joinpath("lua")
    script = folder.joinpath(f"{name}.lua").read_text("utf-8")
    uses = _USES.search(script)
    pieces = uses.group(1).split() if uses else []
    return "\n".join([*(folder.joinpath("lib", f"{piece}.lua").read_text("utf-8") for piece in pieces), script])


@cache
def _sha_of(name: str) -> str:
    return hashlib.sha1(source_of(name).encode(), usedforsecurity=False).hexdigest()


class Scripts:
    """Runs scripts on one queue. It never repeats a call: only the caller knows whether it may.

    Every method raises UnavailableError, and ConfigError for an error that a retry cannot fix.
    """

    def __init__(
        self, client: Client, base: str, clock: Clock | None, ran: Ran | None = None, replicas: int = 0
    ) -> None:
        self._client = client
        self._base = base
        self._clock = clock
        self._ran = ran
        self._replicas = replicas

    async def _run(self, name: str, *args: str | bytes | int) -> Any:
        now_ms = "" if self._clock is None else str(self._clock.now_ms())
        began_s = time.perf_counter()
        try:
            async with asyncio.timeout(REPLY_S):
                return await self._call(name, now_ms, *args)
        except LOST as error:
            raise unavailable(error) from error
        except OutOfMemoryError as error:
            raise UnavailableError(
                "The queue's Redis server is full and takes no more.", remedy="Raise its maxmemory."
            ) from error
        finally:
            if self._ran:
                self._ran(name, time.perf_counter() - began_s)

    async def _call(self, name: str, *args: str | bytes | int) -> Any:
        # Callers act on these two once they return: a job is accepted, and an act is allowed.
        replicas = self._replicas if name in {"enqueue", "mark"} else 0
        try:
            return await self._send(replicas, "EVALSHA", _sha_of(name), 1, self._base, *args)
        except NoScriptError:
            # After a restart or a failover the script cache is empty. EVAL fills it.
            return await self._send(replicas, "EVAL", source_of(name), 1, self._base, *args)

    async def _send(self, replicas: int, *command: str | bytes | int) -> Any:
        if replicas:
            return await self._client.execute_and_wait(replicas, *command)
        return await self._client.execute_command(*command)

    async def enqueue(self, definition: bytes, times: bytes, *jobs: str | bytes) -> int:
        return int(await self._run("enqueue", definition, times, *jobs))

    async def promote(self, limit: int, remember_ms: int) -> int:
        return int(await self._run("promote", limit, remember_ms))

    async def claim(
        self,
        worker: str,
        nonce: str,
        want: int,
        lease_ms: int,
        bounds: RetentionBounds,
    ) -> list[bytes]:
        reply = await self._run("claim", worker, nonce, want, lease_ms, *bounds)
        return cast("list[bytes]", reply)

    async def mark(self, leases: bytes) -> list[int]:
        return cast("list[int]", await self._run("mark", leases))

    async def extend(self, leases: bytes, lease_ms: int) -> list[int]:
        return cast("list[int]", await self._run("extend", leases, lease_ms))

    async def settle(
        self,
        worker: str,
        nonce: str,
        want: int,
        lease_ms: int,
        bounds: RetentionBounds,
        done: DoneJobs,
        commands: bytes,
        *notes: bytes,
    ) -> list[bytes]:
        reply = await self._run("settle", worker, nonce, want, lease_ms, *bounds, *done, commands, *notes)
        return cast("list[bytes]", reply)

    async def reap(self, limit: int) -> list[int]:
        return cast("list[int]", await self._run("reap", limit))

    async def update_gate(self, name: str, changes: bytes) -> None:
        await self._run("update_gate", name, changes)

    async def pause_gate(self, name: str, until_ms: int) -> None:
        await self._run("pause_gate", name, until_ms)

    async def pause_group(self, group: str, after: int, limit: int) -> int:
        return int(await self._run("pause_group", group, after, limit))

    async def resume_group(self, group: str, limit: int) -> int:
        return int(await self._run("resume_group", group, limit))

    async def cancel_group(self, group: str, cause: str, upto: int, limit: int) -> int:
        return int(await self._run("cancel_group", group, cause, upto, limit))

    async def cancel_step(self, limit: int, after: int) -> list[int]:
        return cast("list[int]", await self._run("cancel_step", limit, after))

    async def cancel(self, cause: str, *ids: str) -> int:
        return int(await self._run("cancel", cause, *ids))

    async def reschedule(self, due_ms: int, *ids: str) -> list[int]:
        return cast("list[int]", await self._run("reschedule", due_ms, *ids))

    async def report_late(self, id: str, token: int, note: bytes) -> None:  # noqa: A002 - the field's word
        await self._run("report_late", id, token, note)

    async def acknowledge(self, group: str, entries: bytes, ids: bytes, gone_ms: int) -> int:
        return int(await self._run("acknowledge", group, entries, ids, gone_ms))

    async def states(self, ids: bytes) -> list[bytes]:
        return cast("list[bytes]", await self._run("states", ids))

    async def find(self, id: str) -> list[Any]:  # noqa: A002 - the field's word
        return cast("list[Any]", await self._run("find", id))

    async def gates(self, cursor: bytes, limit: int) -> list[bytes]:
        return cast("list[bytes]", await self._run("gates", cursor, limit))

    async def uncertain(self, limit: int, id: str) -> bytes:  # noqa: A002 - the field's word
        return cast("bytes", await self._run("uncertain", limit, id))

    async def dead_letters(self, offset: int, limit: int) -> list[bytes]:
        return cast("list[bytes]", await self._run("dead_letters", offset, limit))

    async def replay_or_drop(self, action: str, cause: str, after: int, limit: int, ids: bytes) -> list[int]:
        return cast("list[int]", await self._run("replay_or_drop", action, cause, after, limit, ids))

    async def beat(self, id: str, record: bytes, forget_ms: int, kept: int) -> None:  # noqa: A002 - the field's word
        await self._run("beat", id, record, forget_ms, kept)

    async def processes(self, limit: int) -> list[bytes]:
        return cast("list[bytes]", await self._run("processes", limit))

    async def stats(self) -> bytes:
        return cast("bytes", await self._run("stats"))

    async def audit(self, part: str, subject: str | bytes, cursor: str, limit: int) -> bytes:
        return cast("bytes", await self._run("audit", part, subject, cursor, limit))


class ServerConnections:
    """A client for scripts, and one for reads that block on the server."""

    def __init__(self, url: str, base: str, clock: Clock | None, ran: Ran | None, replicas: int = 0) -> None:
        self.client = connect(url, base)
        self.blocking = connect(url, base)
        self.scripts = Scripts(self.client, base, clock, ran, replicas)
        self.clone = partial(ServerConnections, url, base, clock, ran, replicas)
        """Opens the same connections again."""

    async def drop(self) -> None:
        """Close every connection, also those in use. The next call opens a new one."""
        for client in (self.client, self.blocking):
            await client.connection_pool.disconnect(inuse_connections=True)

    async def aclose(self) -> None:
        """Close both clients."""
        await self.client.aclose()
        await self.blocking.aclose()

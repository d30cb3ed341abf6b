"""Health of a process: whether its event loop runs, and whether it can use its database and its queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from http import HTTPStatus

import msgspec
import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.errors import PostroadError, UnavailableError
from postroad.monitor_server import PathReply
from postroad.queue import Queue
from postroad.store import migrate
from postroad.store.engine import read

log = logging.getLogger(__name__)

CHECK_WITHIN_S = 2.0
"""Deadline of each check. They run at the same time."""

OK = "ok"
UNAVAILABLE = "unavailable"


class Dependency(StrEnum):
    """What a process depends on."""

    DATABASE = "database"
    SCHEMA = "schema"
    REDIS = "redis"


WITHOUT_REDIS = frozenset({Dependency.DATABASE, Dependency.SCHEMA})
"""What the web endpoints and the console require. Both work without the queue, so a proxy continues to use them."""


class ProcessState(StrEnum):
    """State of a process between its start and its end."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


DependencyCheck = Callable[[], Awaitable[str]]
"""Return `OK`, or the problem in words without a name, an address or a secret."""


class Readiness:
    """Checks the dependencies of a process on request.

    A check that does not end is not started a second time: later requests wait for the same one, each until its
    deadline. So an unavailable server occupies one thread, however often the process is asked.
    """

    def __init__(
        self,
        checks: Mapping[Dependency, DependencyCheck],
        required: frozenset[Dependency],
        stop: asyncio.Event,
        within_s: float = CHECK_WITHIN_S,
    ) -> None:
        """Store the checks.

        Args:
            checks: Check of each dependency.
            required: Dependencies without which the process is not ready. The others are only reported.
            stop: Is set when the process is asked to stop.
            within_s: Deadline of each check, in seconds.
        """
        self.running = False
        """Whether the process does its work. It is set at the end of the start."""
        self._checks = checks
        self._required = required
        self._stop = stop
        self._within_s = within_s
        self._tasks: dict[Dependency, asyncio.Task[str]] = {}

    @property
    def state(self) -> ProcessState:
        """State of the process."""
        if self._stop.is_set():
            return ProcessState.STOPPING
        return ProcessState.RUNNING if self.running else ProcessState.STARTING

    async def live_reply(self) -> PathReply:
        """Return the response of /livez. That it is sent shows that the event loop runs."""
        return _reply(HTTPStatus.OK, {"state": self.state})

    async def ready_reply(self) -> PathReply:
        """Return the response of /readyz: 200, or 503 if the process cannot work."""
        found = await self.results()
        ready = self.state is ProcessState.RUNNING and all(found[name.value] == OK for name in self._required)
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _reply(status, {"ready": ready, "state": self.state, **found})

    async def results(self) -> dict[str, str]:
        """Check each dependency, and return `OK` or the problem by its name."""
        results = await asyncio.gather(*(self._result(name) for name in self._checks))
        return {name.value: result for name, result in zip(self._checks, results, strict=True)}

    async def _result(self, dependency: Dependency) -> str:
        task = self._tasks.get(dependency)
        if task is None or task.done():
            task = self._tasks[dependency] = asyncio.create_task(_run(self._checks[dependency]))
        await asyncio.wait({task}, timeout=self._within_s)
        return task.result() if task.done() else f"no answer within {self._within_s:g} s"

    async def close(self) -> None:
        """Cancel the running checks."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


async def _run(check: DependencyCheck) -> str:
    try:
        return await check()
    except UnavailableError as error:
        log.debug("not ready: %s", error)
        return UNAVAILABLE
    except PostroadError as error:
        log.warning("not ready: %s", error)
        return "not usable; the log has the reason"


def _reply(status: HTTPStatus, body: object) -> PathReply:
    return PathReply(status, "application/json", msgspec.json.encode(body) + b"\n")


def readiness_of(
    context: AppContext,
    open_queue: Callable[[], Awaitable[Queue]],
    required: frozenset[Dependency],
    stop: asyncio.Event,
) -> Readiness:
    """Return the readiness of a process.

    Args:
        context: The open parts.
        open_queue: Opens the queue that the process uses, or returns it if it is open.
        required: Dependencies without which the process is not ready.
        stop: Is set when the process is asked to stop.
    """

    async def redis() -> str:
        await (await open_queue()).processes()
        return OK

    return Readiness(
        {
            Dependency.DATABASE: lambda: asyncio.to_thread(_check_database, context.engine),
            Dependency.SCHEMA: lambda: asyncio.to_thread(_check_schema, context.engine),
            Dependency.REDIS: redis,
        },
        required,
        stop,
    )


def _check_database(engine: sa.Engine) -> str:
    with read(engine) as connection:
        connection.execute(sa.text("SELECT 1"))
    return OK


def _check_schema(engine: sa.Engine) -> str:
    revision = migrate.current_revision(engine)
    if migrate.serves(revision):
        return OK
    return f"at revision {revision or 'none'}, and this version needs {migrate.newest_revision()}"

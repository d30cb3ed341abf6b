"""Probes and their results, and how probes run concurrently without blocking each other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from postroad.errors import PostroadError
from postroad.queue import Health

DEADLINE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """The health of one part."""

    part: str
    health: Health
    seen: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A probe of one part. ``run`` may raise or hang: `run_probes` turns both into a failed check."""

    part: str
    run: Callable[[], Awaitable[Sequence[Check]]]
    deadline_s: float = DEADLINE_S
    remedy: str = ""
    """Remedy if there is no answer in time."""


def failed(part: str, error: PostroadError) -> Check:
    """Return the failed check of a part that raised a PostroadError."""
    where = f"{error.where}: " if error.where else ""
    return Check(part=part, health=Health.FAIL, seen=f"{where}{error.message}", remedy=error.remedy or "")


async def run_probes(probes: Sequence[Probe]) -> list[Check]:
    """Run probes concurrently and return their checks in the order of the probes."""
    asyncio.get_running_loop().set_default_executor(_AbandonableThreads())
    results = await asyncio.gather(*(_run(probe) for probe in probes))
    return [check for checks in results for check in checks]


async def _run(probe: Probe) -> Sequence[Check]:
    deadline = asyncio.timeout(probe.deadline_s)
    try:
        async with deadline:
            return await probe.run()
    except PostroadError as error:
        return [failed(probe.part, error)]
    except Exception as error:  # An unexpected error is a result, too, so that other checks are not affected.
        if deadline.expired():
            seen = f"did not answer in {probe.deadline_s:g} s"
            return [Check(part=probe.part, health=Health.FAIL, seen=seen, remedy=probe.remedy)]
        seen = f"could not be checked: {type(error).__name__}: {error}"
        return [Check(part=probe.part, health=Health.FAIL, seen=seen)]


class _AbandonableThreads(ThreadPoolExecutor):
    """Runs each call of `asyncio.to_thread` in a separate daemon thread.

    A call that never returns ends with the process. The executor of the standard library would be joined at exit.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=run, name="doctor", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Return at once, without waiting for threads."""

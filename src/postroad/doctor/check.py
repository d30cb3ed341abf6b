"""What a check is, what it finds, and how many of them run at the same time without waiting for each other."""

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
    """One part, and how it is."""

    part: str
    health: Health
    seen: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One look at one part. ``look`` may raise or hang: `run_probes` turns both into a failed check."""

    part: str
    look: Callable[[], Awaitable[Sequence[Check]]]
    deadline_s: float = DEADLINE_S
    remedy: str = ""
    """What to do when it does not answer in time."""


def failed(part: str, error: PostroadError) -> Check:
    """Return the failed check of a part that raised an error of ours."""
    where = f"{error.where}: " if error.where else ""
    return Check(part=part, health=Health.FAIL, seen=f"{where}{error.message}", remedy=error.remedy or "")


async def run_probes(probes: Sequence[Probe]) -> list[Check]:
    """Run probes concurrently. Returns their checks in the order of the probes; it takes as long as the slowest."""
    asyncio.get_running_loop().set_default_executor(_AbandonableThreads())
    found = await asyncio.gather(*(_run(probe) for probe in probes))
    return [check for checks in found for check in checks]


async def _run(probe: Probe) -> Sequence[Check]:
    deadline = asyncio.timeout(probe.deadline_s)
    try:
        async with deadline:
            return await probe.look()
    except PostroadError as error:
        return [failed(probe.part, error)]
    except Exception as error:  # A check that breaks is a finding, and the others still count.
        if deadline.expired():
            seen = f"did not answer in {probe.deadline_s:g} s"
            return [Check(part=probe.part, health=Health.FAIL, seen=seen, remedy=probe.remedy)]
        seen = f"could not be checked: {type(error).__name__}: {error}"
        return [Check(part=probe.part, health=Health.FAIL, seen=seen)]


class _AbandonableThreads(ThreadPoolExecutor):
    """One daemon thread for each call of `asyncio.to_thread`.

    A call that never returns ends with the process. The pool of the standard library is joined at exit instead.
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
        """Return at once: no thread is waited for."""

"""What the program of every contestant does: say what it is, enqueue, work.

Standard library only, because it runs in each peer's own environment.

    describe                     one line of JSON: versions, settings, and where these are recommended
    enqueue URL WARM JOBS BYTES  enqueue WARM + JOBS jobs; one line of JSON: the seconds that JOBS took
    work URL                     write "ready", wait for a line, then work until killed, and write
                                 "COUNT NANOSECONDS CPU" whenever COUNT has grown: CLOCK_MONOTONIC, and the CPU
                                 time of the process and its children, user and system, in nanoseconds
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

TELL_S = 0.01
"""How often a worker tells its count."""

CHUNK = 1000
"""Jobs per bulk call, or calls on their way at once where there is no bulk call."""

Put = Callable[[Sequence[str]], Awaitable[None]]


class Tally:
    """Jobs handled by this process, in whatever thread."""

    def __init__(self) -> None:
        # Unlike `+= 1`, an extension is one step for every thread of the interpreter.
        self._handled: list[None] = []

    def add(self, count: int = 1) -> None:
        self._handled.extend([None] * count)

    @property
    def count(self) -> int:
        return len(self._handled)

    def tell_forever(self) -> None:
        reported = 0
        while True:
            time.sleep(TELL_S)
            count = self.count
            if count != reported:
                reported = count
                print(count, time.monotonic_ns(), cpu_ns(), flush=True)


def cpu_ns() -> int:
    """CPU time of this process, user and system, and of its children where the system tells of them."""
    ticks = 0
    for thread in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # A thread ends, and so does a child.
            for pid in (thread / "children").read_text().split():
                user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
                ticks += int(user) + int(system)
    return time.process_time_ns() + ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """``producer`` opens a way to put payloads; ``work`` handles jobs until it is cancelled or killed.

    ``enqueue`` and ``worker`` say with which settings; ``source`` is where these come from.
    """

    packages: tuple[str, ...]
    enqueue: str
    worker: str
    source: str
    producer: Callable[[str], AbstractAsyncContextManager[Put]]
    work: Callable[[str, Tally], Awaitable[None]]
    run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    """On what event loop it works."""


def chunks(payloads: Sequence[str]) -> list[Sequence[str]]:
    return [payloads[start : start + CHUNK] for start in range(0, len(payloads), CHUNK)]


def run(contestant: Contestant) -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["describe"]:
            versions = {package: version(package) for package in contestant.packages}
            settings = {"enqueue": contestant.enqueue, "worker": contestant.worker, "source": contestant.source}
            print(json.dumps({"versions": versions, **settings}))
        case ["enqueue", url, warm, jobs, size]:
            seconds = asyncio.run(_enqueue(contestant, url, int(warm), int(jobs), int(size)))
            print(json.dumps({"seconds": seconds}))
        case ["work", url]:
            contestant.run(_work(contestant, url))
        case _:
            sys.exit(__doc__)


async def _enqueue(contestant: Contestant, url: str, warm: int, jobs: int, size: int) -> float:
    payloads = [f"{n:0{size}}" for n in range(warm + jobs)]
    async with contestant.producer(url) as put:
        await put(payloads[:warm])
        start_s = time.perf_counter()
        await put(payloads[warm:])
        return time.perf_counter() - start_s


async def _work(contestant: Contestant, url: str) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    tally = Tally()
    threading.Thread(target=tally.tell_forever, daemon=True).start()
    await contestant.work(url, tally)
    # Some libraries work in threads of their own and return.
    await asyncio.Event().wait()

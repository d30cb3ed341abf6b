"""The contestants: their programs, run each in its own environment, with a limit on every step's time."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from msgspec import Struct

ROOT = Path(__file__).parent.parent
ENVS = ROOT / "benchmarks/peers/.envs"

STEP_S = 90.0
"""For a step that ends by itself, and for starting."""

SILENT_S = 15.0
"""A worker that has jobs and handles none for so long hangs."""

OURS = "postroad"
NODE = "BullMQ (Node)"
PYTHON_BULLMQ = "BullMQ (Python)"
PEERS = {
    NODE: "bullmq",
    PYTHON_BULLMQ: "bullmq_python",
    "saq": "saq",
    "arq": "arq",
    "streaQ": "streaq",
    "taskiq": "taskiq",
    "Dramatiq": "dramatiq",
    "Celery": "celery",
}


class DidNotRun(Exception):  # noqa: N818 - a fact about a peer, reported and not raised to the user
    """Why a contestant has no figure."""


class Settings(Struct, frozen=True):
    versions: dict[str, str]
    enqueue: str
    worker: str
    source: str


class Progress(NamedTuple):
    """Number of jobs that a worker had handled at a time of the monotonic clock, which is common to all processes.

    ``cpu_ns``: CPU time of its process until then.
    """

    at_ns: int
    worker: int
    handled: int
    cpu_ns: int


class Pace(NamedTuple):
    """Jobs/s of all workers together, and the CPU time of their processes per job, user and system."""

    jobs_per_s: float
    cpu_us: float


class Contestant(NamedTuple):
    name: str
    command: tuple[str, ...]
    environment: dict[str, str]

    async def describe(self) -> Settings:
        return Settings(**json.loads(await self.say("describe")))

    async def enqueue(self, url: str, *, warm: int, jobs: int, payload_bytes: int) -> float:
        """Enqueue ``warm + jobs`` jobs; return the seconds that the last ``jobs`` of them took."""
        said = await self.say("enqueue", url, str(warm), str(jobs), str(payload_bytes))
        return float(json.loads(said)["seconds"])

    async def work(self, url: str, *, warm: int, jobs: int, workers: int) -> Pace:
        """Let so many processes handle ``warm + jobs`` queued jobs. Returns the throughput after the first ``warm``."""
        with tempfile.TemporaryFile() as errors:
            async with AsyncExitStack() as stack:
                processes = [
                    await stack.enter_async_context(self._started(errors, "work", url)) for _ in range(workers)
                ]
                try:
                    reports = await _count(processes, warm + jobs)
                except DidNotRun as reason:
                    raise DidNotRun(f"{reason}{last_words(errors)}") from None
        return pace_after(reports, warm)

    async def say(self, *arguments: str, limit_s: float = STEP_S) -> str:
        """Run the program to its end, and return the last line that it wrote."""
        with tempfile.TemporaryFile() as errors:
            async with self._started(errors, *arguments) as process:
                try:
                    async with asyncio.timeout(limit_s):
                        said, _ = await process.communicate()
                except TimeoutError:
                    raise DidNotRun(f"{arguments[0]} took more than {limit_s:.0f} s") from None
            if process.returncode or not said:
                raise DidNotRun(f"{arguments[0]} failed{last_words(errors)}")
        return said.decode().strip().splitlines()[-1]

    @asynccontextmanager
    async def _started(self, errors: IO[bytes], *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *self.command,
            *arguments,
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            # With all its children, and at once: some of them take long over their farewell.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def ours() -> Contestant:
    return Contestant(OURS, (sys.executable, "-m", "benchmarks.ours"), {})


def peer(name: str) -> Contestant:
    """`DidNotRun`: it is not installed."""
    folder = ENVS / PEERS[name]
    if not folder.is_dir():
        raise DidNotRun("not installed; `make bench-peers` does it")
    if name == NODE:
        node = shutil.which("node")
        if node is None:
            raise DidNotRun("node is not on the PATH")
        program = str(ROOT / "benchmarks/peers/bullmq/peer.cjs")
        return Contestant(name, (node, program), {"NODE_PATH": str(folder / "node_modules")})
    return Contestant(name, (str(folder / "bin/python"), "-m", f"benchmarks.peers.{PEERS[name]}.peer"), {})


def pace_after(reports: Sequence[Progress], warm: int) -> Pace:
    """Return the throughput of all workers, from the time at which ``warm`` jobs were handled to the last job."""
    latest: dict[int, Progress] = {}
    series = []
    for one in sorted(reports):
        latest[one.worker] = one
        all_ = latest.values()
        series.append((one.at_ns, sum(each.handled for each in all_), sum(each.cpu_ns for each in all_)))
    from_ns, warm_handled, cpu_warm_ns = next(each for each in series if each[1] >= warm)
    to_ns, total, cpu_ns = series[-1]
    if to_ns == from_ns:
        raise DidNotRun(f"{total} jobs are too few to measure")
    jobs = total - warm_handled
    return Pace(jobs / ((to_ns - from_ns) / 1e9), (cpu_ns - cpu_warm_ns) / 1e3 / jobs)


async def _count(processes: Sequence[asyncio.subprocess.Process], jobs: int) -> list[Progress]:
    reports: list[Progress] = []
    counts = [0] * len(processes)
    news = asyncio.Event()

    async def listen(worker: int, output: asyncio.StreamReader) -> None:
        async for line in output:
            match line.split():
                case [count, at_ns, cpu_ns] if count.isdigit() and at_ns.isdigit() and cpu_ns.isdigit():
                    reports.append(Progress(int(at_ns), worker, int(count), int(cpu_ns)))
                    counts[worker] = int(count)
                    news.set()

    outputs = [output for process in processes if (output := process.stdout)]
    await _start_together(processes, outputs)
    listeners = [asyncio.create_task(listen(worker, output)) for worker, output in enumerate(outputs)]
    try:
        while sum(counts) < jobs:
            news.clear()
            try:
                async with asyncio.timeout(SILENT_S):
                    await news.wait()
            except TimeoutError:
                raise DidNotRun(f"hangs: no job for {SILENT_S:.0f} s after {sum(counts)} of {jobs}") from None
    finally:
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
    # What was handled last is settled before the worker is killed.
    await asyncio.sleep(0.2)
    return reports


async def _start_together(
    processes: Sequence[asyncio.subprocess.Process], outputs: Sequence[asyncio.StreamReader]
) -> None:
    try:
        async with asyncio.timeout(STEP_S):
            for output in outputs:
                while (line := await output.readline()) != b"ready\n":
                    if not line:
                        raise DidNotRun("its worker does not start")
    except TimeoutError:
        raise DidNotRun(f"its worker did not start within {STEP_S:.0f} s") from None
    for process in processes:
        if process.stdin:
            process.stdin.write(b"go\n")
            with suppress(ConnectionError):
                await process.stdin.drain()


def last_words(errors: IO[bytes]) -> str:
    """Return the last line that a program wrote, after a colon."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return f": {lines[-1][:200]}" if lines else ""

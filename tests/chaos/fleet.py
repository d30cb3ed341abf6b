"""Worker processes that are killed and replaced, frozen and resumed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from multiprocessing.context import ForkServerProcess

from tests.chaos.steps import Fate, PlannedCrash
from tests.chaos.work import REFUSED, Job, work

POLL_S = 0.02
BEYOND_LEASE = 1.5
"""A worker stays frozen for this many leases."""

_processes = multiprocessing.get_context("forkserver")


class Fleet:
    """Keeps a number of workers alive. Each starts with its planned crash, except the first."""

    def __init__(self, job: Job, crashes: Iterator[PlannedCrash]) -> None:
        self._job = job
        self._crashes = crashes
        self._alive: dict[int, ForkServerProcess] = {}
        self._slots: list[asyncio.Task[None]] = []
        self._thaws: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.started = 0
        self.deaths: Counter[str] = Counter()
        """Fates by step, from the journal."""
        self.refused = 0
        self.broken: list[int] = []
        """Unexpected exit codes."""

    @classmethod
    @asynccontextmanager
    async def running(cls, job: Job, crashes: Iterator[PlannedCrash], workers: int) -> AsyncIterator[Fleet]:
        _processes.set_forkserver_preload(["tests.chaos.work"])
        job.journal.touch()
        fleet = cls(job, crashes)
        journal = asyncio.create_task(fleet._read_journal())
        fleet._slots = [asyncio.create_task(fleet._keep(slot)) for slot in range(workers)]
        try:
            yield fleet
        finally:
            for task in (*fleet._slots, *fleet._thaws, journal):
                task.cancel()
            await asyncio.gather(*fleet._slots, *fleet._thaws, journal, return_exceptions=True)
            for process in fleet._alive.values():
                process.kill()
                process.join()

    def kill(self, target: int) -> None:
        self._send(target, signal.SIGKILL)

    def stop(self, target: int) -> None:
        self._send(target, signal.SIGTERM)

    def freeze(self, target: int) -> None:
        if pid := self._send(target, signal.SIGSTOP):
            self._thaw_later(pid)

    async def heal(self) -> None:
        """Stop the crashes: replace every worker by one without a planned crash."""
        self._crashes = iter(())
        await asyncio.gather(*self._thaws)
        for process in list(self._alive.values()):
            process.kill()

    def _send(self, target: int, number: signal.Signals) -> int | None:
        if not self._alive:
            return None
        process = list(self._alive.values())[target % len(self._alive)]
        assert process.pid
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
        return process.pid

    def _thaw_later(self, pid: int) -> None:
        task = asyncio.create_task(self._thaw(pid))
        self._thaws.add(task)
        task.add_done_callback(self._thaws.discard)

    async def _thaw(self, pid: int) -> None:
        await asyncio.sleep(BEYOND_LEASE * self._job.lease_ms / 1000)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    async def _keep(self, slot: int) -> None:
        while True:
            crash = next(self._crashes, None) if slot else None
            self.started += 1
            process = _processes.Process(
                target=work, args=(replace(self._job, crash=crash, seed=self._job.seed + self.started),), daemon=True
            )
            process.start()
            self._alive[slot] = process
            while process.is_alive():
                await asyncio.sleep(POLL_S)
            del self._alive[slot]
            if process.exitcode not in (0, -signal.SIGKILL, -signal.SIGTERM):
                self.broken.append(process.exitcode or 0)

    async def _read_journal(self) -> None:
        with self._job.journal.open() as journal:
            while True:
                line = journal.readline()
                if not line.endswith("\n"):
                    await asyncio.sleep(POLL_S)
                    continue
                first, rest = line.rstrip("\n").split(" ", 1)
                if first == REFUSED:
                    self.refused += 1
                    continue
                step, pid = rest.split(" ")
                self.deaths[f"worker {first} at {step}"] += 1
                if first == Fate.FREEZE:
                    self._thaw_later(int(pid))

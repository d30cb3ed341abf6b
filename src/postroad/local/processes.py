"""Supervises child processes: starts them in order, waits until they are ready, and stops them with the parent.

A child runs in its own session, so Ctrl-C in the terminal reaches the parent only. The parent stops its children in
reverse order. If the parent is killed, the *guard* stops them: a small process that holds the reading end of a pipe
whose writing end only the parent has. The kernel closes the pipe however the parent ends. A pipe was chosen over
PR_SET_PDEATHSIG of Linux: it works on macOS too, reaches the process group of a child, and lets children end in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

from postroad.clock import Clock, SystemClock
from postroad.errors import StateError, UnavailableError

PROBE_EVERY_S: Final = 0.1
KILLED_WITHIN_S: Final = 0.5
KILLED_EVERY_S: Final = 0.01
TAIL_LINES: Final = 20
TAIL_BYTES: Final = 16_384

Probe = Callable[[], Awaitable[bool]]
"""Returns whether a child is ready. It returns False while this is unknown, and never raises."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command to run.

    Attributes:
        name: Name of the child and of its log file.
        argv: Program and arguments.
        env: The complete environment of the child. None: that of this process.
        cwd: Its working directory. None: that of this process.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None


class Child:
    """A started process and its log."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process, log: Path, log_start: int) -> None:
        self.name = command.name
        self.pid = process.pid
        self.log = log
        self._process = process
        self._log_start = log_start

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while the child runs. A negative number is the signal that ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        return await self._process.wait()

    def tail(self) -> str:
        """Return the last lines that the child has written since this start, at most `TAIL_LINES`."""
        with self.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the whole process group of the child, if it still exists."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # macOS returns EPERM for a group of which only zombies are left.
            os.killpg(self.pid, number)

    @property
    def group_exists(self) -> bool:
        """Whether a process of its group exists, including a zombie."""
        try:
            os.killpg(self.pid, 0)
        except OSError:
            return False
        return True


class ChildError(UnavailableError):
    """A child process ended or was not ready in time. The error has the end of its log."""

    def __init__(self, child: Child, problem: str) -> None:
        tail = child.tail() or "(it wrote nothing)"
        remedy = (
            f"All that was started is stopped. Run the command again; if this repeats, {child.log} says why. It ends:\n"
        )
        super().__init__(f"{child.name} {problem}", remedy=remedy + tail)


class Supervisor:
    """Owns child processes: `async with Supervisor(state) as supervisor: await supervisor.start(command)`.

    It restarts nothing: when a child dies, `start` or `watch` raises.

    Args:
        state: The folder that gets a folder `logs`.
        stop_within_s: Seconds between SIGTERM and SIGKILL, for each child.
        clock: What it waits by.
    """

    def __init__(self, state: Path, *, stop_within_s: float = 10.0, clock: Clock | None = None) -> None:
        self._logs = state / "logs"
        self._stop_within_s = stop_within_s
        self._clock = clock or SystemClock()
        self._children: list[Child] = []
        self._guard: asyncio.subprocess.Process | None = None
        self._guard_pipe = -1

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        reading, self._guard_pipe = os.pipe()  # Children inherit neither end, except by `pass_fds`.
        try:
            self._guard = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-S", "-c", _GUARD, str(reading), str(self._stop_within_s)),
                pass_fds=[reading],
                start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
            )
        except BaseException:
            os.close(self._guard_pipe)
            raise
        finally:
            os.close(reading)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            # If its list of groups is empty, the guard ends. If stop() was interrupted, it stops the others.
            os.close(self._guard_pipe)
            if self._guard is not None:
                await self._guard.wait()

    @property
    def children(self) -> tuple[Child, ...]:
        """The children that were started and not stopped yet, in the order of their start."""
        return tuple(self._children)

    async def start(self, command: Command, *, ready: Probe | None = None, ready_within_s: float = 60.0) -> Child:
        """Start a child and return once it is ready.

        A child that was not ready in time still belongs to the supervisor, which stops it.

        Args:
            command: What to run.
            ready: Returns whether the child is ready. None: it is ready at once.
            ready_within_s: Seconds to wait at most.

        Returns:
            The running child.

        Raises:
            StateError: A child of that name is running.
            ChildError: It ended or was not ready in time.
        """
        if any(child.name == command.name for child in self._children):
            raise StateError(f"{command.name} is running already")
        child = await self._spawn(command)
        if ready is not None:
            await self._until_ready(child, ready, ready_within_s)
        return child

    async def run(self, command: Command, *, within_s: float = 300.0) -> None:
        """Run a child to its end.

        Args:
            command: What to run.
            within_s: Seconds to wait at most.

        Raises:
            ChildError: Its exit code is not 0, or it did not end in time.
        """
        child = await self.start(command)
        try:
            async with asyncio.timeout(within_s):
                code = await child.wait()
        except TimeoutError:
            raise ChildError(child, f"did not finish within {within_s:g} s") from None
        finally:
            await self.end(child)
        if code != 0:
            raise ChildError(child, f"ended with {_exit(code)}")

    async def watch(self) -> NoReturn:
        """Wait until a child ends, and raise.

        Raises:
            StateError: There is no child.
            ChildError: A child ended.
        """
        if not self._children:
            raise StateError("no child is running")
        waits = {asyncio.create_task(child.wait()): child for child in self._children}
        try:
            ended, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        first = ended.pop()
        raise ChildError(waits[first], f"ended with {_exit(first.result())}")

    def require_alive(self) -> None:
        """Raise if a child has ended.

        Raises:
            ChildError: A child has ended.
        """
        for child in self._children:
            if child.exit_code is not None:
                raise ChildError(child, f"ended with {_exit(child.exit_code)}")

    async def stop(self) -> None:
        """Stop all children, the last one started first. Idempotent."""
        while self._children:
            await self.end(self._children[-1])

    async def _spawn(self, command: Command) -> Child:
        log = self._logs / f"{command.name}.log"
        with log.open("ab") as output:
            log_start = output.tell()
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                cwd=command.cwd,
                env=None if command.env is None else dict(command.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # The id of its process group is its pid.
            )
        child = Child(command, process, log, log_start)
        self._children.append(child)
        self._notify_guard("+", child)
        return child

    async def _until_ready(self, child: Child, ready: Probe, ready_within_s: float) -> None:
        try:
            async with asyncio.timeout(ready_within_s):
                while not await ready():
                    if child.exit_code is not None:
                        raise ChildError(child, f"ended with {_exit(child.exit_code)} before it was ready")
                    await self._clock.sleep(PROBE_EVERY_S)
        except TimeoutError:
            raise ChildError(child, f"was not ready within {ready_within_s:g} s") from None

    async def end(self, child: Child) -> None:
        """Stop one child: SIGTERM, then SIGKILL for the rest of its group."""
        if child.exit_code is None:
            # Only to the child, which stops its own children in the right order.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._stop_within_s):
                    await child.wait()
        child.signal_group(signal.SIGKILL)
        await child.wait()
        # Its own children end a little later. The process that adopts them collects them, except in some containers.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILLED_WITHIN_S):
                while child.group_exists:
                    await self._clock.sleep(KILLED_EVERY_S)
        self._notify_guard("-", child)
        self._children.remove(child)

    def _notify_guard(self, sign: str, child: Child) -> None:
        with contextlib.suppress(BrokenPipeError):  # The guard was killed. The supervisor still stops its children.
            os.write(self._guard_pipe, f"{sign}{child.pid}\n".encode())


def _exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


# Runs without this package (-I -S): it starts in 10 ms and cannot fail on an import. It stops the last child first, as
# `Supervisor.stop` does, but all within one time limit, because no parent waits for the result.
_GUARD: Final = """
import os, signal, sys, time
pipe, within_s = open(int(sys.argv[1])), float(sys.argv[2])
groups = []
for line in pipe:
    groups.append(int(line[1:])) if line[0] == "+" else groups.remove(int(line[1:]))

def send(group, number):
    try:
        os.killpg(group, number)
    except OSError:
        return False
    return True

until = time.monotonic() + within_s
for group in reversed(groups):
    alive = send(group, signal.SIGTERM)
    while alive and time.monotonic() < until:
        time.sleep(0.05)
        alive = send(group, 0)
for group in groups:
    send(group, signal.SIGKILL)
"""

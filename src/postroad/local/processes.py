"""Child processes that start in order, are ready when we say so, and never outlive us.

A child runs in a session of its own: Ctrl-C in the terminal reaches the parent alone, which stops its
children in reverse order. Should the parent be killed without a chance to do so, the *guard* does it: one
small process that holds the reading end of a pipe whose writing end only the parent has. The kernel closes
it with the parent, however the parent ends. A pipe, and not Linux' PR_SET_PDEATHSIG, because it works on
macOS too, reaches the whole group of a child, and lets children end in good order.
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
"""Tells whether a child is ready. It answers False while it cannot tell, and raises nothing."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What is run. `env` is the whole environment of the child; None hands on ours."""

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
        """Return None while it runs; a negative number is the signal that ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        return await self._process.wait()

    def tail(self) -> str:
        """Return the last lines that this start of the child has written, at most `TAIL_LINES`."""
        with self.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the child and whatever it started in its group. A group that is gone is fine."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # EPERM is what macOS answers for a group of which only zombies are left.
            os.killpg(self.pid, number)

    @property
    def group_is_there(self) -> bool:
        """Whether anything of its group is left, be it dead and not collected."""
        try:
            os.killpg(self.pid, 0)
        except OSError:
            return False
        return True


class Supervisor:
    """Owns child processes: `async with Supervisor(state) as house: await house.start(command, ready=probe)`.

    Nothing is restarted: a child that dies is an error for whoever waits in `start` or `watch`.
    `stop_within_s` bounds how long each child is given between SIGTERM and SIGKILL.
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
        reading, self._guard_pipe = os.pipe()  # neither end is inherited, except where we say so
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
            # With its list of groups empty the guard just ends; when stop() was cut short it does the rest.
            os.close(self._guard_pipe)
            if self._guard is not None:
                await self._guard.wait()

    @property
    def children(self) -> tuple[Child, ...]:
        """The children that were started and not yet stopped, in the order of their start."""
        return tuple(self._children)

    async def start(self, command: Command, *, ready: Probe | None = None, ready_within_s: float = 60.0) -> Child:
        """Start a child and return once it is ready.

        Raises UnavailableError, with the end of its log, when it dies first or is not ready in time, and
        StateError when a child of that name is running. A child that was not ready in time is still ours to
        stop.
        """
        if any(child.name == command.name for child in self._children):
            raise StateError(f"{command.name} is running already")
        child = await self._spawn(command)
        if ready is not None:
            await self._until_ready(child, ready, ready_within_s)
        return child

    async def run(self, command: Command, *, within_s: float = 300.0) -> None:
        """Run a child to its end, which must be exit code 0 and within this time.

        Raises UnavailableError, with the end of its log, otherwise.
        """
        child = await self.start(command)
        try:
            async with asyncio.timeout(within_s):
                code = await child.wait()
        except TimeoutError:
            raise _failure(child, f"did not finish within {within_s:g} s") from None
        finally:
            await self.end(child)
        if code != 0:
            raise _failure(child, f"ended with {_exit(code)}")

    async def watch(self) -> NoReturn:
        """Wait until a child dies, and raise UnavailableError with the end of its log."""
        if not self._children:
            raise StateError("no child is running")
        waits = {asyncio.create_task(child.wait()): child for child in self._children}
        try:
            ended, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        first = ended.pop()
        raise _failure(waits[first], f"ended with {_exit(first.result())}")

    def require_alive(self) -> None:
        """Raise UnavailableError, with the end of its log, if a child has ended."""
        for child in self._children:
            if child.exit_code is not None:
                raise _failure(child, f"ended with {_exit(child.exit_code)}")

    async def stop(self) -> None:
        """Stop all children, the last one started first. Safe to call again."""
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
                start_new_session=True,  # its process group bears its pid
            )
        child = Child(command, process, log, log_start)
        self._children.append(child)
        self._tell_guard("+", child)
        return child

    async def _until_ready(self, child: Child, ready: Probe, ready_within_s: float) -> None:
        try:
            async with asyncio.timeout(ready_within_s):
                while not await ready():
                    if child.exit_code is not None:
                        raise _failure(child, f"ended with {_exit(child.exit_code)} before it was ready")
                    await self._clock.sleep(PROBE_EVERY_S)
        except TimeoutError:
            raise _failure(child, f"was not ready within {ready_within_s:g} s") from None

    async def end(self, child: Child) -> None:
        """Stop one child: SIGTERM, then SIGKILL for what is left of its group."""
        if child.exit_code is None:
            # To the child alone: it knows best in which order its own children end.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._stop_within_s):
                    await child.wait()
        child.signal_group(signal.SIGKILL)
        await child.wait()
        # What it had started dies on its own time, and whoever adopts it collects it, or in some containers does not.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILLED_WITHIN_S):
                while child.group_is_there:
                    await self._clock.sleep(KILLED_EVERY_S)
        self._tell_guard("-", child)
        self._children.remove(child)

    def _tell_guard(self, sign: str, child: Child) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody killed the guard: we still stop our children ourselves
            os.write(self._guard_pipe, f"{sign}{child.pid}\n".encode())


def _failure(child: Child, what: str) -> UnavailableError:
    tail = child.tail() or "(it wrote nothing)"
    remedy = (
        f"All that was started is stopped. Run the command again; if this repeats, {child.log} says why. It ends:\n"
    )
    return UnavailableError(f"{child.name} {what}", remedy=remedy + tail)


def _exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


# Runs without our package (-I -S): it starts in 10 ms and cannot fail on an import. Children end last
# first, as in `Supervisor.stop`, but all within one bound, for nobody is left to be told.
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

"""Parses untrusted input in a child process with limits of time and memory.

`Confined` is the side of the parent, `serve` the loop of the child. Requests and answers are frames: four bytes with
the length, then the content. The child gets no secrets: only the environment variables that Python needs.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from postroad.errors import DataError, UnavailableError

START_S = 60.0
MAX_ANSWER_BYTES = 1 << 26
_LENGTH = 4
_READY, _DONE, _FAILED = b"r", b"d", b"f"
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
_RESERVE_CPU_S = 10
"""Additional processor time, in seconds, after which the kernel ends the process. The timer cannot interrupt C code."""


@dataclass(frozen=True, kw_only=True)
class ProcessLimits:
    """Limits of one request. ``memory_mib``: how much the process may grow after its imports."""

    cpu_s: float
    wall_s: float
    memory_mib: int


class RequestRefusedError(DataError):
    """A request exceeded a limit, or made the child fail. The message names the reason."""


class TooSlowError(Exception):
    """The request used up its processor time. The timer raises it, into whatever is running."""


class _EndedError(Exception):
    """The child ended, or did not answer."""


class Confined:
    """Sends requests to one child process, which is started on demand and restarted after it ended. Thread-safe."""

    def __init__(self, module: str, limits: ProcessLimits) -> None:
        """Prepare the child, which is not started yet.

        Args:
            module: Module to run as ``python -m module``. Its main function calls `serve` with the same limits.
            limits: Limits of each request.
        """
        self._module = module
        self._limits = limits
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def ask(self, request: bytes) -> bytes:
        """Send a request and return the child's answer.

        Args:
            request: Content of the request.

        Returns:
            Content of the answer.

        Raises:
            RequestRefusedError: The request exceeded a limit, or made the child fail twice.
            UnavailableError: The child cannot be started.
        """
        with self._lock:
            try:
                return self._ask(request)
            except _EndedError:
                # Something else may have killed the child, so only a second failure counts.
                try:
                    return self._ask(request)
                except _EndedError as error:
                    raise RequestRefusedError(str(error)) from None

    def close(self) -> None:
        """Kill the child, even during a request. It is not started again."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()
        with self._lock:
            self._stop()

    def _ask(self, request: bytes) -> bytes:
        if self._closed:
            raise UnavailableError("the process that reads mail is closed")
        if self._process is None:
            self._process = self._start()
        try:
            answer = _exchange(self._process, request, self._limits.wall_s)
        except BaseException:
            self._stop()
            raise
        if answer[:1] == _DONE:
            return answer[1:]
        raise RequestRefusedError(answer[1:].decode("utf-8", "replace")[:200])

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        except OSError as error:
            raise UnavailableError(f"the process that reads mail cannot be started: {error.strerror}") from None
        for pipe in (process.stdin, process.stdout):
            os.set_blocking(_number(pipe), False)
        try:
            _receive(process, b"", START_S)  # _READY, when everything is imported
        except BaseException as error:
            _kill(process)
            if isinstance(error, _EndedError):
                raise UnavailableError(f"the process that reads mail does not start: {error}") from None
            raise
        return process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _kill(process)


def _number(pipe: IO[bytes] | None) -> int:
    if pipe is None:
        raise OSError("the process has no pipes")
    return pipe.fileno()


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _exchange(process: subprocess.Popen[bytes], request: bytes, wall_s: float) -> bytes:
    return _receive(process, len(request).to_bytes(_LENGTH) + request, wall_s)


def _receive(process: subprocess.Popen[bytes], outgoing: bytes, wall_s: float) -> bytes:
    """Write the outgoing bytes and return the content of the next frame. Raise _EndedError on a timeout or an end."""
    requests, answers = _number(process.stdin), _number(process.stdout)
    poll, deadline_s = select.poll(), time.monotonic() + wall_s
    poll.register(answers, select.POLLIN)
    left, received, length = memoryview(outgoing), bytearray(), -1
    if left:
        poll.register(requests, select.POLLOUT)
    while length < 0 or len(received) < _LENGTH + length:
        ready = dict(poll.poll(max(deadline_s - time.monotonic(), 0) * 1000))
        if not ready:
            raise _EndedError(f"it was not read within {wall_s:g} s")
        if requests in ready:
            try:
                left = left[os.write(requests, left[:65_536]) :]
            except BrokenPipeError:
                raise _EndedError(_describe_end(process)) from None
            if not left:
                poll.unregister(requests)
        if answers in ready:
            piece = os.read(answers, 1 << 20)
            if not piece:
                raise _EndedError(_describe_end(process))
            received += piece
        if length < 0 and len(received) >= _LENGTH:
            length = int.from_bytes(received[:_LENGTH])
            if length > MAX_ANSWER_BYTES:
                raise _EndedError(f"the answer has {length} bytes")
    return bytes(received[_LENGTH:])


def _describe_end(process: subprocess.Popen[bytes]) -> str:
    with suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
    if process.returncode == -signal.SIGXCPU:
        return "it took too much processor time"
    return f"the process that read it ended with {process.returncode}"


def serve(handle: Callable[[bytes], bytes], limits: ProcessLimits) -> None:
    """Answer requests from standard input until it is closed, which also happens if the parent is killed.

    Args:
        handle: Function that answers a request.
        limits: Limits of each request.
    """
    # Both signals are sent to the whole process group. The parent finishes its work first, and needs this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, _raise_too_slow)
    # Answers use a duplicated descriptor, and stdout becomes stderr, so that output of a library is not an answer.
    requests, answers = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit_process(limits)
    _write(answers, _READY)
    while len(head := requests.read(_LENGTH)) == _LENGTH:
        request = requests.read(int.from_bytes(head))
        try:
            answer = _DONE + _timed(handle, request, limits.cpu_s)
        except MemoryError:
            _write(answers, _FAILED + f"it takes more than {limits.memory_mib} MiB of memory".encode())
            return  # The remaining memory may be fragmented, so the process is replaced.
        except TooSlowError:
            answer = _FAILED + f"it takes more than {limits.cpu_s:g} s of processor time".encode()
        except RecursionError:
            answer = _FAILED + b"it is nested too deeply"
        except Exception as error:
            answer = _FAILED + f"the parser failed with {type(error).__name__}".encode()
        _write(answers, answer)


def _timed(handle: Callable[[bytes], bytes], request: bytes, cpu_s: float) -> bytes:
    _, hard_limit_s = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + cpu_s) + _RESERVE_CPU_S, hard_limit_s))
    # It counts the time of the kernel, too. It repeats, because a library may catch the first exception.
    signal.setitimer(signal.ITIMER_PROF, cpu_s, cpu_s)
    try:
        return handle(request)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _raise_too_slow(_number: int, _frame: object) -> None:
    raise TooSlowError


def _limit_process(limits: ProcessLimits) -> None:
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, resource.getrlimit(limit)[1]))
    if sys.platform == "linux":  # Other systems do not enforce a limit of the address space, or cannot set it.
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        _, hard_limit = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (limits.memory_mib << 20), hard_limit))


def _write(answers: IO[bytes], content: bytes) -> None:
    answers.write(len(content).to_bytes(_LENGTH) + content)
    answers.flush()

"""Postfix's own test programs: the sink that every contestant sends to, and the source that sets the limit."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from benchmarks.contestants import DidNotRun, Pace

_SBIN = "/usr/sbin:/usr/lib/postfix/sbin:/usr/libexec/postfix"
_START_S = 10.0
_SOURCE_S = 120.0
SOURCE_SESSIONS = 20


class Sink(NamedTuple):
    """A running smtp-sink(1): it answers 250 and keeps nothing."""

    port: int


@asynccontextmanager
async def running_sink() -> AsyncIterator[Sink]:
    """Start a sink. Raises DidNotRun where Postfix is not installed."""
    program = _program("smtp-sink")
    port = _free_port()
    # It will not run as root.
    user = ["-u", "postfix"] if os.geteuid() == 0 else []
    process = await asyncio.create_subprocess_exec(
        program, *user, "-m", "1000", f"127.0.0.1:{port}", "1000", stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await _wait_ready(port, process)
        yield Sink(port)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def source_pace(sink: Sink, *, messages: int, size_bytes: int) -> Pace:
    """The pace of `smtp-source -s 20 -d`: so many sessions, each kept for all its messages."""
    options = ["-s", str(SOURCE_SESSIONS), "-d", "-m", str(messages), "-l", str(size_bytes)]
    options += ["-f", "news@sender.example", "-t", "reader@gmail.com"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start_s = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        _program("smtp-source"), *options, f"127.0.0.1:{sink.port}", stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_SOURCE_S):
            _, said = await process.communicate()
    except TimeoutError:
        raise DidNotRun(f"smtp-source took more than {_SOURCE_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise DidNotRun(f"smtp-source failed: {said.decode(errors='replace').strip()[-200:]}")
    took_s = time.perf_counter() - start_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Pace(messages / took_s, cpu_s / messages * 1e6)


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if found is None:
        raise DidNotRun(f"{name} is not installed; it comes with Postfix")
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def _wait_ready(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(_START_S):
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                greeting = await reader.readline()
                writer.close()
                if greeting.startswith(b"220"):
                    return
            if process.returncode is not None:
                raise DidNotRun(f"smtp-sink ended with {process.returncode} at its start")
            await asyncio.sleep(0.02)

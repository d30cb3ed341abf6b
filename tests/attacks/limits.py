"""Run the target of an attack under limits of processor time and memory, or compare its cost at two sizes."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

MEBIBYTE: Final = 1 << 20
WALL_FACTOR: Final = 10
"""A busy machine may take so many times the processor time that a call is allowed."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a call in a child process returned or raised, and what it cost."""

    value: Any
    error: str | None
    """Class name of the exception that the call raised. None: it returned."""
    message: str
    cpu_s: float
    grown_mib: float
    """Growth of the peak resident memory during the call."""


def run_limited(target: str, *arguments: Any, cpu_s: float = 5.0, memory_mib: int = 256) -> Outcome:
    """Call ``module:function`` in a child process, and return what it did and what it cost.

    Args:
        target: An importable function, such as ``"tests.attacks.test_mail:parse"``. It must return something picklable.
        arguments: Its arguments; picklable.
        cpu_s: Processor time that the call may take, in seconds.
        memory_mib: How much the process may grow during the call, in MiB.

    Raises:
        AssertionError: The call passed a limit, or its process died.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_call, args=(theirs, target, arguments, memory_mib), daemon=True)
    child.start()
    theirs.close()
    try:
        # The first message comes when everything is imported: only what comes afterwards is limited.
        assert ours.poll(60), f"{target} was not imported within 60 s"
        ours.recv()
        assert ours.poll(cpu_s * WALL_FACTOR), f"{target} did not end within {cpu_s * WALL_FACTOR:g} s"
        outcome: Outcome = ours.recv()
    except EOFError:
        child.join()
        raise AssertionError(f"the process of {target} died with {child.exitcode}") from None
    finally:
        child.kill()
        child.join()
    assert outcome.cpu_s <= cpu_s, f"{target} took {outcome.cpu_s:.2f} s of processor time; {cpu_s:g} s are allowed"
    assert outcome.grown_mib <= memory_mib, f"{target} grew by {outcome.grown_mib:.0f} MiB; {memory_mib} are allowed"
    return outcome


def cost_ratio(function: Callable[[Any], object], small: Any, large: Any, *, repeats: int = 3) -> float:
    """Return the processor time of the large input in units of that of the small one; the least of `repeats` runs each.

    Ten times the input gives about 10 where the cost is linear, and 100 where it is quadratic. Both inputs should
    take milliseconds, or the clock's resolution is measured.
    """
    return _least(function, large, repeats) / max(_least(function, small, repeats), 1e-4)


def _least(function: Callable[[Any], object], argument: Any, repeats: int) -> float:
    costs = []
    gc.disable()  # A collection would look through all objects of pytest, and cost more than the call.
    try:
        for _ in range(repeats):
            begun = time.process_time()
            function(argument)
            costs.append(time.process_time() - begun)
    finally:
        gc.enable()
    return min(costs)


def _call(connection: Connection, target: str, arguments: tuple[Any, ...], memory_mib: int) -> None:
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    connection.send("ready")
    before = _peak_mib()
    if sys.platform == "linux":
        # Twice the allowance, so that the report says how much it was. A call that asks for gigabytes gets MemoryError.
        limit = _virtual_bytes() + 2 * memory_mib * MEBIBYTE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    begun = time.process_time()
    value, error, message = None, None, ""
    try:
        value = function(*arguments)
    except BaseException as raised:
        error, message = type(raised).__name__, str(raised)
    cpu_s = time.process_time() - begun
    grown_mib = _peak_mib() - before
    connection.send(Outcome(value=value, error=error, message=message[:10_000], cpu_s=cpu_s, grown_mib=grown_mib))
    connection.close()


def _peak_mib() -> float:
    """Return the peak of the resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss would begin with the size of the process that forked this one.
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines() if ":" in line)
        return int(fields["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE  # macOS tells bytes.


def _virtual_bytes() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text(encoding="ascii").split()[0]) * resource.getpagesize()

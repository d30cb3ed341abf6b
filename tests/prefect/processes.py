"""Small programs for the supervisor to run, and helpers that show which processes live."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from postroad.local.processes import Command, Probe
from tests.kit.waiting import until

# Creates a file when it is up, leaves a grandchild running, and records in which order it was asked to end.
FAMILY = """
import pathlib, signal, subprocess, sys, time
name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def end(*_):
    with (folder / "ended").open("a") as ended:
        ended.write(name + "\\n")
    raise SystemExit
signal.signal(signal.SIGTERM, end)
(folder / f"{name}.pids").write_text(f"{__import__('os').getpid()} {grandchild.pid}")
while True:
    time.sleep(600)
"""

STUBBORN = FAMILY.replace("    raise SystemExit\n", "")

# Runs two families under a supervisor until a signal stops it.
SUPERVISOR = """
import asyncio, pathlib, sys
from postroad.local.processes import Supervisor
from tests.prefect.processes import family, is_up
async def main(folder):
    async with Supervisor(folder, stop_within_s=5.0) as supervisor:
        for name in ("first", "second"):
            await supervisor.start(family(name, folder), ready=is_up(name, folder))
        (folder / "up").touch()
        await supervisor.watch()
asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


def python(name: str, code: str, *arguments: str) -> Command:
    return Command(name=name, argv=[sys.executable, "-c", code, *arguments])


def family(name: str, folder: Path, code: str = FAMILY) -> Command:
    return python(name, code, name, str(folder))


def is_up(name: str, folder: Path) -> Probe:
    """The probe of a family: both its processes are there."""

    async def probe() -> bool:
        return (folder / f"{name}.pids").exists()

    return probe


def pids(name: str, folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / f"{name}.pids").read_text().split()]


def living(of: Iterable[int]) -> set[int]:
    """The processes that still run. A zombie does not."""
    wanted = ",".join(map(str, of))
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "-p", wanted], capture_output=True, text=True, check=False
    ).stdout
    return {int(line.split()[0]) for line in listed.splitlines() if not line.split()[1].startswith("Z")}


async def until_gone(of: Iterable[int], within_s: float) -> None:
    """Return once none of the processes runs; raise TimeoutError after this time."""

    async def gone() -> bool:
        return not living(of)

    await until(gone, within_s)


async def until_exists(path: Path, within_s: float) -> None:
    async def exists() -> bool:
        return path.exists()

    await until(exists, within_s)

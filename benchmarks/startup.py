"""`benchmarks startup`: processor time of a whole command, compared with two imports."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from benchmarks.figures import Figure, Measure, compared, median

BASE = "python -c 'import typer, sqlalchemy'"
HELP = Measure(name="processor time of postroad --help, s", bar=1.0)
STATUS = Measure(name="processor time of postroad campaign status, s", bar=2.3)
MEASURES = (HELP, STATUS)


class Effort(Struct, frozen=True, kw_only=True):
    rounds: int = 9


QUICK = Effort(rounds=2)


def start_up(effort: Effort) -> list[Figure]:
    """Measure each command in turn, so that all see the same machine. The first round fills the caches of files."""
    with TemporaryDirectory(prefix="postroad-bench-") as folder:
        commands = {
            BASE: [sys.executable, "-c", "import typer, sqlalchemy"],
            HELP.name: [sys.executable, "-m", "postroad", "--help"],
            STATUS.name: [sys.executable, "-m", "postroad", "campaign", "status"],
        }
        rounds = [
            {name: _processor_s(command, Path(folder)) for name, command in commands.items()}
            for _ in range(effort.rounds + 1)
        ]
    taken = {name: median([one[name] for one in rounds[1:]]) for name in commands}
    return [compared(measure, taken[measure.name], BASE, taken[BASE]) for measure in MEASURES]


def _processor_s(command: list[str], folder: Path) -> float:
    """Return the user and system time of a process and of those that it waited for."""
    environment = {**os.environ, "POSTROAD_STATE_DIR": str(folder / "state")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

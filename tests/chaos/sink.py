"""The target of the irreversible act. It appends and syncs one line, as a mail server accepts a message."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self


class Act(NamedTuple):
    """One act: job, token, process, and time (ms since the epoch)."""

    id: str
    token: int
    pid: int
    at_ms: int


class Sink:
    """Appends acts to a file that any number of processes share."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def act(self, job: str, token: int) -> None:
        """Do the act. Once this returns, it is permanent."""
        line = f"{job} {token} {os.getpid()} {time.time_ns() // 1_000_000}\n".encode()
        if os.write(self._descriptor, line) != len(line):
            raise OSError(f"{self._path} took only a part of a line")
        os.fsync(self._descriptor)


def acts(path: Path) -> list[Act]:
    """Every act, in order."""
    if not path.exists():
        return []
    fields = (line.split() for line in path.read_text().splitlines())
    return [Act(job, int(token), int(pid), int(at_ms)) for job, token, pid, at_ms in fields]

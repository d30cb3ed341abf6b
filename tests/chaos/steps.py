"""The steps of a worker, and how it comes to die, or to freeze, exactly at one of them."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Step(StrEnum):
    """Steps of a worker, in order."""

    CLAIM = "claim"
    """Jobs are claimed and not prepared."""
    PREPARE = "prepare"
    """Jobs are prepared, no handler has started."""
    MARK = "mark"
    """A handler is about to set the wire mark."""
    ACT_BEFORE = "act-before"
    """The mark is set, the act has not happened."""
    ACT_AFTER = "act-after"
    """The act has happened and is not reported."""
    SETTLE = "settle"
    """Verdicts are about to be settled."""
    SETTLED = "settled"
    """The queue has settled them, and the worker is about to get the reply."""


class Fate(StrEnum):
    KILL = "killed"
    FREEZE = "frozen"


@dataclass(frozen=True, kw_only=True)
class Doom:
    """What befalls one worker: ``fate`` when it comes to ``step`` for the ``nth`` time, from 1."""

    step: Step
    nth: int
    fate: Fate


class Steps:
    """Counts the steps of one worker process and carries out its doom, once.

    What happens is written to ``journal`` before, as ``fate step pid``: a process that has been killed tells nothing.
    """

    def __init__(self, doom: Doom | None, journal: Path) -> None:
        self._doom = doom
        self._journal = journal
        self._passed = 0

    def reach(self, step: Step) -> None:
        """Say that this step is reached. It may be the last thing that this process does."""
        if self._doom is None or step is not self._doom.step:
            return
        self._passed += 1
        if self._passed == self._doom.nth:
            self.note(f"{self._doom.fate} {step} {os.getpid()}")
            os.kill(os.getpid(), signal.SIGKILL if self._doom.fate is Fate.KILL else signal.SIGSTOP)

    def note(self, line: str) -> None:
        with self._journal.open("ab", buffering=0) as journal:
            journal.write(line.encode() + b"\n")

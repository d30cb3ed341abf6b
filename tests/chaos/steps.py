"""The steps of a worker, and its planned crash or freeze at one of them."""

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
class PlannedCrash:
    """The planned crash of one worker: ``fate`` at the ``nth`` time that it reaches ``step``, from 1."""

    step: Step
    nth: int
    fate: Fate


class Steps:
    """Counts the steps of one worker process and executes its planned crash, once.

    It is written to ``journal`` before, as ``fate step pid``, because a killed process cannot report.
    """

    def __init__(self, crash: PlannedCrash | None, journal: Path) -> None:
        self._crash = crash
        self._journal = journal
        self._passed = 0

    def reach(self, step: Step) -> None:
        """Report that a step is reached. It may crash or freeze this process."""
        if self._crash is None or step is not self._crash.step:
            return
        self._passed += 1
        if self._passed == self._crash.nth:
            self.note(f"{self._crash.fate} {step} {os.getpid()}")
            os.kill(os.getpid(), signal.SIGKILL if self._crash.fate is Fate.KILL else signal.SIGSTOP)

    def note(self, line: str) -> None:
        with self._journal.open("ab", buffering=0) as journal:
            journal.write(line.encode() + b"\n")

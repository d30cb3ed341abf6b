"""Processes of Python that a test lets go at the same moment."""

from __future__ import annotations

import subprocess
import sys

# The modules are imported once, in a process that then splits itself: what comes after `gate()` is done by many.
_GATE = """
import os, sys
def gate():
    start, go = os.pipe()
    children = []
    for _ in range(int(sys.argv[1])):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(start, 1)  # Its end of file is the signal.
            return
        children.append(child)
    os.close(go)
    sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))
"""


def run_together(program: str, *arguments: str, processes: int) -> str:
    """Run a program, of which what follows its line `gate()` is done by many processes at once.

    Its arguments are sys.argv[2:]. Fails when one of them does; returns what they wrote.
    """
    command = [sys.executable, "-c", _GATE + program, str(processes), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert ended.returncode == 0, f"{ended.returncode} of {processes} failed:\n{ended.stderr}"
    return ended.stdout

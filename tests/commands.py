"""Commands of ours, run in this process: it has imported already what a new one needs a second to import."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path
from unittest.mock import patch

from postroad.cli.app import main


class Screen(TextIOWrapper):
    """Standard output as a command sees it: of a terminal, or of a pipe."""

    def __init__(self, *, terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__(BytesIO(), encoding)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def text(self) -> str:
        self.seek(0)
        return self.read()


def run_command(
    folder: Path, environment: Mapping[str, str], *words: str, terminal: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `postroad` with these words to its end, in this folder and with nothing but this environment.

    ``terminal``: it takes its output for a terminal, else for a pipe.
    """
    out, err = Screen(terminal=terminal), Screen(terminal=terminal)
    with (
        chdir(folder),
        patch.dict(os.environ, environment, clear=True),
        patch("sys.argv", ["postroad", *words]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        mask = os.umask(0)
        os.umask(mask)
        try:
            code = _exit_code()
        finally:
            os.umask(mask)  # A command closes what it makes to others; servers of other users run in tests after it.
    return subprocess.CompletedProcess(words, code, out.text(), err.text())


def _exit_code() -> int:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run_main()
    # The command runs a loop of its own, and there is one of this thread already.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_run_main).result()


def _run_main() -> int:
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0

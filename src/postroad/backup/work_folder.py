"""A folder for unfinished files, which is deleted at the end, and by the next process if this one is killed."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

_PREFIX = ".postroad-backup-"


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Make a folder that only its owner can enter, and delete those of processes that were killed.

    A process locks its folder while it runs.

    Args:
        parent: Where to make it.

    Yields:
        The folder.

    Raises:
        OSError: It cannot be made.
    """
    for left in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # It is locked, is another user's, or was just deleted.
            handle = _lock(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(handle)
    folder, handle = _new_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _new_folder(parent: Path) -> tuple[Path, int]:
    """Return a new folder, and the handle of its lock."""
    while True:
        folder = Path(mkdtemp(prefix=_PREFIX, dir=parent))
        with suppress(BlockingIOError, FileNotFoundError):  # Another process deletes it: it was not locked yet.
            handle = _lock(folder)
            if folder.exists():
                return folder, handle
            os.close(handle)


def _lock(folder: Path) -> int:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle

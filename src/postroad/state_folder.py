"""The state folder is its owner's alone: it holds every address, every mail and the keys."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
"""Permission bits of group and others."""


def make_files_private() -> None:
    """Let every file that this process and its children create from now on be accessible to its owner only."""
    os.umask(OTHERS)


def close_state_folder(folder: Path) -> None:
    """Take from group and others what an earlier version gave them of the state folder. It need not exist.

    A folder that is not a state folder alone (another user's, a temporary folder of all users, the folder of
    postroad.toml) keeps its mode, and so does what it holds: `postroad doctor` reports it.
    """
    if not _open_to_others(folder) or not _is_ours_alone(folder):
        return
    # What it holds first: while the folder is open, the next call does the rest of a call that was killed.
    for path in _entries(folder):
        _close(path)
    _close(folder)


def open_entries(folder: Path, most: int) -> list[Path]:
    """Return the state folder and the entries in it that group or others can access, at most so many.

    If the folder itself is closed, what it holds cannot be reached, and is not looked at.
    """
    if not _open_to_others(folder):
        return []
    return [folder, *islice(filter(_open_to_others, _entries(folder)), most - 1)]


def _is_ours_alone(folder: Path) -> bool:
    status = folder.stat()
    shared = bool(status.st_mode & stat.S_ISVTX) or (folder / "postroad.toml").exists()
    return status.st_uid == os.getuid() and not shared


def _entries(folder: Path) -> Iterator[Path]:
    """Yield everything in a folder, depth first. A symbolic link is not followed."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if not path.is_symlink():
                yield path


def _open_to_others(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # It may go at any time, as a draft does.
        return bool(path.lstat().st_mode & OTHERS)
    return False


def _close(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):
        path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~OTHERS)

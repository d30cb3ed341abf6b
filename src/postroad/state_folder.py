"""Keeps the state folder private to its owner, because it contains addresses, mail and keys."""

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
    """Make all files that this process and its children create accessible only to their owner."""
    os.umask(OTHERS)


def close_state_folder(folder: Path) -> None:
    """Remove the permissions of group and others that an earlier version gave in the state folder.

    A folder that is shared (another user's, a temporary folder of all users, the folder of postroad.toml) is not
    changed; `postroad doctor` reports it. The folder need not exist.
    """
    if not _open_to_others(folder) or not _is_private_to_us(folder):
        return
    # Entries first: if this call is killed, the folder is still open, and the next call continues.
    for path in _entries(folder):
        _close(path)
    _close(folder)


def open_entries(folder: Path, most: int) -> list[Path]:
    """Return the state folder and its entries that group or others can access, at most ``most`` paths.

    If the folder itself is not accessible, its entries are not either, so the result is empty.

    Args:
        folder: The state folder.
        most: Largest number of paths.

    Returns:
        The paths.
    """
    if not _open_to_others(folder):
        return []
    return [folder, *islice(filter(_open_to_others, _entries(folder)), most - 1)]


def _is_private_to_us(folder: Path) -> bool:
    status = folder.stat()
    shared = bool(status.st_mode & stat.S_ISVTX) or (folder / "postroad.toml").exists()
    return status.st_uid == os.getuid() and not shared


def _entries(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder. Symbolic links are not followed."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if not path.is_symlink():
                yield path


def _open_to_others(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # A file may be deleted at any time, such as a draft of a secret.
        return bool(path.lstat().st_mode & OTHERS)
    return False


def _close(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):
        path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~OTHERS)

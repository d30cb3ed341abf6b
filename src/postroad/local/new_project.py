"""Writes a new project: a folder with settings and the examples, all of whose mail goes to the sandbox."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from errno import EEXIST, EISDIR, ENOTDIR, ENOTEMPTY
from pathlib import Path
from typing import Final

from postroad.errors import StateError, UsageError
from postroad.local.project_files import project_files

SETTINGS: Final = "postroad.toml"
COPIED: Final = ("examples/welcome", "examples/trial", SETTINGS)
"""Files and folders that a project has from the project files."""
IGNORED: Final = "# Database, queue, keys, logs and captured mail of this machine.\n/.postroad/\n"
TOP_LEVEL: Final = ("examples", ".gitignore", SETTINGS)
"""In the order in which they appear in an existing folder: it is a project once it has settings."""


def write_project(folder: Path) -> list[str]:
    """Write the files of a new project. They appear when all of them are complete.

    Args:
        folder: A folder that is empty, or does not exist. Its parent exists.

    Returns:
        The paths of the files, relative to the folder.

    Raises:
        StateError: The folder is not empty, or is a file.
        UsageError: Its parent is not a folder.
    """
    exists = _require_empty(folder)
    if not exists and not folder.parent.is_dir():
        raise UsageError(f"{folder.parent} is not a folder", remedy="Make it first, or name another place.")
    # On the same file system as the folder, so that it is moved there by a rename.
    draft = Path(tempfile.mkdtemp(prefix=".postroad-init-", dir=folder if exists else folder.parent))
    try:
        files = _write(draft)
        _place(draft, folder, exists=exists)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return files


def _require_empty(folder: Path) -> bool:
    """Return whether the folder exists. Raise StateError if it is not empty."""
    try:
        empty = not any(folder.iterdir())
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        empty = False
    if not empty:
        raise _not_empty(folder)
    return True


def _not_empty(folder: Path) -> StateError:
    return StateError(
        f"{folder} is not an empty folder",
        remedy="Name a folder that does not exist yet. No file that exists is changed.",
    )


def _write(draft: Path) -> list[str]:
    source = project_files()
    contents = {path.relative_to(source).as_posix(): path.read_bytes() for path in _copied(source)}
    contents[".gitignore"] = IGNORED.encode()
    for name, content in contents.items():
        path = draft / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return sorted(contents)


def _copied(source: Path) -> Iterator[Path]:
    for name in COPIED:
        path = source / name
        yield from (file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def _place(draft: Path, folder: Path, *, exists: bool) -> None:
    """Rename a draft to the folder, or its entries into it. Raise StateError if the folder was filled meanwhile."""
    try:
        if exists:
            _move(draft, folder)
        else:
            draft.rename(folder)
    except OSError as error:
        if error.errno in (EEXIST, EISDIR, ENOTDIR, ENOTEMPTY):
            raise _not_empty(folder) from None
        raise


def _move(draft: Path, folder: Path) -> None:
    """Move the entries of a draft into an existing folder. If one cannot be moved, move the others back."""
    moved: list[str] = []
    try:
        for name in TOP_LEVEL:
            (draft / name).rename(folder / name)
            moved.append(name)
    except OSError:
        for name in moved:
            (folder / name).rename(draft / name)
        raise

"""Which files a campaign may name, and how they are opened: what was checked is what is read.

A campaign.yaml and the form of a flow are not written by whoever owns the worker's files. They reach regular files
in the campaign's own folder and in those that the operator allows (`files.allowed`), and none that hold secrets.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from errno import EISDIR
from glob import glob
from io import BufferedReader
from pathlib import Path
from typing import Self

import sqlalchemy as sa
from pydantic import BaseModel

from postroad.errors import ConfigError
from postroad.settings import Settings
from postroad.store.engine import read

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # Without O_NONBLOCK, a FIFO would be waited for.
_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


class FileRefusedError(Exception):
    """A file may not be read, or is no regular file. Its text says why, and nothing of what the file holds."""


ALLOW_IT = "Copy it into the folder, or add its folder to `allowed` under [files] in postroad.toml."


@dataclass(frozen=True, kw_only=True)
class FileRules:
    """Folders whose files may be read, and files and folders of which none may be, all of them resolved."""

    folders: tuple[Path, ...]
    refused: tuple[Path, ...] = ()

    @classmethod
    def of(cls, settings: Settings, *folders: Path) -> Self:
        """Return the rules for files of these folders, and of those that the settings allow."""
        wanted = [*folders, *(settings.base_dir / folder for folder in settings.files.allowed)]
        return cls(
            folders=tuple(folder.resolve() for folder in wanted),
            refused=tuple(path.resolve() for path in (settings.state_dir, *_secrets_of(settings))),
        )

    def resolve(self, path: Path) -> Path:
        """Return where a path leads, without symbolic links.

        Raises:
            FileRefusedError: The path leads out of the folders, or to a file that is refused.
            OSError: It is one of the folders, or cannot be followed.
        """
        meant = path.resolve()
        if any(meant.is_relative_to(refused) for refused in self.refused):
            raise FileRefusedError(f"{path} may not be read: settings, keys and the state folder stay closed")
        for folder in self.folders:
            if meant == folder:
                raise IsADirectoryError(EISDIR, "Is a directory")
            if meant.is_relative_to(folder):
                return meant
        raise FileRefusedError(f"{path} is outside the folders that may be read")

    def open(self, path: Path) -> BufferedReader:
        """Open a regular file of the folders.

        Every part of the resolved path is opened within the one before, without symbolic links: whoever exchanges one
        meanwhile gets an error and no other file.

        Raises:
            FileRefusedError: It leads out of the folders, is refused, or is no regular file.
            OSError: It cannot be opened.
        """
        root, *parents, name = self.resolve(path).parts
        inside = os.open(root, _FOLDER)
        try:
            for parent in parents:
                outside, inside = inside, os.open(parent, _FOLDER | os.O_NOFOLLOW, dir_fd=inside)
                os.close(outside)
            descriptor = os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=inside)
        finally:
            os.close(inside)
        return _regular(descriptor, path)


def read_named(path: Path, rules: FileRules | None, max_bytes: int, *, where: str) -> bytes:
    """Return the content of a file that a campaign names: one byte more than allowed where it is longer.

    Args:
        path: The file.
        rules: Where it may be. None: anywhere, as the operator named it.
        max_bytes: How much of it is read.
        where: File, line and field that name it, for errors.

    Raises:
        ConfigError: It is not there, may not be read, or is no regular file.
    """
    try:
        with rules.open(path) if rules is not None else open_regular(path) as file:
            return file.read(max_bytes + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no file {path}", where=where, remedy="Paths are relative to campaign.yaml."
        ) from None
    except FileRefusedError as error:
        raise ConfigError(str(error), where=where, remedy=ALLOW_IT) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", where=where) from None


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file wherever it is: one that the operator named. Raises FileRefusedError, OSError."""
    return _regular(os.open(path, _FLAGS), path)


def _regular(descriptor: int, path: Path) -> BufferedReader:
    file = os.fdopen(descriptor, "rb")  # It refuses a folder, and closes it.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise FileRefusedError(f"{path} is not a regular file")
    return file


def import_rules(engine: sa.Engine, settings: Settings, path: Path) -> FileRules:
    """Return the rules for a CSV that a flow imports.

    It is in a folder that the settings allow, beside a campaign file that they name, or the audience file of a
    campaign, for which the rules held when the campaign was applied.
    """
    with read(engine) as connection:
        statement = sa.text("SELECT 1 FROM campaign WHERE audience_file = :path LIMIT 1")
        if connection.execute(statement, {"path": str(path)}).scalar():
            # It was resolved and permitted then, in a demo inside the state folder. It is not resolved again, and
            # no link is followed: a folder that became a link since leads nowhere.
            return FileRules(folders=(path.parent,))
    patterns = [str(settings.base_dir / pattern) for pattern in settings.campaigns]
    files = [Path(found) for pattern in patterns for found in glob(pattern, recursive=True)]  # noqa: PTH207
    return FileRules.of(settings, *(file.parent for file in files))


def _secrets_of(settings: Settings) -> Iterator[Path]:
    """Every path in the settings: keys, mailboxes and the like. What may be read is named elsewhere."""
    if settings.config_path is not None:
        yield settings.config_path
    waiting: list[object] = [value for name, value in settings if name != "files"]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Path):
            yield settings.base_dir / value
        elif isinstance(value, BaseModel):
            waiting += (each for _, each in value)
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, tuple | list):
            waiting += value

"""Restricts which files a campaign may name, and opens them so that the checked file is the one that is read.

The author of a campaign.yaml or of a flow's parameters need not be the operator of the worker. Campaigns may name
regular files in their own folder and in the folders that the operator allows (`files.allowed`), but no secrets.
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

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # Without O_NONBLOCK, opening a FIFO would block.
_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


class FileRefusedError(Exception):
    """A file may not be read, or is not a regular file. The text names the reason, and does not quote the file."""


ALLOW_IT = "Copy it into the folder, or add its folder to `allowed` under [files] in postroad.toml."


@dataclass(frozen=True, kw_only=True)
class FileRules:
    """Folders whose files may be read, and files and folders that may not be read. All paths are resolved."""

    folders: tuple[Path, ...]
    refused: tuple[Path, ...] = ()

    @classmethod
    def of(cls, settings: Settings, *folders: Path) -> Self:
        """Return the rules for files in these folders and in those that the settings allow."""
        wanted = [*folders, *(settings.base_dir / folder for folder in settings.files.allowed)]
        return cls(
            folders=tuple(folder.resolve() for folder in wanted),
            refused=tuple(path.resolve() for path in (settings.state_dir, *_secrets_of(settings))),
        )

    def resolve(self, path: Path) -> Path:
        """Resolve a path with its symbolic links.

        Args:
            path: The path.

        Returns:
            The resolved path.

        Raises:
            FileRefusedError: The path is outside the folders, or is refused.
            IsADirectoryError: The path is one of the folders.
        """
        resolved = path.resolve()
        if any(resolved.is_relative_to(refused) for refused in self.refused):
            raise FileRefusedError(f"{path} may not be read: settings, keys and the state folder are excluded")
        for folder in self.folders:
            if resolved == folder:
                raise IsADirectoryError(EISDIR, "Is a directory")
            if resolved.is_relative_to(folder):
                return resolved
        raise FileRefusedError(f"{path} is outside the folders that may be read")

    def open(self, path: Path) -> BufferedReader:
        """Open a regular file of the folders.

        Each part of the resolved path is opened relative to the previous one, without following symbolic links. If a
        part is replaced by a link meanwhile, opening fails instead of reading another file.

        Args:
            path: The path.

        Returns:
            The file, open for reading.

        Raises:
            FileRefusedError: The path is outside the folders, is refused, or is not a regular file.
            OSError: The file cannot be opened.
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
    """Read a file that a campaign names. Of a longer file, ``max_bytes + 1`` bytes are read.

    Args:
        path: The file.
        rules: Folders that the file may be in. None: any, because the operator named the file.
        max_bytes: Largest allowed size.
        where: File, line and field that name the file, for errors.

    Returns:
        The content.

    Raises:
        ConfigError: The file does not exist, may not be read, or is not a regular file.
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
    """Open a regular file in any folder. Use it only for files that the operator named.

    Args:
        path: The file.

    Returns:
        The file, open for reading.

    Raises:
        FileRefusedError: The path is not a regular file.
        OSError: The file cannot be opened.
    """
    return _regular(os.open(path, _FLAGS), path)


def _regular(descriptor: int, path: Path) -> BufferedReader:
    file = os.fdopen(descriptor, "rb")  # For a folder it closes the descriptor and raises IsADirectoryError.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise FileRefusedError(f"{path} is not a regular file")
    return file


def import_rules(engine: sa.Engine, settings: Settings, path: Path) -> FileRules:
    """Return the rules for a CSV that a flow imports.

    Allowed are files in a folder that the settings allow, files in the folder of a campaign file that the settings
    name, and the audience file of a campaign, which was checked when the campaign was applied.

    Args:
        engine: Database of the campaigns.
        settings: The settings.
        path: The CSV.

    Returns:
        The rules.
    """
    with read(engine) as connection:
        statement = sa.text("SELECT 1 FROM campaign WHERE audience_file = :path LIMIT 1")
        if connection.execute(statement, {"path": str(path)}).scalar():
            # The stored path is resolved and was permitted (in a demo it is inside the state folder). It is not
            # resolved again and no link is followed, so a folder that was replaced by a link is not entered.
            return FileRules(folders=(path.parent,))
    patterns = [str(settings.base_dir / pattern) for pattern in settings.campaigns]
    files = [Path(path) for pattern in patterns for path in glob(pattern, recursive=True)]  # noqa: PTH207
    return FileRules.of(settings, *(file.parent for file in files))


def _secrets_of(settings: Settings) -> Iterator[Path]:
    """Yield every path in the settings, such as keys and mailboxes, except those under `files`."""
    if settings.config_path is not None:
        yield settings.config_path
    waiting: list[object] = [value for name, value in settings if name != "files"]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Path):
            yield settings.base_dir / value
        elif isinstance(value, BaseModel):
            waiting += (field for _, field in value)
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, tuple | list):
            waiting += value

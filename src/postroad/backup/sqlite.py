"""Copies a SQLite database while others write to it, and opens a copy.

The copy is made in steps within one transaction that reads. In WAL mode such a transaction delays no writer. Without
it, SQLite would start the copy again after each commit of another process. The write-ahead log grows until the end.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import quote

import sqlalchemy as sa

from postroad.backup.archive import CHUNK, Output
from postroad.errors import ConfigError

_PAGES_OF_A_STEP = 256
_COMPRESSION = 1  # A third of the size, at about 100 MB/s.


def dump(connection: sa.Connection, output: Output, folder: Path, report: Callable[[int, int], None]) -> None:
    """Write a compressed copy of a database, as the connection's transaction sees it.

    Args:
        connection: The database, in a transaction that has read already.
        output: Where to write.
        folder: For the uncompressed copy.
        report: Called with the number of copied pages, and of all.

    Raises:
        ConfigError: The folder has no space for the copy.
    """
    source = connection.connection.driver_connection
    assert isinstance(source, sqlite3.Connection)  # noqa: S101  (connected)
    path = folder / "copy.sqlite"
    try:
        with closing(sqlite3.connect(path)) as copy:
            copy.execute("PRAGMA synchronous = OFF")  # It is read again, compressed and deleted.
            source.backup(
                copy,
                pages=_PAGES_OF_A_STEP,
                progress=lambda _status, left, total: report(total - left, total),
            )
    except sqlite3.OperationalError as error:
        raise ConfigError(
            f"the database cannot be copied: {error}", where=str(folder), remedy="Check the space on its disk."
        ) from None
    with path.open("rb") as plain, gzip.GzipFile("", "wb", _COMPRESSION, output, mtime=0) as packed:  # type: ignore[call-overload]
        shutil.copyfileobj(plain, packed, CHUNK)
    path.unlink()


def unpack(content: IO[bytes], path: Path, report: Callable[[int, int], None]) -> None:
    """Restore a dump as a file. Raises OSError if the file cannot be written.

    Args:
        content: The dump.
        path: The file.
        report: Called with the number of bytes of the dump that were read, and of all.
    """
    length = content.seek(0, os.SEEK_END)
    content.seek(0)
    with gzip.open(content) as plain, path.open("wb") as file:
        while chunk := plain.read(CHUNK):
            file.write(chunk)
            report(content.tell(), length)


def open_copy(path: Path) -> sa.Engine:
    """Return an engine on a file that no process changes."""
    uri = f"file:{quote(str(path))}?immutable=1"
    connect = partial(sqlite3.connect, uri, uri=True, check_same_thread=False)
    return sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)


def faults(engine: sa.Engine) -> list[str]:
    """Return what SQLite finds wrong in a file: damaged pages and indexes, and rows that refer to no row."""
    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check").scalars()
            damage = [f"integrity: {line}" for line in found if line != "ok"]
            orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(10)
    except sa.exc.DatabaseError as error:
        return [f"integrity: {error.orig}"]
    return damage + [f"row {row[1]} of {row[0]} refers to no row of {row[2]}" for row in orphans]

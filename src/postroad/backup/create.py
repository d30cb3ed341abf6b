"""Makes a backup: a dump of the database and the sums of its ledger in one snapshot, while mail is being sent."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa

from postroad.backup import postgresql, sqlite
from postroad.backup.archive import ArchiveWriter, Output
from postroad.backup.manifest import DUMPS, KEY, DatabaseKind, Manifest, fingerprint
from postroad.backup.work_folder import work_folder
from postroad.errors import ConfigError, StateError
from postroad.store.engine import translate_db_errors
from postroad.store.ledger_sums import ledger_sums
from postroad.store.migrate import revision_in

SUFFIX = ".tar"
_PREFIX = "postroad-"


@dataclass(frozen=True, kw_only=True)
class SecretKeys:
    """The keys of an installation. ``ring``: in use, the signing key first; ``generated``: to be included, or None."""

    ring: Sequence[str]
    generated: str | None


@dataclass(frozen=True, kw_only=True)
class CreatedBackup:
    """A backup that is complete."""

    file: Path
    bytes: int
    manifest: Manifest


def backup_file(target: Path, now: datetime) -> Path:
    """Return the file of a new backup: the target, or a file in it with the time in its name if it is a folder."""
    return target / f"{_PREFIX}{now:%Y%m%dT%H%M%SZ}{SUFFIX}" if target.is_dir() else target


def newest_backup(target: Path) -> Path:
    """Return the target, or the newest backup in it if it is a folder. Raises StateError if it has no backup."""
    if not target.is_dir():
        return target
    if found := max(target.glob(f"{_PREFIX}*{SUFFIX}"), default=None):
        return found
    raise StateError(
        "the folder has no backup", where=str(target), remedy="`postroad backup create` makes one.", missing=True
    )


def create(
    engine: sa.Engine, target: Path, keys: SecretKeys, now: datetime, report: Callable[[str, int, int], None]
) -> CreatedBackup:
    """Write a backup to a file that only its owner can read. The file appears when it is complete.

    Args:
        engine: The database, at any revision.
        target: The file, or an existing folder for a file with the time in its name.
        keys: Keys whose fingerprints the manifest has, and the one that the backup has.
        now: The time.
        report: Called with a description, and the numbers of what is done and of all.

    Returns:
        The backup.

    Raises:
        ConfigError: The file cannot be written, or pg_dump cannot dump this database.
        StateError: The database has no tables.
        UnavailableError: The database does not answer.
    """
    try:
        file = backup_file(target, now)
        with work_folder(file.parent) as folder:
            part = folder / "backup"
            part.touch(mode=0o600)
            with part.open("r+b") as output:
                archive = ArchiveWriter(output, now)
                if keys.generated is not None:
                    with archive.member(KEY) as member:
                        member.write(keys.generated.encode())
                manifest = _dump(engine, archive, folder, keys, now, report)
                archive.finish(manifest)
                output.flush()
                os.fsync(output.fileno())
                length = output.tell()
            part.replace(file)
            _sync(file.parent)
    except OSError as error:
        raise ConfigError(
            f"the backup cannot be written: {error.strerror}",
            where=str(target),
            remedy="Check the folder, its permissions and the space on its disk. Nothing was kept.",
        ) from None
    return CreatedBackup(file=file, bytes=length, manifest=manifest)


def _dump(
    engine: sa.Engine,
    archive: ArchiveWriter,
    folder: Path,
    keys: SecretKeys,
    now: datetime,
    report: Callable[[str, int, int], None],
) -> Manifest:
    kind = DatabaseKind(engine.dialect.name)
    with _snapshot(engine) as connection:
        if (revision := revision_in(connection)) is None:
            raise StateError(
                "the database has no tables",
                where=engine.url.render_as_string(hide_password=True),
                remedy="Check `database_url` or `state_dir`: a backup of it would be empty.",
            )
        with archive.member(DUMPS[kind]) as output:
            _write_dump(kind, connection, output, folder, partial(report, "dumping"))
        sums = ledger_sums(connection, partial(report, "counting"))
        return Manifest(
            version=version("postroad"),
            created_at=now,
            database=kind,
            server=_server(connection),
            revision=revision,
            sums=sums,
            keys=tuple(map(fingerprint, keys.ring)),
            files=dict(archive.files),
        )


def _write_dump(
    kind: DatabaseKind, connection: sa.Connection, output: Output, folder: Path, report: Callable[[int, int], None]
) -> None:
    if kind is DatabaseKind.SQLITE:
        sqlite.dump(connection, output, folder, report)
    else:
        postgresql.dump(connection, output, len(sa.inspect(connection).get_table_names()), report)


@contextmanager
def _snapshot(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Run the block in a transaction that reads one state of the database, and may take hours."""
    with _readable(engine), translate_db_errors(), engine.connect() as plain:
        if plain.dialect.name == "sqlite":  # Every transaction of it reads one state.
            with plain.begin():
                yield plain
            return
        connection = plain.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield connection


@contextmanager
def _readable(engine: sa.Engine) -> Iterator[None]:
    """Raise ConfigError in place of the error of a role that may not read a table."""
    try:
        yield
    except sa.exc.ProgrammingError as error:
        raise ConfigError(
            f"the database cannot be read: {str(error.orig).partition(chr(10))[0]}",
            where=engine.url.render_as_string(hide_password=True),
            remedy="Use a role that may read every table, such as the one that owns them.",
        ) from None


def _server(connection: sa.Connection) -> str:
    if connection.dialect.name == "sqlite":
        return f"SQLite {sqlite3.sqlite_version}"
    return f"PostgreSQL {connection.exec_driver_sql('SHOW server_version').scalar_one()}"


def _sync(folder: Path) -> None:
    """Make the new name of a file survive a failure of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

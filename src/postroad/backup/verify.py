"""Verifies a backup: restores it into an empty database, and compares the restored ledger with the manifest."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from postroad.backup import postgresql, sqlite
from postroad.backup.archive import Archive, open_archive
from postroad.backup.manifest import DUMPS, KEY, DatabaseKind, Manifest, fingerprint
from postroad.backup.work_folder import work_folder
from postroad.errors import ConfigError, UsageError
from postroad.store import migrate
from postroad.store.engine import open_engine, read
from postroad.store.ledger_sums import ledger_sums

Report = Callable[[str, int, int], None]


class KeyPlace(StrEnum):
    """Where the secret key of a backup's messages is."""

    BACKUP = "backup"
    SETTINGS = "settings"
    MISSING = "missing"
    NOT_MADE = "not made"


@dataclass(frozen=True, kw_only=True)
class VerifiedBackup:
    """A backup that was restored. ``differences``: of the restored database from the manifest; none: it is good."""

    file: Path
    manifest: Manifest
    key: KeyPlace
    differences: Sequence[str]


def verify(file: Path, server: str | None, ring: Sequence[str], report: Report) -> VerifiedBackup:
    """Restore a backup into an empty database, compare it with the manifest, and delete the database.

    Args:
        file: The backup.
        server: URL of a PostgreSQL database, on whose server a database is made; or None.
        ring: Secret keys of this installation.
        report: Called with a description, and the numbers of what is done and of all.

    Returns:
        The result.

    Raises:
        DataError: The file is no backup, was cut or is damaged.
        ConfigError: A newer version made it, or no database can be made.
        StateError: Another verification runs.
        UsageError: The backup is of PostgreSQL, and there is no server.
        UnavailableError: The server does not answer.
        PostroadError: The dump cannot be restored.
    """
    try:
        with open_archive(file) as archive:
            return _verify(archive, server, ring, report)
    except OSError as error:
        raise ConfigError(
            f"the backup cannot be restored: {error.strerror}",
            where=error.filename or tempfile.gettempdir(),
            remedy="Check the space there. TMPDIR names another folder for restored SQLite databases.",
        ) from None


def _verify(archive: Archive, server: str | None, ring: Sequence[str], report: Report) -> VerifiedBackup:
    manifest = archive.manifest
    if manifest.revision not in migrate.known_revisions():
        raise ConfigError(
            f"the backup is at revision {manifest.revision}, and this version knows revisions up to "
            f"{migrate.newest_revision()}",
            where=str(archive.path),
            remedy=f"Postroad {manifest.version} made it: verify it with that version, or a newer one.",
        )
    megabytes = partial(report, "digests, MB")
    archive.check(lambda done, total: megabytes(done // 1_000_000, total // 1_000_000))
    with _restored(archive, server, partial(report, "restoring")) as engine:
        differences = sqlite.faults(engine) if manifest.database is DatabaseKind.SQLITE else []
        differences = differences or _compare(manifest, engine, partial(report, "counting"))
    return VerifiedBackup(file=archive.path, manifest=manifest, key=_key_place(manifest, ring), differences=differences)


def _compare(manifest: Manifest, engine: sa.Engine, report: Callable[[int, int], None]) -> list[str]:
    with read(engine) as connection:
        revision = migrate.revision_in(connection)
        changed = (
            []
            if revision == manifest.revision
            else [f"revision: {manifest.revision} in the manifest, {revision} restored"]
        )
        return changed + manifest.sums.differences(ledger_sums(connection, report))


def _key_place(manifest: Manifest, ring: Sequence[str]) -> KeyPlace:
    if not manifest.keys:
        return KeyPlace.NOT_MADE
    if KEY in manifest.files:
        return KeyPlace.BACKUP
    return KeyPlace.SETTINGS if set(manifest.keys) <= set(map(fingerprint, ring)) else KeyPlace.MISSING


@contextmanager
def _restored(archive: Archive, server: str | None, report: Callable[[int, int], None]) -> Iterator[sa.Engine]:
    """Restore the dump of an archive, and delete it at the end. Yields an engine on it."""
    manifest = archive.manifest
    with ExitStack() as stack:
        content = stack.enter_context(archive.open(DUMPS[manifest.database]))
        if manifest.database is DatabaseKind.SQLITE:
            path = stack.enter_context(work_folder(Path(tempfile.gettempdir()))) / "restored.sqlite"
            sqlite.unpack(content, path, report)
            copy = sqlite.open_copy(path)
            stack.callback(copy.dispose)
            yield copy
            return
        if server is None:
            raise UsageError(
                "the backup is of a PostgreSQL database, and no server is named to restore it on",
                remedy="Name one: --server postgresql://user@host/postgres.",
            )
        engine = open_engine(server)
        stack.callback(engine.dispose)
        scratch = stack.enter_context(postgresql.scratch_database(engine))
        postgresql.restore(content, scratch, len(manifest.sums.rows), report)
        yield scratch

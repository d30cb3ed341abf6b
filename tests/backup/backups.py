"""Backups made without a command, and archives that were changed afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import sqlalchemy as sa

from postroad.backup.archive import ArchiveWriter, open_archive
from postroad.backup.create import CreatedBackup, SecretKeys, create
from postroad.backup.manifest import Manifest
from postroad.backup.verify import VerifiedBackup, verify

NOW = datetime(2026, 12, 1, 2, 30, tzinfo=UTC)
KEYS = SecretKeys(ring=["key-one"], generated="key-one")


def silent(_what: str, _done: int, _total: int) -> None:
    pass


def back_up(
    engine: sa.Engine, target: Path, *, keys: SecretKeys = KEYS, report: Callable[[str, int, int], None] = silent
) -> CreatedBackup:
    return create(engine, target, keys, NOW, report)


def check(
    engine: sa.Engine,
    file: Path,
    *,
    ring: tuple[str, ...] = (),
    report: Callable[[str, int, int], None] = silent,
) -> VerifiedBackup:
    """Verify a backup on the server of a database."""
    return verify(file, server_of(engine), ring, report)


def server_of(engine: sa.Engine) -> str | None:
    """Return the URL of a database on PostgreSQL; None on SQLite."""
    return engine.url.render_as_string(hide_password=False) if engine.dialect.name == "postgresql" else None


def rewrite(
    file: Path,
    manifest: Callable[[Manifest], Manifest] = lambda it: it,
    contents: Callable[[str, bytes], bytes] = lambda _name, it: it,
) -> None:
    """Write an archive again with another manifest, or other contents whose digests are right."""
    changed = file.with_suffix(".new")
    with open_archive(file) as archive, changed.open("w+b") as output:
        writer = ArchiveWriter(output, NOW)
        for name in archive.manifest.files:
            with archive.open(name) as content, writer.member(name) as member:
                member.write(contents(name, content.read()))
        writer.finish(manifest(msgspec.structs.replace(archive.manifest, files=dict(writer.files))))
    shutil.move(changed, file)


def without_key() -> SecretKeys:
    return replace(KEYS, generated=None)
